"""Gradients, Adam, and pure updates that run eagerly or as one compiled graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Metrics = dict[str, Tensor]
Loss = Callable[[Tensor], tuple[Tensor, Metrics]]

# Below this layer width MKL's products are the faster ones, above it oneDNN's.
ONEDNN_WIDTH = 128


def gradient(loss: Loss, vector: Tensor) -> tuple[Tensor, Metrics]:
    """Gradient of a loss `vector -> (loss, metrics)` at a flat vector, and the metrics.

    A vector that requires a gradient may be part of the loss through what was computed of it
    before, such as a memory; that graph is kept for the next loss.
    """
    if torch.compiler.is_compiling():
        grad, (_, metrics) = torch.func.grad_and_value(loss, has_aux=True)(vector)
        return grad, metrics
    # The same by plain autograd: torch.func doubles the cost of small operations run eagerly.
    unrolled = vector.requires_grad
    leaf = vector if unrolled else vector.detach().requires_grad_()
    with torch.enable_grad():
        value, metrics = loss(leaf)
    (grad,) = torch.autograd.grad(value, leaf, retain_graph=unrolled)
    return grad, {name: metric.detach() for name, metric in metrics.items()}


def adam(state: State, name: str, grad: Tensor, learning_rate: Tensor | float) -> State:
    """One Adam step for `state[name]`, with moments `name.m` and `name.v`.

    `name.decay1` and `name.decay2` are the decays to the power of the step count: kept as products,
    because a compiled loop would take the powers anew for every parameter.

    Source: Kingma and Ba 2015, algorithm 1, with its default decays 0.9 and 0.999 and epsilon 1e-8.
    """
    decay1, decay2 = state[f"{name}.decay1"] * 0.9, state[f"{name}.decay2"] * 0.999
    m = torch.lerp(state[f"{name}.m"], grad, 0.1)
    v = torch.lerp(state[f"{name}.v"], grad * grad, 0.001)
    step = (m / (1 - decay1)) / ((v / (1 - decay2)).sqrt() + 1e-8)
    return {
        name: state[name] - learning_rate * step,
        f"{name}.m": m,
        f"{name}.v": v,
        f"{name}.decay1": decay1,
        f"{name}.decay2": decay2,
    }


def adam_state(name: str, vector: Tensor) -> State:
    """A parameter vector with Adam's moments at zero, under the names that `adam` expects."""
    zeros = torch.zeros_like(vector)
    return {
        name: vector,
        f"{name}.m": zeros,
        f"{name}.v": zeros.clone(),
        f"{name}.decay1": torch.ones((), device=vector.device),
        f"{name}.decay2": torch.ones((), device=vector.device),
    }


class UpdateFunction:
    """Runs a pure update `(state, *inputs) -> (changes, metrics)` and writes the changes back.

    Args:
        function: Pure: reads tensors, returns new ones, draws no random numbers.
        compiled: Whether to compile it into one graph with `torch.compile`. That costs seconds at
            the first call (less when cached on disk) and needs a C++ compiler.
        width: The widest hidden layer; decides which library multiplies on a CPU.

    Raises:
        ValueError: If it is to be compiled and there is no C++ compiler.
    """

    def __init__(
        self, function: Callable[..., tuple[State, Metrics]], compiled: bool, width: int
    ) -> None:
        if compiled and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
            raise ValueError(
                "compile = True needs a C++ compiler, and there is none; install one (g++, say) or "
                "set compile = False, which computes the same more slowly"
            )
        self.compiled = compiled
        self._onednn = width >= ONEDNN_WIDTH

        def step(state: State, *inputs: Any) -> tuple[list[str], Tensor]:
            changes, metrics = function(state, *inputs)
            for name, value in changes.items():
                state[name].copy_(value)
            return list(metrics), torch.stack(list(metrics.values()))

        self._step = (
            torch.compile(step, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})
            if compiled
            else step
        )

    def __call__(self, state: State, *inputs: Any) -> tuple[list[str], Tensor]:
        """Updates `state` in place; returns the metrics' names and their values `(M,)`."""
        with torch.no_grad(), fast_float32(self._onednn), _denormals_flushed():
            names, values = self._step(state, *inputs)
        return names, values


@contextmanager
def fast_float32(enabled: bool) -> Iterator[None]:
    """Lets oneDNN multiply float32 matrices, twice as fast as MKL on AMD processors.

    PyTorch hands float32 products to oneDNN only with permission for bfloat16. Where the processor
    has no bfloat16 matrix unit oneDNN still computes in full float32; that is tested once, and the
    permission is only ever given where it costs no precision.
    """
    if not (enabled and _onednn_keeps_float32()):
        yield
        return
    with _bfloat16_permitted():
        yield


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Takes numbers below 1e-38 for 0: moments of idle units decay into them, and they are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@cache
def _onednn_keeps_float32() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    with _bfloat16_permitted():
        error = ((a @ b) - exact).abs().max() / exact.abs().max()
    return bool(error < 1e-5)  # bfloat16 would leave about 1e-3


@contextmanager
def _bfloat16_permitted() -> Iterator[None]:
    settings: Any = torch.backends.mkldnn
    before = settings.matmul.fp32_precision
    settings.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.matmul.fp32_precision = before
