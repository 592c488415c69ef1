import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlkit.world.scores.calibration import (
    coverage,
    fit_spread,
    histogram,
    interval,
    pit,
    reliability,
)


def drawn(samples, windows, spread=1.0, seed=0, shape=(2, 1)):
    """Forecasts of any centre, whose samples spread `spread` times as far as the truth does."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(windows, *shape)) * 5
    noise = rng.normal(size=(samples, windows, *shape)) * spread
    return centre + noise, centre + rng.normal(size=(windows, *shape))


@pytest.mark.parametrize("samples", [19, 20, 57, 100])
def test_intervals_of_few_samples_have_their_coverage(samples):
    forecast, truth = drawn(samples, 20_000)
    for level, share in zip((0.5, 0.9), coverage(forecast, truth, (0.5, 0.9)), strict=True):
        np.testing.assert_allclose(share, level, atol=0.012)


def test_intervals_that_are_too_narrow_cover_less():
    forecast, truth = drawn(100, 5000, spread=0.5)
    assert coverage(forecast, truth, [0.9])[0].max() < 0.65


@pytest.mark.parametrize(("level", "needed"), [(0.5, 3), (0.9, 19), (0.99, 199)])
def test_a_level_needs_as_many_samples_as_have_such_quantiles(level, needed):
    forecast, _ = drawn(needed, 3)
    low, high = interval(forecast, level)
    np.testing.assert_allclose(low, forecast.min(0))
    np.testing.assert_allclose(high, forecast.max(0))
    with pytest.raises(ValueError, match=f"needs {needed} samples or more, got {needed - 1}"):
        interval(forecast[:-1], level)


@pytest.mark.parametrize("level", [0, 1, 90])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(drawn(20, 3)[0], level)


@pytest.mark.parametrize("samples", [2, 9, 100])
def test_places_of_a_calibrated_forecast_are_uniform(samples):
    forecast, truth = drawn(samples, 20_000)
    places = pit(forecast, truth, np.random.default_rng(1))
    np.testing.assert_allclose(histogram(places), 0.1, atol=0.008)
    np.testing.assert_allclose(
        reliability(places, [0.05, 0.5, 1.0])[:, 0, 0], [0.05, 0.5, 1], atol=0.01
    )


def test_places_of_a_constant_are_uniform():
    places = pit(np.ones((9, 5000, 1, 1)), np.ones((5000, 1, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(histogram(places), 0.1, atol=0.015)


def test_histograms_reveal_bias_and_spread():
    rng = np.random.default_rng(0)
    shapes = {s: histogram(pit(*drawn(50, 4000, spread=s), rng), 5)[:, 0, 0] for s in (0.4, 2.5)}
    assert shapes[0.4][0] > 0.25 > 0.15 > shapes[0.4][2]
    assert shapes[2.5][0] < 0.15 < 0.25 < shapes[2.5][2]


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("share", [False, True])
def test_a_recalibrated_spread_covers_held_out_truth(spread, share):
    mend = fit_spread(*drawn(100, 1000, spread, shape=(2, 3)), share_dimensions=share)
    assert mend.factor.shape == (2, 1 if share else 3)
    np.testing.assert_allclose(mend.factor, 1 / spread, rtol=0.12)
    forecast, truth = drawn(100, 4000, spread, seed=1, shape=(2, 3))
    np.testing.assert_allclose(coverage(mend(forecast), truth, [0.9])[0], 0.9, atol=0.03)


@given(st.integers(9, 60), st.floats(0.1, 10), st.integers(0, 5))
def test_a_mended_spread_covers_the_truth_it_was_fitted_to(windows, spread, seed):
    forecast, truth = drawn(25, windows, spread, seed)
    mend = fit_spread(forecast, truth, 0.9)
    assert (coverage(mend(forecast), truth, [0.9])[0] >= 0.9 - 1e-6 - 1 / windows).all()


def test_stretching_keeps_medians_and_ranks():
    forecast, truth = drawn(31, 300, 0.5)
    mended = fit_spread(forecast, truth)(forecast)
    np.testing.assert_allclose(np.median(mended, 0), np.median(forecast, 0))
    np.testing.assert_array_equal(np.argsort(mended, 0), np.argsort(forecast, 0))


def test_a_mended_spread_serves_shorter_forecasts_only():
    forecast, truth = drawn(31, 300, shape=(4, 2))
    mend = fit_spread(forecast, truth)
    np.testing.assert_allclose(mend(forecast[:, :, :2]), mend(forecast)[:, :, :2])
    with pytest.raises(ValueError, match="fitted for 4 steps, got 8"):
        mend(np.concatenate([forecast, forecast], 2))


def test_a_constant_dimension_keeps_its_spread():
    forecast, truth = drawn(31, 300, shape=(2, 2))
    forecast[..., 1], truth[..., 1] = 3.0, 3.0
    assert fit_spread(forecast, truth).factor[:, 1].tolist() == [1.0, 1.0]


def test_what_cannot_be_mended_is_refused():
    forecast, truth = drawn(31, 300)
    with pytest.raises(ValueError, match=r"level 0\.9 needs 9 windows or more, got 8"):
        fit_spread(forecast[:, :8], truth[:8])
    with pytest.raises(ValueError, match="step 1, dimension 0 is wrong without any spread"):
        fit_spread(np.repeat(forecast[:1], 31, 0), truth)
    with pytest.raises(ValueError, match="finite"):
        fit_spread(forecast * np.nan, truth)
