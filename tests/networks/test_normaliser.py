import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlkit.networks import Normaliser, normalise

rows = st.integers(1, 20).flatmap(
    lambda n: hnp.arrays(np.float32, (n, 3), elements=st.floats(-100, 100, width=32))
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(rows, min_size=1, max_size=6))
def test_merging_parts_equals_taking_all_rows_at_once(parts):
    normaliser = Normaliser(3)
    for part in parts:
        normaliser.observe(part)
    everything = np.concatenate(parts).astype(np.float64)
    deviation = np.maximum(everything.std(axis=0), 1e-2)
    np.testing.assert_allclose(normaliser.shift, everything.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normaliser.scale, 1 / deviation, rtol=1e-4)


def test_precision_survives_a_million_rows_far_from_zero():
    generator = np.random.default_rng(0)
    normaliser = Normaliser(1)
    for _ in range(1000):
        normaliser.observe(1e4 + generator.normal(size=(1000, 1)))
    assert abs(normaliser.shift.item() - 1e4) < 0.01
    assert abs(normaliser.scale.item() - 1) < 0.01


def test_inputs_come_out_centred_scaled_and_clipped():
    normaliser = Normaliser(2)
    data = np.random.default_rng(0).normal([3, -5], [0.5, 20], size=(10_000, 2)).astype(np.float32)
    normaliser.observe(data)
    out = normalise(torch.from_numpy(data), normaliser.shift, normaliser.scale)
    torch.testing.assert_close(out.mean(0), torch.zeros(2), rtol=0, atol=1e-2)
    torch.testing.assert_close(out.std(0), torch.ones(2), rtol=0, atol=1e-2)
    far = normalise(torch.tensor([[1e6, -1e6]]), normaliser.shift, normaliser.scale)
    assert far.tolist() == [[5.0, -5.0]]


def test_a_constant_input_is_not_blown_up():
    normaliser = Normaliser(1)
    normaliser.observe(np.full((100, 1), 7.0, np.float32))
    out = normalise(torch.tensor([[7.001]]), normaliser.shift, normaliser.scale)
    assert abs(out.item()) < 0.2


def test_switched_off_or_empty_it_is_the_identity():
    off, empty = Normaliser(2, enabled=False), Normaliser(0)
    off.observe(np.full((5, 2), 9.0))
    empty.observe(np.zeros((5, 0)))
    x = torch.tensor([[1.0, -2.0]])
    assert torch.equal(normalise(x, off.shift, off.scale), x)
    assert empty.shift.shape == (0,)


def test_moments_continue_after_saving():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 10, 3))
    one, other = Normaliser(3), Normaliser(3)
    one.observe(first)
    other.load_state_dict(one.state_dict())
    one.observe(second)
    other.observe(second)
    assert torch.equal(one.shift, other.shift)
    assert torch.equal(one.scale, other.scale)
