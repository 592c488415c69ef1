import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from rlkit.goals import DistanceRule, ObservationLayout
from rlkit.io.checkpoint import read_checkpoint, write_checkpoint
from rlkit.networks import DivergenceError
from rlkit.world import (
    WORLDS,
    Ensemble,
    Episodes,
    Layout,
    LinearDynamics,
    NonFiniteForecast,
    World,
    goal_outcomes,
    repeat,
)

SMALL = Ensemble(members=2, hidden=(8,))
LAYOUT = Layout(3, 1, outcomes=("reward",))
SHIFT, SIZE = np.array([100.0, 0.0, -3.0]), np.array([20.0, 1e-3, 1.0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(count=12, steps=20, seed=0, noise=0.1):
    """A linear system in units of its own; its reward is the speed at which column 0 grows."""
    rng = np.random.default_rng(seed)
    turn = np.array([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.0], [0.0, 0.1, 0.8]])
    episodes = []
    for _ in range(count):
        x, action = [rng.normal(size=3)], rng.uniform(-1, 1, (steps, 1))
        for t in range(steps):
            x.append(turn @ x[-1] + 0.5 * action[t] + noise * rng.normal(size=3))
        x = np.array(x)
        reward = 7 + x[1:, 0] - x[:-1, 0]
        episodes.append(
            {"observation": SHIFT + SIZE * x, "action": 50 + 10 * action, "reward": reward}
        )
    return Episodes.of(episodes)


def fitted(model=SMALL, steps=30, episodes=None):
    world = World(model, LAYOUT, generator())
    fit(world, data() if episodes is None else episodes, steps=steps)
    return world


def fit(world, episodes=None, steps=10, seed=1, **settings):
    found = world.fit(
        data() if episodes is None else episodes, steps=steps, generator=generator(seed), **settings
    )
    return [{name: float(value) for name, value in metrics.items()} for metrics in found]


def after(world, x):
    """The hidden state after first observations `(n, 1, F)`."""
    action = torch.zeros(len(x), 1, world.layout.action)
    return world.observe(x, action, world.initial(len(x)), torch.ones(len(x), 1, dtype=torch.bool))


def forecast(world, windows, samples=20, seed=0, **settings):
    given = (
        windows.context_observation,
        windows.context_action,
        windows.future_action,
    )
    return world.forecast(*given, samples=samples, generator=generator(seed), **settings)


def same(one, two):
    a, b = one.state_dict(), two.state_dict()
    assert a.keys() == b.keys()
    return all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        for name, value in a.items()
    )


def test_forecasts_are_in_raw_units_and_follow_the_system():
    world = fitted(LinearDynamics(), episodes=data(count=60))
    windows = data(count=60, seed=5).forecast_windows(3, 8, 400)
    samples = forecast(world, windows, 100)
    assert samples.shape == (100, 400, 8, 3)
    assert samples.dtype == np.float32
    error = (samples.mean(0) - windows.future_observation) / SIZE
    assert np.sqrt(np.mean(error[:, 0] ** 2)) < 0.13
    assert np.sqrt(np.mean(error[:, 7] ** 2)) < 0.35
    inside = np.abs(error) < 1.64 * samples.std(0) / SIZE
    assert 0.85 < inside[:, 0].mean() < 0.95
    assert 0.85 < inside[:, 7].mean() < 0.95


def test_imagining_is_a_loop_over_the_linear_map():
    world = fitted(LinearDynamics())
    p = {name: view.numpy() for name, view in world.model.views(world.parameters).items()}
    scaling = world.scaling
    start, actions = torch.tensor(data().observation[:4]).float(), torch.full((4, 6, 1), 55.0)
    first = torch.ones(4, 1, dtype=torch.bool)
    hidden_state = world.observe(start[:, None], torch.zeros(4, 1, 1), world.initial(4), first)
    made = world.imagine(hidden_state, actions, generator=generator(), temperature=0.0)
    x = (start.numpy() - scaling.observation.shift.numpy()) / scaling.observation.deviation.numpy()
    u = float((55 - scaling.action.shift) / scaling.action.deviation)
    for t in range(6):
        y = np.concatenate([x, np.full((4, 1), u)], 1) @ p["weight"] + p["bias"]
        x, outcome = y[:, :3], y[:, 3]
        raw = x * scaling.observation.deviation.numpy() + scaling.observation.shift.numpy()
        np.testing.assert_allclose(made.observation[:, t], raw, rtol=1e-4, atol=1e-4)
        reward = outcome * float(scaling.outcome.deviation) + float(scaling.outcome.shift)
        np.testing.assert_allclose(made.outcome[:, t, 0], reward, rtol=1e-4)
        np.testing.assert_allclose(made.mean[:, t, :3], raw, rtol=1e-4, atol=1e-4)
    assert torch.equal(LAYOUT.outcome(made.outcome, "reward"), made.outcome[..., 0])
    assert made.finite.all()


def test_a_policy_acts_in_raw_units():
    world = fitted()
    hidden_state = after(world, torch.tensor(data().observation[:2]).float()[:, None])
    seen = []

    def policy(observation, hidden_state, t):
        seen.append(observation)
        return torch.full((2, 1), 50.0 + t)

    made = world.imagine(repeat(hidden_state, 1), policy, horizon=4, generator=generator())
    given = torch.arange(50.0, 54.0).expand(2, 4)[..., None]
    replayed = world.imagine(hidden_state, given, generator=generator())
    assert torch.equal(made.observation, replayed.observation)
    np.testing.assert_allclose(seen[0], data().observation[:2], rtol=1e-5)
    assert torch.equal(torch.stack(seen[1:], 1), made.observation[:, :-1])
    for actions, horizon in ((policy, None), (policy, 0), (given, 3)):
        with pytest.raises(ValueError, match="horizon must be >= 1 and that of the actions"):
            world.imagine(hidden_state, actions, horizon=horizon, generator=generator())
    with pytest.raises(ValueError, match="temperature must be >= 0"):
        world.imagine(hidden_state, given, generator=generator(), temperature=-1.0)


@pytest.mark.parametrize("name", WORLDS.names())
def test_an_interrupted_fit_continues_exactly(name):
    model = WORLDS.make(name)
    whole, first, second = (World(model, LAYOUT, generator(7)) for _ in range(3))
    source = generator(1)
    list(whole.fit(data(), steps=6, records=16, generator=source))
    assert not same(whole, first)
    source = generator(1)
    started = first.fit(data(), steps=6, records=16, generator=source)
    steps = min(whole.steps, 4)
    for _ in range(steps):
        next(started)
    started.close()
    kept = torch.Generator()
    kept.set_state(source.get_state())
    second.load_state_dict(first.state_dict())
    if whole.steps > steps:
        list(second.fit(data(), steps=2, records=16, generator=kept))
    assert same(whole, second)
    windows = data(seed=3).forecast_windows(1, 3, 4)
    np.testing.assert_array_equal(forecast(whole, windows), forecast(second, windows))


@pytest.mark.parametrize("name", WORLDS.names())
def test_what_is_saved_is_loaded(name, tmp_path):
    model = WORLDS.make(name)
    layout = replace(LAYOUT, achieved=(0, 2))
    world = World(model, layout, generator())
    fit(world, steps=2)
    world.save(tmp_path / "deep" / "world")
    loaded = World.load(tmp_path / "deep" / "world")
    assert same(world, loaded)
    assert loaded.layout == layout
    assert WORLDS.describe(loaded.model) == WORLDS.describe(model)
    fit(world, steps=2, seed=3), fit(loaded, steps=2, seed=3)
    assert same(world, loaded)
    world.save(tmp_path / "deep" / "world")
    assert same(world, World.load(tmp_path / "deep" / "world"))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["world"]


def test_files_are_for_others_to_read(tmp_path):
    world = fitted()
    world.save(tmp_path / "world")
    tensors = load_file(tmp_path / "world" / "weights.safetensors")
    weight = world.model.views(world.parameters)["0.weight"]
    assert torch.equal(tensors["model.0.weight"], weight)
    np.testing.assert_allclose(tensors["observation.deviation"][0], SIZE[0], rtol=0.5)
    facts = json.loads((tmp_path / "world" / "state.json").read_text())["state"]["world"]
    assert facts["model"]["name"] == "ensemble"
    assert facts["layout"]["outcomes"] == ["reward"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["world"].update(format=9), "was written by rlkit-suite .* read it"),
        (lambda state: state["world"]["model"].update(members=3), "have shapes .*the model has"),
        (lambda state: state.update(latent=state.pop("world")), "holds no world, but weights, la"),
        (
            lambda state: state["world"].pop("layout"),
            "what it should: KeyError: 'layout'",
        ),
    ],
)
def test_files_of_others_are_refused(change, message, tmp_path):
    World(SMALL, LAYOUT, generator()).save(tmp_path / "world")
    state = read_checkpoint(tmp_path / "world")
    change(state)
    write_checkpoint(tmp_path / "world", state)
    with pytest.raises(ValueError, match=message):
        World.load(tmp_path / "world")


def damage(folder, name, function):
    path = folder / name
    path.write_bytes(function(path.read_bytes()))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "holds no world: .*manifest.json is missing"),
        (lambda f: (f / "state.json").unlink(), "state.json is missing"),
        (lambda f: damage(f, "state.json", lambda data: data[:40]), "is truncated"),
        (
            lambda f: damage(f, "weights.safetensors", lambda d: d[:-1] + bytes([d[-1] ^ 4])),
            "is damaged",
        ),
    ],
)
def test_damaged_folders_are_refused(spoil, message, tmp_path):
    World(SMALL, LAYOUT, generator()).save(tmp_path / "world")
    spoil(tmp_path / "world")
    with pytest.raises(ValueError, match=message):
        World.load(tmp_path / "world")


def test_saving_takes_no_other_file_away(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files \(thesis\.tex\).*a folder of its own"):
        World(SMALL, LAYOUT, generator()).save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_states_of_other_worlds_are_refused():
    world = World(SMALL, LAYOUT, generator())
    before = world.state_dict()
    others = {
        "model": World(replace(SMALL, beta=1.0), LAYOUT, generator()),
        "layout": World(SMALL, replace(LAYOUT, observation=4), generator()),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"the saved world has {name}"):
            world.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"the saved world's vector has shape \(5,\), this one's"):
        world.load_state_dict(before | {"vector": torch.zeros(5)})
    assert torch.equal(world.parameters, before["vector"])


def test_the_scaling_is_that_of_what_was_fitted():
    training, held_out = data(), data(seed=9)
    held_out.observation[:] += 1000
    world = fitted(episodes=training, steps=1)
    np.testing.assert_allclose(
        world.scaling.observation.shift, training.observation.mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        world.scaling.observation.deviation, training.observation.std(0), rtol=1e-4
    )
    np.testing.assert_allclose(world.scaling.outcome.shift, training.outcomes["reward"].mean())
    before = world.state_dict()
    assert world.evaluate(held_out, generator())["loss"] > 10
    assert all(torch.equal(before[name], v) for name, v in world.scaling.tensors().items())


@pytest.mark.parametrize("model", [SMALL, LinearDynamics()])
def test_constant_columns_are_forecast_as_they_are(model):
    episodes = data()
    constant = Episodes(
        np.concatenate([episodes.observation, np.full((len(episodes.observation), 1), 1e6 / 3)], 1),
        np.concatenate([episodes.action, np.full((len(episodes.action), 1), 0.1)], 1),
        episodes.spans[:, 2],
        reward=np.full(len(episodes.action), -1.0),
    )
    world = World(model, Layout(4, 2, outcomes=("reward",)), generator())
    metrics = fit(world, constant, steps=150, learning_rate=3e-3)
    assert all(np.isfinite(list(one.values())).all() for one in metrics)
    windows = constant.forecast_windows(0, 5, 10)
    samples = forecast(world, windows)
    np.testing.assert_array_equal(samples[..., 3], np.float32(1e6 / 3))
    assert np.abs(samples[..., 0] - 100).max() < 200
    hidden_state = after(world, torch.from_numpy(windows.context_observation))
    actions = torch.from_numpy(windows.future_action)
    made = world.imagine(hidden_state, actions, generator=generator())
    assert (made.outcome == -1.0).all()


def test_forecasts_repeat_by_their_seed_and_read_the_context_alone():
    world = fitted()
    episodes = data(seed=4)
    windows = episodes.forecast_windows(2, 5, 6)
    one, two = forecast(world, windows), forecast(world, windows)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, forecast(world, windows, seed=1))
    windows.future_observation[:] = np.nan
    np.testing.assert_array_equal(forecast(world, windows), one)
    wide, narrow = (forecast(world, windows, temperature=t).std(0).mean() for t in (2.0, 0.0))
    assert wide > one.std(0).mean() > narrow


def test_many_rows_are_forecast_piece_by_piece():
    world = fitted(LinearDynamics())
    windows = data(count=40, steps=30).forecast_windows(0, 2)
    assert len(windows) > 1000
    many = forecast(world, windows, samples=10, temperature=0.0)
    np.testing.assert_array_equal(many[0], many[9])
    few = data(count=40, steps=30).forecast_windows(0, 2, 3)
    last = forecast(world, few, samples=1, temperature=0.0)[0]
    np.testing.assert_allclose(last[[0, 2]], many[0, [0, -1]], rtol=1e-5)


@dataclass(frozen=True)
class Exploding(LinearDynamics):
    """Says infinity of every second row from the third step on."""

    def imagine(self, *args):
        made = super().imagine(*args)
        observation = made.observation.clone()
        observation[::2, 2:] = torch.inf
        return replace(made, observation=observation)


def test_forecasts_that_are_not_finite_are_refused():
    world = fitted(Exploding())
    windows = data().forecast_windows(0, 4, 2)
    with pytest.raises(NonFiniteForecast, match=r"25\.00% .*Exploding.* at step 3 of 4"):
        forecast(world, windows)
    hidden_state = after(world, torch.from_numpy(windows.context_observation))
    actions = torch.from_numpy(windows.future_action)
    made = world.imagine(hidden_state, actions, generator=generator())
    assert made.finite.tolist() == [False, True]


@dataclass(frozen=True)
class Diverging(Ensemble):
    """Its loss is no number from the third step on."""

    def loss(self, vector, windows, generator, step):
        loss, metrics = super().loss(vector, windows, generator, step)
        return (loss * torch.nan if step >= 2 else loss), metrics


def test_a_loss_that_explodes_ends_the_fit_where_it_was_whole():
    world = World(Diverging(2, (8,)), LAYOUT, generator())
    with pytest.raises(
        DivergenceError, match=r"loss of Diverging is nan.*at step 11; lower learning_"
    ):
        fit(world, steps=20)
    assert world.parameters.isfinite().all()


def test_fitting_lowers_the_loss_on_held_out_data():
    world = World(SMALL, LAYOUT, generator())
    fit(world, steps=1)
    before = world.evaluate(data(seed=8), generator())
    assert before.keys() >= {"loss", "error", "nll"}
    metrics = fit(world, steps=100, learning_rate=3e-3)
    after = world.evaluate(data(seed=8), generator())
    assert after["loss"] < before["loss"] - 0.5
    assert after["error"] < 0.5 * before["error"]
    assert world.steps == len(metrics) + 1 == 101
    assert metrics[0].keys() >= {"loss", "error", "gradient_norm"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"records": 0}, "records must be >= 1, got 0"),
        ({"window": 0}, "window must be >= 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0, got nan"),
        ({"clip": 0.0}, r"clip must be > 0, got 0\.0"),
    ],
)
def test_settings_of_a_fit_are_checked(settings, message):
    world = World(SMALL, LAYOUT, generator())
    with pytest.raises(ValueError, match=message):
        world.fit(data(), generator=generator(), **{"steps": 1, **settings})


def spoilt(value):
    episodes = data()
    episodes.observation[7, 1] = value
    return episodes


X, A = np.random.default_rng(0).normal(size=(6, 3)), np.zeros((5, 1))


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        (lambda: spoilt(np.nan), r"observation must be finite, found nan at index \(7, 1\)"),
        (lambda: spoilt(np.inf), "observation must be finite, found inf"),
        (lambda: Episodes(X, A, [5]), "the data has no reward"),
        (lambda: Episodes(X[:2], A[:1], [1], A[:1, 0]), "1 step is too little"),
        (lambda: Episodes(0 * X, A, [5], A[:, 0]), "all columns of the observations are constant"),
        (lambda: Episodes(X[:, :2], A, [5], A[:, 0]), "2 columns of observation, the layout 3"),
        (lambda: Episodes(X, A[:, :0], [5], A[:, 0]), "0 columns of action, the layout 1"),
    ],
)
def test_data_that_teach_nothing_are_refused_at_once(episodes, message):
    world = World(SMALL, LAYOUT, generator())
    before = world.state_dict()
    with pytest.raises(ValueError, match=message):
        world.fit(episodes(), steps=1, generator=generator())
    assert torch.equal(world.scaling.observation.shift, before["observation.shift"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.zeros((2, 3, 4))}, r"context_observations has shape \(2, 3, 4\), not \(2, 3, 3\)"),
        ({1: np.zeros((2, 3, 1))}, r"context_actions has shape \(2, 3, 1\), not \(2, 2, 1\)"),
        ({2: np.zeros((1, 5, 1))}, r"future_actions has shape \(1, 5, 1\), not \(2, 5, 1\)"),
        ({0: np.full((2, 3, 3), np.nan)}, "context_observations must be finite, found nan"),
    ],
)
def test_requests_for_forecasts_are_checked(change, message):
    given = [np.zeros((2, 3, 3)), np.zeros((2, 2, 1)), np.zeros((2, 5, 1))]
    given = [change.get(i, array) for i, array in enumerate(given)]
    with pytest.raises(ValueError, match=message):
        World(SMALL, LAYOUT, generator()).forecast(*given, samples=1, generator=generator())


def test_goal_environments_become_columns():
    box = spaces.Box(-1, 1, (2,), np.float64)
    space = spaces.Dict({"achieved_goal": box, "desired_goal": box, "observation": box})
    layout = Layout.of_spaces(space, spaces.Discrete(3), ("reward", "terminated"))
    assert layout == Layout(4, 3, (0, 1), ("reward", "terminated"))
    one = {"observation": [[1, 2]], "achieved_goal": [[3, 4]], "desired_goal": [[5, 6]]}
    x = ObservationLayout.of(space).vector({k: np.array(v) for k, v in one.items()})
    np.testing.assert_array_equal(x, [[3, 4, 1, 2]])
    assert layout.achieved_goal(torch.from_numpy(x)).tolist() == [[3, 4]]
    plain = Layout.of_spaces(spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (2,)))
    assert plain == Layout(5, 2)
    with pytest.raises(ValueError, match=r"predicts no reward, its layout has outcomes \(\)"):
        plain.outcome(torch.zeros(1, 2, 0), "reward")
    with pytest.raises(ValueError, match=r"achieved names columns \(5,\), observations have 5"):
        Layout(5, 2, (5,))
    with pytest.raises(ValueError, match="outcomes are out of"):
        Layout(5, 2, outcomes=("cost",))
    with pytest.raises(ValueError, match="observation must be >= 1 columns, got 0"):
        Layout(0, 2)


def test_goals_are_evaluated_by_the_rule():
    rule = DistanceRule(threshold=0.5, terminates=True)
    achieved = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.1], [3.0, 0.0]]])
    reward, terminated = goal_outcomes(rule, achieved, np.array([1.0, 0.0]))
    np.testing.assert_array_equal(reward, [[-1, 0], [0, -1]])
    np.testing.assert_array_equal(terminated, [[False, True], [True, False]])
    reward, _ = goal_outcomes(rule, achieved, np.array([[0.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_array_equal(reward, [[0, -1], [-1, 0]])


def test_worlds_are_made_by_name():
    assert WORLDS.make("linear") == LinearDynamics()
    made = WORLDS.make({"name": "ensemble", "members": 3, "hidden": [32]})
    assert made == Ensemble(3, (32,))
    assert WORLDS.make(WORLDS.describe(made)) == made
    assert WORLDS.make(f"{__name__}:Exploding") == Exploding()
    with pytest.raises(ValueError, match=r"unknown world model 'ensembel'.*'ensemble'"):
        WORLDS.make("ensembel")
    with pytest.raises(ValueError, match="no option 'member'"):
        WORLDS.make({"name": "ensemble", "member": 3})
    with pytest.raises(ValueError, match="'none' is no world model; known are"):
        WORLDS.make("none")
    with pytest.raises(ValueError, match="lacks widths, window"):
        WORLDS.make(object())
