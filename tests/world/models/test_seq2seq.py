from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_worlds import assert_imagining_continues, error, fitted, forecast, generator, pendulum

from rlkit.world import (
    WORLDS,
    OpenLoop,
    Widths,
    check_world,
)
from rlkit.world.experience import LATE, Experience
from rlkit.world.models.seq2seq import Seq2Seq

SMALL = {"name": "gru", "hidden": 12}
SHORT = Seq2Seq(core=SMALL, context=4, horizon=3)
PRESETS = {
    "plain": SHORT,
    "attention": replace(SHORT, attention=True),
    "forced": replace(SHORT, free_running=0.0, feedback="sample"),
    "mixed": replace(SHORT, core={"name": "lstm", "hidden": 8, "layers": 2}, free_running=0.5),
    "samples": replace(SHORT, core={"name": "rnn", "hidden": 12}, feedback="sample", delta=False),
    "linear recurrence": replace(SHORT, core={"name": "lru", "hidden": 8}, attention=True),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "widths"),
    [
        ("plain", Widths(1, 0)),
        ("attention", Widths(3, 2, 2)),
        ("forced", Widths(2, 0, 1)),
        ("mixed", Widths(2, 1)),
        ("samples", Widths(2, 1, 1)),
        ("linear recurrence", Widths(2, 0)),
    ],
)
def test_it_keeps_the_laws(preset, widths):
    check_world(PRESETS[preset], Experience(PRESETS[preset], 4, 9, widths))


@pytest.mark.parametrize("preset", PRESETS)
def test_imagining_continues_where_it_stopped(preset):
    assert_imagining_continues(Experience(PRESETS[preset]))


def decoded(case, windows, row, cut, steps):
    """What is imagined after an observation under the actions taken, without randomness."""
    one = type(windows)(**{name: value[row : row + 1] for name, value in vars(windows).items()})
    hidden_state = case.observed(one, cut + 1)
    actions = one.action[:, cut : cut + steps]
    with torch.no_grad():
        return case.model.imagine(
            case.parameters, hidden_state, OpenLoop(actions), steps, generator(), 0.0
        ), one.target[:, cut : cut + steps]


@pytest.mark.parametrize("preset", ["plain", "attention"])
def test_the_loss_is_the_likelihood_of_what_would_be_imagined(preset):
    case = Experience(PRESETS[preset], rows=8, steps=7)
    mask = case.windows.mask.clone()
    mask[0, 5:] = mask[1, 1:] = False  # padding: a shorter row is cut earlier
    mask[2, :4] = False  # context
    windows = replace(case.windows, mask=mask)
    cuts = case.model._cut(windows, generator())
    assert set(cuts.tolist()) <= set(range(5))
    assert cuts[0] <= 2
    assert cuts[1] == 0
    total, errors, firsts = 0.0, [], []
    for row, cut in enumerate(cuts.tolist()):
        made, target = decoded(case, windows, row, cut, 3)
        nll = -torch.distributions.Normal(made.mean, made.scale).log_prob(target)[0].sum(1)
        error = (made.mean - target).square()[0].mean(1)
        for t in range(3):
            if mask[row, cut + t]:
                total += float(nll[t])
                errors.append(float(error[t]))
                firsts += [float(error[t])] * (t == 0)
    loss, metrics = case.loss(case.parameters, windows)
    assert len(errors) < 24
    assert float(loss) == pytest.approx(total / len(errors), rel=1e-4)
    assert float(metrics["horizon_error"]) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(metrics["error"]) == pytest.approx(np.mean(firsts), rel=1e-4)


def test_cuts_are_drawn_evenly():
    case = Experience(SHORT, rows=20_000, steps=7)
    cuts = SHORT._cut(case.windows, generator())
    np.testing.assert_allclose(torch.bincount(cuts) / 20_000, np.full(5, 0.2), atol=0.01)


def test_steps_of_another_episode_are_not_predicted():
    case = Experience(SHORT, rows=4, steps=7)
    is_first = case.windows.is_first.clone()
    is_first[:, 5] = True
    windows = replace(case.windows, is_first=is_first)
    cut = torch.tensor([0, 3, 4, 4])
    ahead = case.model._ahead(windows, cut)
    assert ahead.counted.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(ahead.target[1], windows.target[1, 3:6])


def losses(step=LATE, **settings):
    case = Experience(replace(SHORT, **settings), rows=64)
    loss, _ = case.model.loss(case.parameters, case.windows, generator(), step)
    return float(loss)


def test_teacher_forcing_reads_the_truth_and_free_running_its_own_word():
    forced, free = losses(free_running=0.0, feedback="sample"), losses(free_running=1.0)
    assert forced != pytest.approx(free, rel=1e-3)
    half = losses(free_running=0.5)
    assert min(forced, free) < half < max(forced, free)
    assert losses(free_running=1.0, feedback="sample") != pytest.approx(free, rel=1e-3)


def test_a_ramp_leads_from_one_to_the_other():
    assert losses(0, ramp=10) == losses(free_running=0.0, feedback="sample")
    assert losses(5, ramp=10) == losses(free_running=0.5)
    assert losses(10, ramp=10) == losses(11, ramp=10) == losses(free_running=1.0)


def test_attention_weights_the_encoders_last_outputs_by_similarity():
    case = Experience(PRESETS["attention"], rows=2, steps=9)
    p, core = case.model.views(case.parameters), case.model.encoders["encoder"]
    part = case.parameters[: core.size]
    read = torch.cat([case.windows.observation, case.windows.previous_action], 2)[:, :6]
    outputs, _ = core.scan(part, read, core.initial(2), case.windows.is_first[:, :6])
    state = torch.tanh(outputs[:, -1] @ p["start.weight"] + p["start.bias"])
    inputs = torch.cat([case.windows.observation[:, 5], case.actions[:, 0]], 1)
    decoder = case.parameters[core.size : 2 * core.size]
    h, _ = core.step(decoder, inputs, (state,), torch.zeros(2, dtype=torch.bool))
    made = case.imagine(case.observed(case.windows, 6), case.actions)
    for row in range(2):
        likeness = [h[row] @ p["query.weight"] @ outputs[row, t] / 12**0.5 for t in range(2, 6)]
        weights = torch.tensor(likeness).exp() / torch.tensor(likeness).exp().sum()
        found = sum(weights[i] * outputs[row, 2 + i] for i in range(4))
        both = torch.cat([found, h[row]]) @ p["attended.weight"] + p["attended.bias"]
        raw = torch.tanh(both) @ p["head.weight"][:, :4] + p["head.bias"][:4]
        unit = torch.cat([p["log_change"].exp(), torch.ones(1)])
        mean = torch.cat([case.windows.observation[row, 5], torch.zeros(1)]) + unit * raw
        torch.testing.assert_close(made.mean[row, 0], mean, rtol=1e-4, atol=1e-5)


def swings(count, steps, seed):
    """A driven pendulum whose speed is hidden and whose angle is observed with noise."""
    return pendulum(count, steps, seed, noise=0.1)


def errors_of(model, training, windows, seed):
    """Root mean squared error of the mean forecast at each step, `(H,)`."""
    world = fitted(model, training, seed, steps=200, records=512, learning_rate=1e-2)
    made = forecast(world, windows, seed=seed)
    return error(made, windows.future_observation, axis=(0, 2))


@pytest.mark.slow
def test_free_running_beats_an_iterated_one_step_model_of_the_same_size_far_ahead():
    training, windows = (
        swings(60, 60, seed=0),
        swings(40, 80, seed=1).forecast_windows(8, 50, 80),
    )
    core = {"name": "gru", "hidden": 16}
    several = Seq2Seq(core, ramp=100, context=8)
    one = replace(several, free_running=0.0, feedback="sample")
    free, forced = (
        sum(errors_of(model, training, windows, seed) for seed in (0, 1)) / 2
        for model in (several, one)
    )
    # One step ahead is what the other one is trained for.
    assert free[0] > forced[0]
    assert free[30:].mean() < 0.85 * forced[30:].mean(), (free, forced)
    stays = windows.context_observation[:, -1:] - windows.future_observation
    persistence = np.sqrt(np.mean(stays**2, axis=(0, 2)))
    assert free[9:20].mean() < 0.6 * persistence[9:20].mean(), (free, persistence)


@pytest.mark.slow
def test_it_learns_to_use_context():
    training, held_out = swings(60, 40, seed=0), swings(40, 60, seed=1)
    model = Seq2Seq({"name": "gru", "hidden": 16}, attention=True, ramp=100, context=8, horizon=8)
    world = fitted(model, training, steps=200, records=512, learning_rate=1e-2)
    errors = []
    for context in (0, 8):
        # The same futures, with and without context before the present.
        windows = held_out.forecast_windows(8, 6, 100)
        past = {
            "context_observation": windows.context_observation[:, 8 - context :],
            "context_action": windows.context_action[:, 8 - context :],
        }
        made = forecast(world, replace(windows, **past))
        errors.append(error(made, windows.future_observation))
    assert errors[1] < 0.8 * errors[0], errors


@pytest.mark.parametrize("core", ["lstm", {"name": "gru", "hidden": 8}])
def test_it_can_be_written_down(core):
    model = Seq2Seq(core, attention=True)
    assert WORLDS.make(WORLDS.describe(model)) == model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": 1}, "attention must be true or false, got 1"),
        ({"free_running": 1.5}, r"free_running must be a number in \[0, 1\], got 1\.5"),
        ({"ramp": -1}, "ramp must be a whole number >= 0, got -1"),
        ({"feedback": "truth"}, "feedback must be one of .*, got 'truth'"),
        ({"context": 0}, "context must be a whole number >= 1, got 0"),
        ({"horizon": 2.5}, r"horizon must be a whole number >= 1, got 2\.5"),
        ({"free_running": 0.0}, "deviations would not grow .*; set feedback = 'sample'"),
        ({"core": "none"}, "core must be an encoder that goes forward in time, got 'none'; use"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Seq2Seq(**settings)


def test_a_decoder_needs_a_state_to_start_from():
    with pytest.raises(ValueError, match="core = 'transformer' keeps more than a state"):
        Seq2Seq("transformer").with_widths(Widths(2, 1)).shapes()
