import numpy as np
import pytest
import torch
from fitted_worlds import error, fitted, forecast, generator, pendulum

from rlkit.world import Ensemble, Episodes, Layout, LinearDynamics, OpenLoop, Widths, World
from rlkit.world.experience import Experience

SMALL = Ensemble(members=3, hidden=(8, 6)).with_widths(Widths(2, 1, 1))


def by_hand(model, vector, member, x, action):
    """Mean and deviation of one member's prediction for one row, written down slowly."""
    p = {name: view.double() for name, view in model.views(vector).items()}
    h = torch.cat([x, action]).double()
    for i in range(3):
        h = h @ p[f"{i}.weight"][member] + p[f"{i}.bias"][member, 0]
        h = h * torch.sigmoid(h) if i < 2 else h
    unit = torch.cat([p["log_change"].exp(), torch.ones(1).double()])
    mean = torch.cat([x.double(), torch.zeros(1).double()]) + unit * h[:3]
    log_variance = p["high"] - torch.log1p(torch.exp(p["high"] - h[3:]))
    log_variance = p["low"] + torch.log1p(torch.exp(log_variance - p["low"]))
    return mean, unit * (log_variance / 2).exp()


def vector_of(model, seed=0):
    vector = model.initial_parameters(generator(seed))
    vector = vector + 0.1 * torch.randn(vector.shape, generator=generator(seed + 1))
    model.views(vector)["low"].fill_(-3.0)
    return vector


def test_rows_stay_with_a_member_and_members_share_the_rows():
    vector = vector_of(SMALL)
    x, actions = torch.randn(8, 2, generator=generator()), torch.zeros(8, 4, 1)
    made = SMALL.imagine(vector, (x,), OpenLoop(actions), 4, generator(3), 1.0)
    members = []
    for row in range(8):
        ways = [by_hand(SMALL, vector, m, x[row], actions[row, 0]) for m in range(3)]
        off = [float((mean - made.mean[row, 0]).abs().max()) for mean, _ in ways]
        members.append(int(np.argmin(off)))
        before = x[row]
        for t in range(4):
            mean, scale = by_hand(SMALL, vector, members[-1], before, actions[row, t])
            torch.testing.assert_close(made.mean[row, t].double(), mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(made.scale[row, t].double(), scale, rtol=1e-4, atol=1e-5)
            before = made.observation[row, t]
    # Three rows that follow each other have one member each.
    assert [sorted(members[i : i + 3]) for i in (0, 3)] == [[0, 1, 2], [0, 1, 2]]
    assert members[:3] != members[3:6] or members[6:8] != members[:2]


@pytest.mark.slow
def test_members_can_be_drawn_anew_or_averaged():
    vector = vector_of(SMALL)
    x, action = torch.randn(60, 2, generator=generator()), torch.zeros(60, 9, 1)
    ways = [
        torch.stack([by_hand(SMALL, vector, m, x[r], action[r, 0])[i] for m in range(3)])
        for r in range(60)
        for i in (0, 1)
    ]
    means, scales = torch.stack(ways[::2]), torch.stack(ways[1::2])
    mixed = Ensemble(members=3, hidden=(8, 6), propagation="mean").with_widths(SMALL.widths)
    made = mixed.imagine(vector, (x,), OpenLoop(action), 1, generator())
    torch.testing.assert_close(made.mean[:, 0].double(), means.mean(1), rtol=1e-4, atol=1e-5)
    spread = (scales.square().mean(1) + means.var(1, correction=0)).sqrt()
    torch.testing.assert_close(made.scale[:, 0].double(), spread, rtol=1e-4, atol=1e-5)

    drawn = Ensemble(members=3, hidden=(8, 6), propagation="resampled").with_widths(SMALL.widths)
    made = drawn.imagine(vector, (x,), OpenLoop(action), 9, generator(), 0.0)
    changed = 0
    for row in range(60):
        before, found = x[row], set()
        for t in range(9):
            means = [by_hand(SMALL, vector, m, before, action[row, t])[0] for m in range(3)]
            off = [float((mean - made.mean[row, t]).abs().max()) for mean in means]
            found.add(int(np.argmin(off)))
            before = made.observation[row, t]
        changed += found == {0, 1, 2}
    assert changed > 40


def test_samples_have_the_predicted_deviation():
    vector = vector_of(SMALL)
    x = torch.randn(1, 2, generator=generator()).expand(30_000, 2)
    for temperature in (0.5, 1.0, 2.0):
        actions = torch.zeros(30_000, 1, 1)
        made = SMALL.imagine(vector, (x,), OpenLoop(actions), 1, generator(), temperature)
        whole = torch.cat([made.observation, made.outcome], 2)
        z = (whole - made.mean) / made.scale
        torch.testing.assert_close(z.std(0)[0], torch.full((3,), temperature), rtol=0.02, atol=0)
        assert z.mean(0).abs().max() < 0.04


def test_the_loss_is_the_likelihood_of_every_member():
    plain = Ensemble(members=3, hidden=(8, 6), beta=0.0, decay=0.0, bootstrap=False)
    case = Experience(plain, rows=2, steps=6, widths=Widths(2, 1, 1))
    windows, vector = case.windows, vector_of(case.model)
    total, count = 0.0, 0
    for row in range(2):
        for t in range(6):
            for member in range(3):
                x, action = windows.observation[row, t], windows.action[row, t]
                mean, scale = by_hand(case.model, vector, member, x, action)
                each = torch.distributions.Normal(mean, scale).log_prob(windows.target[row, t])
                total -= float(each.sum())
            count += 3
    loss, metrics = case.model.loss(vector, windows, generator(), 0)
    assert float(metrics["nll"]) == pytest.approx(total / count, rel=1e-4)
    views = case.model.views(vector)
    bounds = 1e-3 * float((views["high"] - views["low"]).sum())
    assert float(loss) == pytest.approx(total / count + bounds, rel=1e-4)


def test_each_member_draws_records_in_its_own_way():
    position = torch.arange(200_000)
    weights = SMALL._weights(position)
    assert weights.shape == (3, 200_000)
    assert torch.equal(weights[:, 7:9], SMALL._weights(position[7:9]))
    for k, share in enumerate((0.3679, 0.3679, 0.1839, 0.0613, 0.0153)):
        np.testing.assert_allclose((weights == k).float().mean(1), share, atol=0.004)
    assert np.abs(np.corrcoef(weights) - np.eye(3)).max() < 0.01
    neighbours = np.corrcoef(weights[:, :-1].flatten(), weights[:, 1:].flatten())
    assert abs(neighbours[0, 1]) < 0.01


@pytest.mark.slow
def test_members_agree_on_what_they_saw_and_not_elsewhere():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(800, 1))
    after = x + 0.3 * np.sin(3 * x)
    observation = np.stack([x, after], 1).reshape(-1, 1)
    data = Episodes(observation, np.zeros((800, 0)), [1] * 800)
    world = World(Ensemble(hidden=(32, 32)), Layout(1, 0), generator())
    list(world.fit(data, steps=250, records=128, learning_rate=3e-3, generator=generator()))

    def spread(at):
        seen = np.full((1, 1, 1), at)
        none = np.zeros((1, 1, 0))
        made = world.forecast(
            seen, none[:, :0], none, samples=50, generator=generator(), temperature=0.0
        )
        return float(made.std())

    assert max(spread(at) for at in (-0.8, 0.0, 0.5)) < 0.1 * spread(4.0)


@pytest.mark.slow
def test_it_beats_linear_dynamics_and_persistence():
    training, windows = (
        pendulum(30, 40, seed=0, speed=True),
        pendulum(20, 40, seed=1, speed=True).forecast_windows(0, 10, 100),
    )
    truth = windows.future_observation[:, -1]
    errors = {"persistence": error(windows.context_observation[:, -1], truth)}
    models = {"linear": LinearDynamics(), "ensemble": Ensemble(members=3, hidden=(32, 32))}
    for name, model in models.items():
        world = fitted(model, training, steps=400, records=128, learning_rate=3e-3)
        errors[name] = error(forecast(world, windows, 12)[:, :, -1], truth)
    assert errors["ensemble"] < 0.4 * errors["linear"], errors
    assert errors["linear"] < 0.9 * errors["persistence"], errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 0}, "members must be a whole number >= 1, got 0"),
        ({"hidden": [8]}, "hidden must be a sequence of whole numbers"),
        ({"propagation": "TS1"}, "propagation must be one of .*, got 'TS1'"),
        ({"bootstrap": 1}, "bootstrap must be true or false, got 1"),
        ({"decay": -1.0}, r"decay must be a number >= 0, got -1\.0"),
        ({"beta": 1.5}, r"beta must be a number in \[0, 1\], got 1\.5"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(**settings)


def test_it_needs_widths():
    with pytest.raises(ValueError, match="Ensemble does not know its columns: use"):
        Ensemble().shapes()
    assert Ensemble().size == 0
