import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import integrate, stats

from rlkit.world.scores.scores import (
    crps,
    energy_score,
    finite_windows,
    gaussian_nll,
    score,
    score_regions,
    skill,
)

numbers = st.floats(-100, 100, width=32)


def draws(shape=(40, 30, 4, 3), seed=0):
    """Samples and truth of the same distribution."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(size=shape[1:])


def pairs_crps(samples, truth):
    """The definition, with two loops."""
    count = len(samples)
    apart = sum(np.abs(one - two) for one in samples for two in samples)
    return np.abs(samples - truth).mean(0) - apart / (2 * count * (count - 1))


@pytest.mark.slow
@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(2, 7), st.just(2), st.just(3), st.just(1)),
        elements=numbers,
    ),
    arrays.arrays(np.float64, (2, 3, 1), elements=numbers),
)
def test_crps_equals_the_double_loop(samples, truth):
    np.testing.assert_allclose(crps(samples, truth), pairs_crps(samples, truth), atol=1e-9)


@pytest.mark.parametrize("truth", [-2.0, 0.3, 4.0])
def test_crps_of_many_samples_is_the_integral_over_the_distribution_function(truth):
    mean, deviation = 0.5, 1.5
    law = stats.norm(mean, deviation)
    below = integrate.quad(lambda x: law.cdf(x) ** 2, -20, truth)[0]
    above = integrate.quad(lambda x: (1 - law.cdf(x)) ** 2, truth, 20)[0]
    samples = law.rvs((200, 500, 1, 1), random_state=np.random.default_rng(0))
    estimates = crps(samples, np.full((500, 1, 1), truth))
    error = estimates.std() / math.sqrt(500)
    assert abs(estimates.mean() - (below + above)) < 4 * error
    assert error < 0.01


@pytest.mark.parametrize("rule", [crps, energy_score])
def test_few_samples_are_scored_as_many_are(rule):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40_000, 1, 2))
    few, many = (rule(rng.normal(size=(count, *truth.shape)), truth).mean() for count in (2, 20))
    assert abs(few - many) < 0.02


def test_crps_of_one_repeated_sample_is_the_absolute_error():
    samples, truth = draws()
    same = np.repeat(samples[:1], 5, 0)
    np.testing.assert_allclose(crps(same, truth), np.abs(samples[0] - truth), atol=1e-12)


@pytest.mark.parametrize("wrong", ["bias", "narrow", "wide"])
@pytest.mark.parametrize("rule", [crps, energy_score, gaussian_nll])
def test_the_true_distribution_scores_best(rule, wrong):
    samples, truth = draws((60, 2000, 1, 2))
    lie = {"bias": samples + 0.5, "narrow": samples * 0.5, "wide": samples * 2}[wrong]
    assert rule(samples, truth).mean() < rule(lie, truth).mean()


def test_energy_score_equals_crps_in_one_dimension():
    samples, truth = draws((13, 9, 4, 1))
    np.testing.assert_allclose(energy_score(samples, truth), crps(samples, truth)[..., 0])


def test_energy_score_equals_the_double_loop():
    samples, truth = draws((9, 5, 4, 3))
    apart = sum(np.linalg.norm(one - two, axis=-1) for one in samples for two in samples)
    wanted = np.linalg.norm(samples - truth, axis=-1).mean(0) - apart / (2 * 9 * 8)
    np.testing.assert_allclose(energy_score(samples, truth), wanted)


def test_energy_score_sees_dependence_that_single_dimensions_hide():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.normal(size=(4000, 1, 1)), 2, 2)
    together = np.repeat(rng.normal(size=(50, 4000, 1, 1)), 2, 3)
    apart = rng.normal(size=(50, 4000, 1, 2))
    assert abs(crps(together, truth).mean() - crps(apart, truth).mean()) < 0.01
    assert energy_score(together, truth).mean() < energy_score(apart, truth).mean() - 0.02


def test_blocks_do_not_change_scores(monkeypatch):
    samples, truth = draws()
    whole = [rule(samples, truth) for rule in (crps, energy_score, gaussian_nll)]
    monkeypatch.setattr("rlkit.world.scores.scores.BLOCK", 1000)
    parts = [rule(samples, truth) for rule in (crps, energy_score, gaussian_nll)]
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_likelihood_is_that_of_the_matching_normal():
    samples, truth = draws()
    law = stats.norm(samples.mean(0), samples.std(0, ddof=1))
    np.testing.assert_allclose(gaussian_nll(samples, truth), -law.logpdf(truth))


def test_no_spread_counts_as_the_least_spread():
    samples, truth = np.zeros((3, 1, 1, 1)), np.full((1, 1, 1), 0.5)
    wanted = -stats.norm(0, 0.1).logpdf(0.5)
    np.testing.assert_allclose(gaussian_nll(samples, truth, least=0.1), wanted)


@pytest.mark.parametrize(
    ("loss", "reference", "wanted"),
    [(1.0, 2.0, 0.5), (2.0, 2.0, 0.0), (4.0, 2.0, -1.0), (0.0, 2.0, 1.0), (0.0, 0.0, 0.0)],
)
def test_skill(loss, reference, wanted):
    assert skill(loss, reference) == wanted


def test_nothing_beats_a_perfect_reference():
    assert skill(1.0, 0.0) == -math.inf


def test_scores_are_means_over_windows_at_given_steps():
    samples, truth = draws()
    unit = np.array([1.0, 10.0, 0.1])
    found = score(samples * unit, truth * unit, np.random.default_rng(0), steps=(1, 4), scale=unit)
    picked = [0, 3]
    assert (found.steps, found.windows, found.excluded) == ((1, 4), 30, 0)
    off = samples.mean(0) - truth
    np.testing.assert_allclose(found.mse, (off**2).mean(0)[picked])
    np.testing.assert_allclose(found.rmse**2, found.mse)
    np.testing.assert_allclose(found.mae, np.abs(np.median(samples, 0) - truth).mean(0)[picked])
    np.testing.assert_allclose(found.crps, crps(samples, truth).mean(0)[picked])
    np.testing.assert_allclose(found.energy, energy_score(samples, truth).mean(0)[picked])
    assert found.pit.shape == (10, 2, 3)
    row = found.pooled()[4]
    assert row["crps"] == pytest.approx(found.crps[1].mean())
    assert row["coverage_0.9"] == pytest.approx(found.coverage[0.9][1].mean())


def test_skill_of_a_forecast_against_another():
    samples, truth = draws((40, 500, 2, 3))
    rng = np.random.default_rng(0)
    good, bad = score(samples * 0.1 + truth, truth, rng), score(samples + truth, truth, rng)
    np.testing.assert_allclose(good.skill(bad), 0.99)
    np.testing.assert_allclose(bad.skill(bad), 0)
    row = good.pooled(bad)[1]
    assert row["skill"] == pytest.approx(0.99)
    assert row["crps_skill"] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="same windows"):
        good.skill(score(samples[:, :9], truth[:9], rng))


def test_regions_are_scored_by_themselves():
    samples, truth = draws()
    names = np.array(["near", "far", "near"] * 10)
    rng = np.random.default_rng(0)
    found = score_regions(samples, truth, names, rng, steps=(2,))
    assert list(found) == ["far", "near"]
    assert (found["far"].windows, found["near"].windows) == (10, 20)
    np.testing.assert_allclose(found["far"].crps, crps(samples, truth)[1::3, 1:2].mean(0))
    with pytest.raises(ValueError, match=r"one label per window \(30,\), got \(3,\)"):
        score_regions(samples, truth, names[:3], rng)


def test_a_forecast_that_is_not_finite_is_refused_or_counted():
    samples, truth = draws()
    samples[7, 5, 2, 1] = np.nan
    samples[0, 8, 0, 0] = np.inf
    rng = np.random.default_rng(0)
    assert np.flatnonzero(~finite_windows(samples)).tolist() == [5, 8]
    with pytest.raises(ValueError, match=r"2 of 30 windows .* window 5, step 3, dimension 1"):
        score(samples, truth, rng)
    found = score(samples, truth, rng, exclude=True)
    assert (found.windows, found.excluded) == (28, 2)
    kept = np.delete(np.arange(30), [5, 8])
    np.testing.assert_allclose(found.crps, crps(samples[:, kept], truth[kept]).mean(0))
    with pytest.raises(ValueError, match="30 of 30 windows"):
        score(samples * np.nan, truth, rng, exclude=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (0, 1)}, r"steps \(0, 1\) must lie in 1..4"),
        ({"steps": (5,)}, r"steps \(5,\)"),
        ({"scale": [1.0, 0.0, 1.0]}, "scale must be positive"),
        ({"levels": (0.99,)}, "level 0.99 needs 199 samples or more, got 40"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    samples, truth = draws()
    with pytest.raises(ValueError, match=message):
        score(samples, truth, np.random.default_rng(0), **change)


def test_shapes_that_do_not_fit_are_refused():
    samples, truth = draws()
    with pytest.raises(ValueError, match=r"samples must be \(S, B, H, F\)"):
        crps(samples, truth[:, :2])
    with pytest.raises(ValueError, match="two samples or more, got 1"):
        crps(samples[:1], truth)
    with pytest.raises(ValueError, match="no windows"):
        crps(samples[:, :0], truth[:0])
    truth[3, 1, 2] = np.nan
    with pytest.raises(ValueError, match="truth is not finite at window 3, step 2, dimension 2"):
        score(samples, truth, np.random.default_rng(0))
