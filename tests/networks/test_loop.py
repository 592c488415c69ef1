"""Loops over time as one operation, and which library multiplies in them."""

import subprocess
import sys

import pytest
import torch

from rlkit.networks.gradient import ONEDNN_PRODUCT, fast_float32, loop, small_products

SETTING = torch.backends.mkldnn.matmul


def powers(x, w):
    """Two outputs of a loop over time."""
    states = [x]
    for _ in range(4):
        states.append((states[-1] @ w).tanh())
    return torch.stack(states[1:]), states[-1] * 2


def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, size, generator=generator).requires_grad_() for size in (3, 3)]


def test_a_loop_and_its_gradient_are_those_of_what_it_runs():
    x, w = inputs()
    found, wanted = loop(powers, 0, x, w), powers(x, w)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    slopes = [
        torch.autograd.grad(many.square().sum() + last.sum(), [x, w])
        for many, last in (found, wanted)
    ]
    torch.testing.assert_close(*slopes)


def test_an_input_without_gradient_gets_none():
    x, w = inputs()
    many, _ = loop(powers, 0, x.detach(), w)
    wanted, _ = powers(x.detach(), w)
    (one,), (other,) = (torch.autograd.grad(each.sum(), [w]) for each in (many, wanted))
    torch.testing.assert_close(one, other)
    assert not loop(powers, 0, x.detach(), w.detach())[0].requires_grad


def test_a_graph_that_is_kept_can_be_walked_twice():
    x, w = inputs()
    total = loop(powers, 0, x, w)[0].sum()
    once = torch.autograd.grad(total, [x, w], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(total, [x, w]), once, rtol=0, atol=0)


@pytest.mark.parametrize("multiplications", [ONEDNN_PRODUCT - 1, ONEDNN_PRODUCT])
def test_small_products_are_mkls_in_both_passes(multiplications):
    precisions = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            precisions.append(SETTING.fp32_precision)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            precisions.append(SETTING.fp32_precision)
            return grad

    before = SETTING.fp32_precision
    with fast_float32(True):
        permitted = SETTING.fp32_precision
        x = torch.ones(2, requires_grad=True)
        (y,) = loop(lambda x: (Spy.apply(x),), multiplications, x)
        assert SETTING.fp32_precision == permitted
        torch.autograd.grad(y.sum(), x)
        assert SETTING.fp32_precision == permitted
    large = multiplications >= ONEDNN_PRODUCT
    assert precisions == [permitted if large or permitted != "bf16" else "ieee"] * 2
    assert SETTING.fp32_precision == before


def test_small_products_give_the_setting_back_after_an_error():
    with fast_float32(True):
        before = SETTING.fp32_precision
        with pytest.raises(ZeroDivisionError), small_products(1):
            1 / 0  # noqa: B018
        assert SETTING.fp32_precision == before


def test_small_products_change_nothing_outside_of_fast_ones():
    before = SETTING.fp32_precision
    with small_products(1):
        assert SETTING.fp32_precision == before


PAGES = """
import resource, torch
from rlkit.networks.gradient import fast_float32

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(2**20)  # 4 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
with fast_float32(False):
    faults()
    print(before, faults())
"""


@pytest.mark.slow
def test_freed_memory_is_kept_for_the_next_step():
    answer = subprocess.run(
        [sys.executable, "-c", PAGES], check=True, capture_output=True, text=True
    )
    before, after = map(int, answer.stdout.split())
    assert after < 100
    assert after <= before
