import math

import pytest
import torch
from naive_parallel import (
    check_against_loops,
    check_dropout,
    check_laws,
    check_width,
    example,
    naive_lru,
    naive_min_gru,
)

from rlkit.networks.encoders.scan import LRU, MinGRU, linear_scan

CASES = [
    (naive_min_gru, MinGRU(hidden=6, layers=1)),
    (naive_min_gru, MinGRU(hidden=6, layers=3, layer_norm=False)),
    (naive_min_gru, MinGRU(hidden=6, layers=2)),
    (naive_lru, LRU(hidden=6)),
    (naive_lru, LRU(hidden=6, layers=2)),
]


@pytest.mark.parametrize(("naive", "encoder"), CASES, ids=range(len(CASES)))
def test_a_window_equals_plain_loops_over_episodes(naive, encoder):
    check_against_loops(naive, encoder)


@pytest.mark.parametrize("encoder", [encoder for _, encoder in CASES], ids=str)
def test_the_laws_hold(encoder):
    check_laws(encoder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_gradient_of_a_scan_is_numerically_right(dtype, steps):
    generator = torch.Generator().manual_seed(0)
    decay, x = (torch.randn(2, steps, 3, dtype=dtype, generator=generator) for _ in range(2))
    start = torch.randn(2, 3, dtype=dtype, generator=generator)
    arguments = [part.requires_grad_() for part in (decay, x, start)]
    assert torch.autograd.gradcheck(linear_scan, arguments)


def test_a_scan_of_any_memory_layout_is_the_same():
    generator = torch.Generator().manual_seed(0)
    decay, x = (torch.randn(9, 4, 3, generator=generator).transpose(0, 1) for _ in range(2))
    start = torch.zeros(4, 3)
    out = linear_scan(decay, x, start)
    assert torch.equal(out, linear_scan(decay.contiguous(), x.contiguous(), start))
    # An expanded gradient, of a sum, say, has no memory of its own.
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(linear_scan(decay, leaf, start).sum(), leaf)
    weight = torch.ones(4, 9, 3)
    (expected,) = torch.autograd.grad((linear_scan(decay, leaf, start) * weight).sum(), leaf)
    assert torch.equal(gradient, expected)


def test_a_scan_keeps_its_precision_over_a_thousand_steps():
    """The trap of scans in logarithms or by cumulative products."""
    generator = torch.Generator().manual_seed(0)
    decay = torch.rand(3, 1000, 4, generator=generator) ** 0.1
    decay[:, 500] = 0.0
    x = torch.randn(3, 1000, 4, generator=generator)
    exact = linear_scan(decay.double(), x.double(), torch.zeros(3, 4, dtype=torch.float64))
    out = linear_scan(decay, x, torch.zeros(3, 4))
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)


def test_no_gradient_flows_into_the_hidden_state():
    for encoder in (MinGRU(hidden=4), LRU(hidden=4)):
        encoder, vector, x, is_first = example(encoder)
        hidden_state = tuple(part.requires_grad_() for part in encoder.initial(len(x)))
        assert not encoder.scan(vector, x, hidden_state, is_first)[0].requires_grad
        _, after = encoder.scan(vector.requires_grad_(), x, hidden_state, is_first)
        assert not any(part.requires_grad for part in after)


def test_gates_start_with_every_time_scale_up_to_the_longest():
    encoder = MinGRU(hidden=2000, layers=2, time_scale=100.0).with_inputs(3)
    p = encoder.views(encoder.initial_parameters(torch.Generator().manual_seed(0)))
    for i in range(2):
        gate, candidate = p[f"{i}.gate_and_candidate.bias"].chunk(2)
        scale = 1 / torch.sigmoid(gate)
        assert 2 <= scale.min() < 2.1
        assert 95 < scale.max() <= 100.01
        assert scale.median() == pytest.approx(1 + math.sqrt(99), rel=0.2)
        assert torch.equal(candidate, torch.zeros(2000))


def test_the_recurrence_starts_on_the_ring_and_with_unit_gain():
    encoder = LRU(hidden=2000, slowest=0.95, fastest=0.6, phase=1.0).with_inputs(3)
    p = encoder.views(encoder.initial_parameters(torch.Generator().manual_seed(0)))
    modulus, angle = torch.exp(-torch.exp(p["0.nu"])), torch.exp(p["0.theta"])
    assert 0.6 <= modulus.min() < 0.61
    assert 0.94 < modulus.max() <= 0.95
    assert 0 < angle.min() < 0.01
    assert 0.99 < angle.max() <= 1.0
    area = (modulus**2 - 0.6**2) / (0.95**2 - 0.6**2)
    assert area.mean() == pytest.approx(0.5, abs=0.02)  # uniform on the ring, not on the radius
    torch.testing.assert_close(p["0.log_gamma"].exp() ** 2 + modulus**2, torch.ones(2000))


def test_no_parameters_make_the_recurrence_explode():
    encoder, vector, x, is_first = example(LRU(hidden=4), steps=200)
    encoder.views(vector)["0.nu"].fill_(-30.0)
    y, hidden_state = encoder.scan(vector, x, encoder.initial(3), torch.zeros_like(is_first))
    assert y.isfinite().all()
    assert max(part.abs().max() for part in hidden_state) < 1e3


def test_dropout_needs_a_generator_and_repeats_with_its_seed():
    check_dropout(MinGRU(hidden=4, layers=2, dropout=0.5))
    check_dropout(LRU(hidden=4, dropout=0.5))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MinGRU, {"hidden": 0}, "MinGRU: hidden must be a whole number >= 1, got 0"),
        (MinGRU, {"layers": 1.5}, "layers must be a whole number >= 1, got 1.5"),
        (MinGRU, {"time_scale": 2.0}, "time_scale must be more than 2 steps, got 2.0"),
        (MinGRU, {"dropout": 1.0, "layers": 2}, r"dropout must be in \[0, 1\), got 1.0"),
        (MinGRU, {"dropout": 0.1, "layers": 1}, "acts between layers .* set layers = 2"),
        (LRU, {"inputs": -1}, "LRU: inputs must be a whole number >= 0, got -1"),
        (LRU, {"slowest": 1.0}, "0 <= fastest < slowest < 1, got .* slowest = 1.0"),
        (LRU, {"fastest": 0.995}, "0 <= fastest < slowest < 1, got fastest = 0.995"),
        (LRU, {"phase": 7.0}, r"phase must be in \(0, 2 pi\] radians per step, got 7.0"),
        (LRU, {"dropout": -0.1}, r"LRU: dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_a_wrong_setting_is_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize("encoder", [MinGRU(hidden=4), LRU(hidden=4)])
def test_inputs_of_a_wrong_width_are_named(encoder):
    check_width(encoder)
