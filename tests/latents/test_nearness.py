import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.latents import nearness


def accuracy(near, far, threshold):
    return ((near < threshold).mean() + (far >= threshold).mean()) / 2


@pytest.mark.slow
@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_no_other_threshold_separates_near_from_far_better(seed):
    rng = np.random.default_rng(seed)
    near = rng.exponential(1.0, 1 + seed % 40)
    far = rng.exponential(3.0, 1 + seed % 30)
    threshold, found = nearness(near, far)
    assert found == pytest.approx(accuracy(near, far, threshold))
    others = np.concatenate([near, far, rng.uniform(0, 9, 50)])
    assert all(accuracy(near, far, other) <= max(found, 0.5) + 1e-12 for other in others)


def test_separable_pairs_are_separated_in_the_middle():
    assert nearness(np.array([0.1, 1.0]), np.array([3.0, 8.0])) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("near", "far", "message"),
    [
        ([], [1.0], "got 0 near, 1 far"),
        ([0.5, 0.5], [0.5], "all pairs of latents are 0.5 apart"),
    ],
)
def test_pairs_that_cannot_be_separated_are_refused(near, far, message):
    with pytest.raises(ValueError, match=message):
        nearness(np.array(near), np.array(far))
