"""The parts of the searches, against plain NumPy and by hand."""

import itertools

import numpy as np
import pytest
import torch

from rlkit.planning import CEM, ICEM, MPPI, Actions, FunctionProblem, RandomShooting
from rlkit.planning.budget import populations, rounds
from rlkit.planning.icem import coloured_noise

KINDS = (RandomShooting, CEM, ICEM, MPPI)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def firsts(count, value=True):
    return torch.full((count,), value)


class Recorder:
    """Scores by the distance to a target, and keeps the sequences."""

    def __init__(self, target=0.5):
        self.target, self.sequences = target, []

    def __call__(self, sequences):
        self.sequences.append(sequences.numpy().copy())
        return -((sequences - self.target) ** 2).sum((2, 3))


# Budgets.


@pytest.mark.parametrize("samples", [40, 41, 99, 400])
@pytest.mark.parametrize("decay", [1.0, 1.25, 3.0])
def test_populations_add_up_and_shrink(samples, decay):
    sizes = populations(samples, 4, decay, least=10)
    assert sum(sizes) == samples
    assert min(sizes) >= 10
    assert sizes == sorted(sizes, reverse=True)
    if samples == 400 and decay == 1.25:
        assert np.allclose(np.divide(sizes[:-1], sizes[1:]), 1.25, rtol=0.05)


def test_populations_need_samples():
    with pytest.raises(ValueError, match="at least 40 for 4 iterations of 10 or more, got 39"):
        populations(39, 4, least=10)


class Clock:
    """Seconds that pass only when advanced by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([1] * 20, 9),  # after 9 of 10 ms, 1 more with its margin would be too much
        ([3] * 20, 2),  # after 6 ms, 4.5 more would be too much
        ([1, 1, 4, 1, 1], 3),  # the longest one so far decides
        ([50], 1),  # at least one, however long it takes
    ],
)
def test_time_is_kept(costs, expected):
    clock, sizes = Clock(), []
    for size, cost in zip(rounds([5, 3], 10.0, clock), itertools.chain(costs), strict=False):
        sizes.append(size)
        clock.now += cost / 1000
    assert sizes == [5, *[3] * (expected - 1)]
    assert clock.now <= 0.010 or expected == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_decisions_under_a_clock_with_stalls_stay_inside_their_budget(kind):
    """One iteration in ten takes half as long again, which the margin is for."""
    planner = kind(milliseconds=30.0).with_actions(Actions(2))
    clock, took, rng = Clock(), [], np.random.default_rng(0)
    recorder, state, source = Recorder(), planner.initial(1), generator()

    def evaluate(sequences):
        clock.now += 0.002 * rng.choice([1.0, 1.5], p=[0.9, 0.1])
        return recorder(sequences)

    for t in range(50):
        began = clock.now
        plan = planner.plan(FunctionProblem(evaluate), state, firsts(1, t == 0), source, clock)
        state = plan.state
        took.append(1000 * (clock.now - began))
        assert plan.milliseconds == pytest.approx(took[-1])
    assert np.percentile(took, 95) <= 30.0
    assert np.mean(took) > 24.0


# Coloured noise.


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("length", [1, 2, 7, 20])
def test_coloured_noise_has_variance_one_at_every_time(exponent, length):
    noise = coloured_noise((40_000, length), exponent, generator())
    assert torch.allclose(noise.var(0), torch.ones(length), atol=0.05)
    assert torch.allclose(noise.mean(0), torch.zeros(length), atol=0.03)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_spectrum(exponent):
    noise = coloured_noise((20_000, 32), exponent, generator()).numpy()
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(0)
    slope = np.polyfit(np.log(np.arange(1, 16)), np.log(power[1:16]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)


def test_white_noise_is_independent():
    noise = coloured_noise((40_000, 6), 0.0, generator())
    assert torch.allclose(noise.mT @ noise / len(noise), torch.eye(6), atol=0.04)


# Fits.


def naive_fit(recorder, planner, weights):
    """Mean after all populations, one environment after the other."""
    count, _, horizon, width = recorder.sequences[0].shape
    means = np.zeros((count, horizon, width))
    for i in range(count):
        mean = np.zeros((horizon, width))
        for sequences in (given[i] for given in recorder.sequences):
            scores = -((sequences - recorder.target) ** 2).sum((1, 2))
            best = np.argsort(-scores)[: planner.elites]
            weight = weights(scores[best])
            new = sum(w * s for w, s in zip(weight, sequences[best], strict=True)) / weight.sum()
            mean = (1 - planner.momentum) * new + planner.momentum * mean
        means[i] = mean
    return means


@pytest.mark.parametrize(
    ("planner", "weights"),
    [
        (CEM(), np.ones_like),
        (MPPI(), lambda s: np.exp((s - s.max()) / (0.3 * (s.max() - s.min())))),
        (
            MPPI(iterations=1, elites=400, temperature=0.05),
            lambda s: np.exp((s - s.max()) / (0.05 * (s.max() - s.min()))),
        ),
    ],
)
def test_the_mean_is_that_of_the_weighted_elites(planner, weights):
    planner, recorder = planner.with_actions(Actions(2)), Recorder()
    plan = planner.plan(FunctionProblem(recorder), planner.initial(3), firsts(3), generator())
    assert np.allclose(plan.state[0], naive_fit(recorder, planner, weights), atol=1e-5)
    assert torch.equal(plan.sequence, plan.state[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_and_the_zero_of_scores_do_not_matter(kind):
    planner, recorder = kind().with_actions(Actions(2)), Recorder()
    plans = [
        planner.plan(FunctionProblem(evaluate), planner.initial(2), firsts(2), generator())
        for evaluate in (recorder, lambda sequences: 64 * recorder(sequences) - 128)
    ]
    assert torch.allclose(plans[0].sequence, plans[1].sequence, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_are_no_trouble(kind):
    planner = kind().with_actions(Actions(2))
    plan = planner.plan(
        FunctionProblem(lambda sequences: torch.zeros(sequences.shape[:2])),
        planner.initial(2),
        firsts(2),
        generator(),
    )
    assert plan.sequence.isfinite().all()
    assert not plan.failed.any()


@pytest.mark.parametrize("kind", [RandomShooting, ICEM])
def test_the_best_ever_is_executed(kind):
    planner, recorder = kind().with_actions(Actions(2)), Recorder()
    plan = planner.plan(FunctionProblem(recorder), planner.initial(2), firsts(2), generator())
    for i in range(2):
        sequences = np.concatenate([given[i] for given in recorder.sequences])
        scores = -((sequences - 0.5) ** 2).sum((1, 2))
        assert np.array_equal(plan.sequence[i], sequences[scores.argmax()])
        assert plan.score[i].item() == pytest.approx(scores.max())


def test_a_few_finite_scores_among_many_are_what_is_fitted():
    """Fewer of them than elites: the others count nothing."""
    planner = CEM(iterations=1, momentum=0.0).with_actions(Actions(2))
    given = []

    def evaluate(sequences):
        given.append(sequences)
        scores = torch.full(sequences.shape[:2], torch.nan)
        scores[:, 7:10] = 1.0
        return scores

    plan = planner.plan(FunctionProblem(evaluate), planner.initial(2), firsts(2), generator())
    assert torch.allclose(plan.sequence, given[0][:, 7:10].mean(1), atol=1e-6)
    assert plan.rejected.tolist() == [397, 397]


# Time.


def test_the_plan_before_is_shifted_by_one_step():
    planner, recorder = RandomShooting(horizon=4).with_actions(Actions(1)), Recorder()
    before = torch.tensor([[[0.1], [0.2], [0.3], [0.4]]])
    planner.plan(FunctionProblem(recorder), (before,), firsts(1, False), generator())
    assert np.allclose(recorder.sequences[0][0, 0, :, 0], [0.2, 0.3, 0.4, 0.4])


def test_held_actions_are_shifted_by_one_step_on_average():
    planner, recorder = RandomShooting(horizon=8, hold=4).with_actions(Actions(1)), Recorder()
    before = torch.tensor([[[0.0], [0.8]]])
    planner.plan(FunctionProblem(recorder), (before,), firsts(1, False), generator())
    # 0 0 0 .8 | .8 .8 .8 .8 in steps.
    assert np.allclose(recorder.sequences[0][0, 0, :, 0], [0.2] * 4 + [0.8] * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_held(kind):
    planner, recorder = kind(horizon=7, hold=3).with_actions(Actions(2)), Recorder()
    plan = planner.plan(FunctionProblem(recorder), planner.initial(2), firsts(2), generator())
    for sequences in (*recorder.sequences, plan.sequence[:, None].numpy()):
        steps = np.moveaxis(sequences, 2, 0)
        assert len(steps) == 7
        assert all(np.array_equal(steps[t], steps[t - t % 3]) for t in range(7))


def test_elites_stay_for_the_next_iteration_and_the_next_decision():
    planner, recorder = ICEM().with_actions(Actions(2)), Recorder()
    plan = planner.plan(FunctionProblem(recorder), planner.initial(1), firsts(1), generator())
    for last, now in itertools.pairwise(recorder.sequences):
        order = np.argsort(((last[0] - 0.5) ** 2).sum((1, 2)))
        assert np.array_equal(now[0, :3], last[0, order[:3]])
    kept = plan.state[1]
    recorder.sequences.clear()
    planner.plan(FunctionProblem(recorder), plan.state, firsts(1, False), generator(1))
    assert np.array_equal(recorder.sequences[0][0, :3, :-1], kept[0, :, 1:])


# What is refused.


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (CEM, {"horizon": 0}, "horizon must be a whole number >= 1, got 0"),
        (CEM, {"samples": 10.5}, "samples must be a whole number >= 1, got 10.5"),
        (CEM, {"samples": 30}, "samples must be at least 40 for 4 iterations of 10"),
        (ICEM, {"samples": 70}, "samples must be at least 80 for 4 iterations of 20"),
        (CEM, {"milliseconds": 0.0}, "milliseconds must be > 0, got 0.0"),
        (CEM, {"deviation": 0.0}, "deviation must be > 0"),
        (CEM, {"least_deviation": 2.0}, "least_deviation must be in"),
        (CEM, {"momentum": 1.0}, "momentum must be in"),
        (ICEM, {"colour": -1.0}, "colour must be >= 0"),
        (ICEM, {"decay": 0.5}, "decay must be >= 1"),
        (ICEM, {"kept": 1.5}, "kept must be in"),
        (MPPI, {"temperature": 0.0}, "temperature must be > 0"),
        (Actions, {"size": 0}, "size must be a whole number >= 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"CEM does not know its actions: call with_actions"):
        CEM().initial(2)
    with pytest.raises(ValueError, match="for choices take cem or mppi"):
        ICEM().with_actions(Actions(3, discrete=True))
    planner = CEM().with_actions(Actions(2))
    with pytest.raises(ValueError, match=r"\(2, 100\) for sequences \(2, 100, 20, 2\), got \(2,\)"):
        planner.plan(
            FunctionProblem(lambda sequences: torch.zeros(2)),
            planner.initial(2),
            firsts(2),
            generator(),
        )
