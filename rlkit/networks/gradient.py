"""Gradients, optimisers, and pure updates that run eagerly or as one compiled graph."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

State = dict[str, Tensor]
Metrics = dict[str, Tensor]
Loss = Callable[[Tensor], tuple[Tensor, Metrics]]

# Below this layer width MKL's products are the faster ones, above it oneDNN's.
ONEDNN_WIDTH = 128
# A product of oneDNN has some 12 us more overhead, which pays off from so many multiplications.
ONEDNN_PRODUCT = 2**20


def gradient(loss: Loss, vector: Tensor) -> tuple[Tensor, Metrics]:
    """Gradient of a loss `vector -> (loss, metrics)` at a flat vector, and the metrics.

    A vector that requires a gradient may be part of the loss through what was computed from it
    before, such as the features of an encoder; that graph is kept for the next loss.
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


@dataclass(frozen=True)
class Optimiser:
    """Adam, or AdamW, on flat parameter vectors.

    AdamW shrinks all parameters of a vector, biases included, by `learning_rate * weight_decay` in
    each step, apart from the gradient.

    Source: Kingma and Ba 2015, algorithm 1; AdamW: Loshchilov and Hutter 2019, algorithm 2.

    Attributes:
        name: `"adam"` or `"adamw"`.
        betas: Decay rates of both moments, in [0, 1).
        eps: What is added to the root of the second moment, > 0.
        weight_decay: Of AdamW, >= 0.

    Raises:
        ValueError: If a field is out of its range, or Adam is given a weight decay.
    """

    name: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("adam", "adamw"):
            raise ValueError(f"optimiser must be adam or adamw, got {self.name!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        if not self.eps > 0:
            raise ValueError(f"eps must be > 0, got {self.eps!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a number >= 0, got {self.weight_decay!r}")
        if self.weight_decay > 0 and self.name == "adam":
            raise ValueError(
                f"weight_decay = {self.weight_decay!r} needs optimiser = 'adamw', or set "
                f"weight_decay = 0"
            )

    def step(self, state: State, name: str, grad: Tensor, learning_rate: Tensor | float) -> State:
        """What a step changes: `state[name]` and its moments, `name.m` and `name.v`.

        `name.decay1` and `name.decay2` are the betas to the power of the step count: kept as
        products, because a compiled loop would take the powers anew for every parameter.
        """
        beta1, beta2 = self.betas
        decay1, decay2 = state[f"{name}.decay1"] * beta1, state[f"{name}.decay2"] * beta2
        m = torch.lerp(state[f"{name}.m"], grad, 1 - beta1)
        v = torch.lerp(state[f"{name}.v"], grad * grad, 1 - beta2)
        # In place on temporary tensors: fresh memory costs as much as the arithmetic.
        scale = (v / (1 - decay2)).sqrt_().add_(self.eps)
        step = (m / (1 - decay1)).div_(scale).mul_(learning_rate)
        vector = state[name]
        if self.weight_decay > 0:
            vector = vector * (1 - learning_rate * self.weight_decay)
        return {
            name: vector - step,
            f"{name}.m": m,
            f"{name}.v": v,
            f"{name}.decay1": decay1,
            f"{name}.decay2": decay2,
        }


ADAM = Optimiser()


def adam_state(name: str, vector: Tensor) -> State:
    """A parameter vector with moments at zero, under the names that `Optimiser.step` expects."""
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
                "compile = True needs a C++ compiler, and there is none; install one, such as g++, "
                "or set compile = False, which computes the same more slowly"
            )
        self.compiled = compiled
        self._onednn = width >= ONEDNN_WIDTH

        def step(state: State, *inputs: Any) -> tuple[list[str], Tensor]:
            changes, metrics = function(state, *inputs)
            for name, value in changes.items():
                state[name].copy_(value)
            return list(metrics), torch.stack(list(metrics.values()))

        if compiled:
            # Compiled graphs are cached per code object. Guards test the inputs alone, so this
            # function needs a code object of its own.
            step.__code__ = step.__code__.replace()
            options: Any = {"cpp_wrapper": True, "guard_filter_fn": _of_inputs}
            step = torch.compile(step, fullgraph=True, dynamic=False, options=options)
        self._step = step

    def __call__(self, state: State, *inputs: Any) -> tuple[list[str], Tensor]:
        """Updates `state` in place; returns the metrics' names and their values `(M,)`."""
        with torch.no_grad(), fast_float32(self._onednn), _denormals_flushed():
            names, values = self._step(state, *inputs)
        return names, values


def _of_inputs(guards: Sequence[Any]) -> list[bool]:
    """Which guards to test before a graph is run again: those of the inputs.

    Nothing else changes, and testing hundreds of settings and functions takes 5 % of an update.
    """
    return ["inputs" in guard.name for guard in guards]


@contextmanager
def fast_float32(enabled: bool) -> Iterator[None]:
    """Lets oneDNN multiply float32 matrices, twice as fast as MKL on AMD processors.

    PyTorch hands float32 products to oneDNN only with permission for bfloat16. Where the processor
    has no bfloat16 matrix unit oneDNN still computes in full float32; that is tested once, and the
    permission is only ever given where it costs no precision.
    """
    _keep_freed_memory()
    if not (enabled and _onednn_keeps_float32()):
        yield
        return
    with _bfloat16_permitted():
        yield


@contextmanager
def small_products(multiplications: int) -> Iterator[None]:
    """Inside `fast_float32`, hands products back to MKL where they are too small for oneDNN.

    A loop over time multiplies few rows at a time, however wide the layers.

    Args:
        multiplications: In a typical product of the loop, rows times the weight's entries.
    """
    settings: Any = torch.backends.mkldnn
    before = settings.matmul.fp32_precision
    if before != "bf16" or multiplications >= ONEDNN_PRODUCT:
        yield
        return
    settings.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.matmul.fp32_precision = before


class _Loop(torch.autograd.Function):
    """A graph of its own inside one node."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., tuple[Tensor, ...]], multiplications: int, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        wanted = ctx.needs_input_grad[2:]
        inside = [
            x.detach().requires_grad_(needed) for x, needed in zip(inputs, wanted, strict=True)
        ]
        with small_products(multiplications), torch.set_grad_enabled(any(wanted)):
            outputs = run(*inside)
        ctx.multiplications, ctx.wanted, ctx.outputs = multiplications, wanted, outputs
        ctx.inside = [x for x in inside if x.requires_grad]
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with small_products(ctx.multiplications):
            # Kept, because the graph outside may be: it goes when that one goes.
            each = torch.autograd.grad(ctx.outputs, ctx.inside, grads, True, allow_unused=True)
        found = iter(each)
        return None, None, *(next(found) if needed else None for needed in ctx.wanted)


def loop(
    run: Callable[..., tuple[Tensor, ...]], multiplications: int, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """`run(*inputs)`, both passes of it with `small_products`; gradients flow to the inputs alone.

    Args:
        run: A loop over time; its outputs all depend on the inputs.
        multiplications: See `small_products`.
        *inputs: Whatever `run` is to be differentiated by.
    """
    found: tuple[Tensor, ...] = _Loop.apply(run, multiplications, *inputs)  # type: ignore[no-untyped-call]
    return found


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flushes numbers below 1e-38 to 0: moments of idle units decay to them, and they are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@cache
def _keep_freed_memory() -> None:
    """Makes the C library keep some 32 MB of freed memory for the next step.

    glibc returns blocks of 128 kB and more, and the end of its heap, to the system; allocating them
    again, page by page, took a third of a step. It raises both limits whenever a larger block is
    freed (mallopt(3), M_MMAP_THRESHOLD), so this frees one that is never written to.
    """
    torch.empty(16 * 2**20, dtype=torch.uint8)


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
