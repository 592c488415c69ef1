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

MOST_SKIPPED = 10
"""Updates in a row that are not finite and therefore skipped, after which an error is raised."""
SKIPPED = "skipped_updates"
"""Name of the metric that counts them."""
_READ_EVERY = 32  # updates between two looks at what a GPU has skipped: each one waits for it
# Not summed: they are finite where the second moment is, which is made of the squared gradient.
_IMPLIED = (".m", ".decay1", ".decay2")


class DivergenceError(FloatingPointError):
    """Training has diverged: losses, gradients or weights are not finite numbers."""


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


def with_target(name: str, vector: Tensor) -> State:
    """A trained parameter vector, see `adam_state`, and its target copy `<name>_target`."""
    return {**adam_state(name, vector), f"{name}_target": vector.clone()}


class UpdateFunction:
    """Runs a pure update `(state, *inputs) -> (changes, metrics)` and writes the changes back.

    An update with a metric or a change that is not finite is skipped: the state stays as it was.

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
        self._in_a_row: Tensor | None = None  # skipped updates without another one between them
        self._calls = 0

        def step(state: State, *inputs: Any) -> tuple[list[str], list[str], Tensor, Tensor]:
            changes, metrics = function(state, *inputs)
            sums = {k: v.sum() for k, v in changes.items() if not k.endswith(_IMPLIED)}
            values = torch.stack([*metrics.values(), *sums.values()])
            finite = values.isfinite().all()
            # An eager update on a CPU knows the answer already, and copies nothing for it.
            if torch.compiler.is_compiling() or values.device.type != "cpu":
                changes = {k: torch.where(finite, v, state[k]) for k, v in changes.items()}
            elif not finite:
                changes = {}
            for name, value in changes.items():
                state[name].copy_(value)
            return list(metrics), list(sums), values, finite

        if compiled:
            # Compiled graphs are cached per code object. Guards test the inputs alone, so this
            # function needs a code object of its own.
            step.__code__ = step.__code__.replace()
            options: Any = {"cpp_wrapper": True, "guard_filter_fn": _of_inputs}
            step = torch.compile(step, fullgraph=True, dynamic=False, options=options)
        self._step = step

    def __call__(self, state: State, *inputs: Any) -> tuple[list[str], Tensor]:
        """Updates `state` in place.

        Returns:
            The metrics' names and their values `(M,)`; of a skipped update `skipped_updates = 1`
            alone. A GPU is not waited for, so that there it is always the last of the metrics, and
            the others are 0 where it is 1.

        Raises:
            DivergenceError: If `MOST_SKIPPED` updates in a row were skipped, on a GPU some more;
                the state is as it was before them.
        """
        with torch.no_grad(), fast_float32(self._onednn), _denormals_flushed():
            metrics, changed, values, finite = self._step(state, *inputs)
            own = values[: len(metrics)]
            if values.device.type == "cpu" and finite:
                self._in_a_row = None
                return metrics, own
            skipped = (~finite).to(own.dtype)
            before = torch.zeros_like(skipped) if self._in_a_row is None else self._in_a_row
            self._in_a_row = (before + 1) * skipped
            self._calls += 1
            is_read = values.device.type == "cpu" or self._calls % _READ_EVERY == 0
            if is_read and self._in_a_row >= MOST_SKIPPED:
                self._in_a_row = None
                raise DivergenceError(_cause(metrics, changed, values, *inputs[:1]))
            if values.device.type == "cpu":
                return [SKIPPED], skipped.reshape(1)
            return [*metrics, SKIPPED], torch.cat([own.where(finite, 0.0), skipped.reshape(1)])


def _cause(metrics: list[str], changed: list[str], values: Tensor, batch: Any = None) -> str:
    """Which losses and gradients of an update are not finite, and what they were computed from."""
    found = dict(zip(metrics, values.tolist(), strict=False))
    facts = [f"{name} is {value}" for name, value in found.items() if not math.isfinite(value)]
    ends = zip(changed, values[len(metrics) :].tolist(), strict=True)
    bad = {name.removesuffix(".v") for name, value in ends if not math.isfinite(value)}
    if bad:
        facts.append(f"not finite is the gradient or step of {', '.join(sorted(bad))}")
    known = batch if isinstance(batch, dict) else {}
    if "reward" in known:
        facts.append(f"rewards of the last batch: {_range(known['reward'])}")
    if "learning_rate" in known:
        facts.append(f"learning_rate = {float(known['learning_rate']):.3g}")
    return f"{MOST_SKIPPED} updates in a row were skipped: {'; '.join(facts)}"


def _range(x: Tensor) -> str:
    finite = x[x.isfinite()]
    bounds = f"{finite.min():.4g} to {finite.max():.4g}" if len(finite) else "none is finite"
    odd = x.numel() - finite.numel()
    return f"{bounds}, and {odd} of {x.numel()} not finite" if odd and len(finite) else bounds


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
