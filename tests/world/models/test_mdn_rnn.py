from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_worlds import assert_imagining_continues, error, fitted, forecast, generator

from rlkit.networks.encoders import GRU
from rlkit.world import (
    WORLDS,
    Episodes,
    Layout,
    Widths,
    World,
    check_world,
)
from rlkit.world.check import LAWS
from rlkit.world.experience import Experience
from rlkit.world.models.mdn_rnn import MdnRnn

SMALL = {"name": "gru", "hidden": 12}
PRESETS = {
    "gru": MdnRnn(core=SMALL),
    "rnn": MdnRnn(core={"name": "rnn", "hidden": 12}, mixtures=1),
    "lstm": MdnRnn(core={"name": "lstm", "hidden": 12, "layers": 2}, delta=False),
    "transformer": MdnRnn(core={"name": "transformer", "hidden": 8, "context": 6}, mixtures=2),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "widths"),
    [
        ("gru", Widths(1, 0)),
        ("gru", Widths(3, 2, 2)),
        ("rnn", Widths(2, 0, 1)),
        ("lstm", Widths(2, 1)),
        ("transformer", Widths(2, 1, 1)),
    ],
)
def test_it_keeps_the_laws(preset, widths):
    check_world(PRESETS[preset], Experience(PRESETS[preset], 3, 8, widths))


@pytest.mark.slow
def test_a_frozen_core_keeps_every_law_but_that_all_is_learned():
    model = replace(PRESETS["gru"], frozen=True)
    case = Experience(model)
    broken = {name: wrong for name, law in LAWS.items() if (wrong := law(case)) is not None}
    core = [name for name in case.model.shapes() if name.startswith("core.")]
    assert broken == {"gradients reach every parameter": f"none reaches {', '.join(core)}"}


def components(model, vector, x, read):
    """The mixture of one step, written down slowly: a distribution of whole rows."""
    p = model.views(vector)
    core = model.encoders["core"]
    first = torch.zeros(read.shape[:2], dtype=torch.bool)
    h, _ = core.scan(vector[: core.size], read, core.initial(len(read)), first)
    w, m = model.known, model.mixtures
    out = h[:, -1] @ p["head.weight"] + p["head.bias"]
    logits, means, scales = out[:, :m], [], []
    unit = torch.cat([p["log_change"], torch.zeros(w.outcome)])
    for i in range(m):
        start = m + 2 * w.target * i
        change, raw = out[:, start : start + w.target], out[:, start + w.target :][:, : w.target]
        means.append(torch.cat([x, torch.zeros(len(x), w.outcome)], 1) + unit.exp() * change)
        share = torch.sigmoid(raw + torch.log(7 / (2 - unit)))
        scales.append(((1 - share) * (unit - 7) + share * 2).exp())
    normals = torch.distributions.Normal(torch.stack(means, 1), torch.stack(scales, 1))
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Independent(normals, 1),
    )


def case_of(model=PRESETS["gru"], rows=3):
    case = Experience(model, rows=rows, steps=6, widths=Widths(2, 1, 1))
    case.parameters = case.parameters + 0.3 * case.normal(*case.parameters.shape)
    case.model.views(case.parameters)["log_change"].fill_(-1.0)
    return case


def test_the_loss_is_the_likelihood_of_the_mixture():
    case = case_of()
    x, action, target = case.windows.observation, case.windows.action, case.windows.target
    total = 0.0
    for t in range(6):
        read = torch.cat([x[:, : t + 1], action[:, : t + 1]], 2)
        mixture = components(case.model, case.parameters, x[:, t], read)
        total -= float(mixture.log_prob(target[:, t]).sum())
    loss, metrics = case.loss(case.parameters, case.windows)
    assert float(loss) == pytest.approx(total / 18, rel=1e-4)
    assert float(metrics["nll"]) == float(loss)


def test_samples_are_those_of_the_mixture():
    count = 40_000
    case = case_of(rows=2)
    one = case.observed(case.windows, 4)
    hidden_state = tuple(part[:1].expand(count, *part.shape[1:]) for part in one)
    made = case.imagine(hidden_state, case.actions[:1].expand(count, -1, -1))
    x, action = case.windows.observation[:1, :4], case.windows.previous_action[:1, 1:4]
    read = torch.cat([x, torch.cat([action, case.actions[:1, :1]], 1)], 2)
    mixture = components(case.model, case.parameters, x[:, -1], read)
    first = torch.cat([made.observation, made.outcome], 2)[:, 0]
    torch.testing.assert_close(made.mean[:1, 0], mixture.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.scale[:1, 0], mixture.variance.sqrt(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first.mean(0), mixture.mean[0], rtol=0, atol=0.02)
    torch.testing.assert_close(first.std(0), mixture.variance[0].sqrt(), rtol=0.02, atol=0)
    likelihood = [
        float(mixture.log_prob(rows).mean()) for rows in (first, mixture.sample((count,)))
    ]
    assert likelihood[0] == pytest.approx(likelihood[1], abs=0.03)


def test_temperature_divides_logits_and_scales_deviations_by_its_root():
    case = case_of(rows=2)
    hidden_state = tuple(
        part[:1].expand(30_000, *part.shape[1:]) for part in case.observed(case.windows, 4)
    )
    actions = case.actions[:1].expand(30_000, -1, -1)
    x, action = case.windows.observation[:1, :4], case.windows.previous_action[:1, 1:4]
    read = torch.cat([x, torch.cat([action, case.actions[:1, :1]], 1)], 2)
    learned = components(case.model, case.parameters, x[:, -1], read)
    parts = learned.component_distribution.base_dist
    for temperature in (0.3, 3.0):
        weights = torch.distributions.Categorical(
            logits=learned.mixture_distribution.logits / temperature
        )
        normals = torch.distributions.Normal(parts.loc, parts.scale * temperature**0.5)
        wanted = torch.distributions.MixtureSameFamily(
            weights, torch.distributions.Independent(normals, 1)
        )
        made = case.imagine(hidden_state, actions, temperature=temperature)
        first = torch.cat([made.observation, made.outcome], 2)[:, 0]
        torch.testing.assert_close(first.std(0), wanted.variance[0].sqrt(), rtol=0.03, atol=0)
    made = case.imagine(hidden_state, actions, temperature=0.0)
    likeliest = parts.loc[0, learned.mixture_distribution.logits[0].argmax()]
    torch.testing.assert_close(made.observation[0, 0], likeliest[:2], rtol=1e-4, atol=1e-4)
    assert not made.observation.std(0).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_imagining_continues_where_it_stopped(preset):
    assert_imagining_continues(Experience(PRESETS[preset]))


def jumps(count, steps, seed):
    """Two columns that jump together, up in 70 of 100 steps and down in the others."""
    rng = np.random.default_rng(seed)
    up = np.where(rng.random((steps, count)) < 0.7, 1.0, -1.0)
    x, seen = np.zeros(count), []
    for t in range(steps + 1):
        jump = up[t - 1] + 0.05 * rng.standard_normal(count)
        x = 0.5 * x + (jump if t else 0)
        seen.append(np.stack([x, jump], 1))
    return Episodes(np.stack(seen, 1).reshape(-1, 2), np.zeros((count * steps, 0)), [steps] * count)


def jumped(model):
    """A world fitted to jumps, and samples of the next jump `(S, 2)` by temperature."""
    world = fitted(model, jumps(100, 20, seed=0), steps=200, records=256, learning_rate=1e-2)
    case = jumps(1, 20, seed=1).forecast_windows(10, 1, 1)

    def samples(temperature):
        made = forecast(world, case, 4000, temperature=temperature)[:, 0, 0]
        return np.stack([made[:, 0] - 0.5 * case.context_observation[0, -1, 0], made[:, 1]], 1)

    return samples


def near(samples, jump):
    return np.mean(np.abs(samples - jump).max(1) < 0.3)


def entropy(samples):
    """Of the second column, in nats, by counting."""
    counts, _ = np.histogram(samples[:, 1], np.arange(-8, 8, 0.05))
    share = counts[counts > 0] / len(samples)
    return -np.sum(share * np.log(share))


@pytest.mark.slow
def test_a_mixture_finds_what_may_come_and_temperature_moves_between():
    model = MdnRnn(core=SMALL, mixtures=3, window=10)
    samples = jumped(model)
    learned = samples(1.0)
    assert near(learned, 1.0) == pytest.approx(0.7, abs=0.1)
    assert near(learned, -1.0) == pytest.approx(0.3, abs=0.1)

    entropies = [entropy(samples(t)) for t in (0.05, 0.2, 0.5, 1.0, 1.5, 2.5)]
    assert np.all(np.diff(entropies) > 0.05), entropies
    minor = [near(samples(t), -1.0) for t in (0.05, 0.5, 1.0, 2.5)]
    assert minor[0] < 0.01
    assert np.all(np.diff(minor) > 0.02), minor
    assert near(samples(0.0), 1.0) == 1.0

    single = jumped(replace(model, mixtures=1))(1.0)
    assert near(single, 1.0) + near(single, -1.0) < 0.6


def products(count, steps, seed):
    """A column driven by the product of the last two actions, of which it shows one at a time."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (steps + 1, count))
    x = [np.zeros(count)]
    for t in range(steps):
        x.append(0.8 * x[-1] + 3 * action[t] * action[t + 1] + 0.02 * rng.standard_normal(count))
    return Episodes(np.stack(x, 1).reshape(-1, 1), action[1:].T.reshape(-1, 1), [steps] * count)


@pytest.mark.slow
def test_a_trained_core_beats_a_frozen_one_and_persistence():
    training, windows = (
        products(60, 32, seed=0),
        products(30, 32, seed=1).forecast_windows(8, 10, 60),
    )
    truth = windows.future_observation
    errors = {"persistence": error(windows.context_observation[:, -1:], truth)}
    for core in ("gru", "lstm"):
        for frozen in (False, True):
            model = MdnRnn({"name": core, "hidden": 16}, mixtures=2, window=16, frozen=frozen)
            world = fitted(model, training, steps=200, records=512, learning_rate=5e-3)
            fresh = World(model, Layout(1, 1), generator())
            cores = [one.model.part(one.parameters, "core") for one in (world, fresh)]
            assert torch.equal(*cores) == frozen
            name = f"{core}, frozen" if frozen else core
            errors[name] = error(forecast(world, windows), truth)
    for core in ("gru", "lstm"):
        assert errors[core] < 0.4 * errors[f"{core}, frozen"], errors
        assert errors[core] < 0.25 * errors["persistence"], errors


@pytest.mark.parametrize(
    "core", ["lstm", {"name": "gru", "hidden": 8}, (("name", "rnn"),), GRU(hidden=8, time_scale=9)]
)
def test_a_core_is_a_name_a_table_or_an_encoder_and_can_be_written_down(core, tmp_path):
    model = MdnRnn(core)
    assert hash(model) == hash(MdnRnn(core))
    assert WORLDS.make(WORLDS.describe(model)) == model
    world = World(model, Layout(2, 1), generator())
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    assert loaded.model == world.model
    assert torch.equal(loaded.parameters, world.parameters)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixtures": 0}, "mixtures must be a whole number >= 1, got 0"),
        ({"window": 0}, "window must be a whole number >= 1, got 0"),
        ({"delta": 1}, "delta must be true or false, got 1"),
        ({"frozen": "yes"}, "frozen must be true or false, got 'yes'"),
        ({"core": "gro"}, "unknown encoder 'gro'. Did you mean 'gru'"),
        ({"core": {"name": "gru", "size": 3}}, "encoder 'gru' has no option 'size'"),
        ({"core": None}, "core must be an encoder that goes forward in time, got None; use gru"),
        ({"core": "bidirectional"}, "forward in time, got 'bidirectional'; use gru"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MdnRnn(**settings)
