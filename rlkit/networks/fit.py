"""Fitting one parameter vector to batches: the loop that latent and world models share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from rlkit.networks.gradient import (
    ADAM,
    MOST_SKIPPED,
    SKIPPED,
    DivergenceError,
    Metrics,
    Optimiser,
    State,
    fast_float32,
    gradient,
)

Batch = TypeVar("Batch")


def descend(
    state: State,
    loss: Callable[[Tensor, Batch, int], tuple[Tensor, Metrics]],
    batches: Iterable[Batch],
    *,
    model: object,
    learning_rate: float,
    start: int = 0,
    clip: float | None = None,
    onednn: bool = False,
    optimiser: Optimiser = ADAM,
) -> Iterator[Metrics]:
    """One gradient step per batch.

    Args:
        state: The parameters under `vector` with their moments, from `adam_state`; each step
            replaces its entries.
        loss: `(vector, batch, step) -> (loss, metrics)`.
        batches: Drawn one at a time, before each step.
        model: What is fitted; its class is named in the error.
        learning_rate: The optimiser's.
        start: Number of the first step.
        clip: Largest norm of a gradient, > 0; None does not clip.
        onednn: Whether to multiply with oneDNN; see `fast_float32`.
        optimiser: Turns gradients into steps.

    Yields:
        The loss's metrics and `loss`, and `gradient_norm` where gradients are clipped; of a step
        that was skipped, because it is not finite, `skipped_updates = 1` alone.

    Raises:
        DivergenceError: If `MOST_SKIPPED` steps in a row were skipped, or all there were; the state
            is as before them.
    """
    skipped, taken = 0, 0
    for step, batch in enumerate(batches, start):

        def of_batch(
            vector: Tensor, batch: Batch = batch, step: int = step
        ) -> tuple[Tensor, Metrics]:
            value, metrics = loss(vector, batch, step)
            return value, metrics | {"loss": value}

        with fast_float32(onednn):
            grad, metrics = gradient(of_batch, state["vector"])
        if clip is not None:
            norm = grad.norm()
            metrics["gradient_norm"] = norm
            grad = grad * (clip / norm.clamp(min=clip))
        changes = optimiser.step(state, "vector", grad, learning_rate)
        found = metrics["loss"], changes["vector"].sum(), changes["vector.v"].sum()
        if torch.stack(found).isfinite().all():
            skipped, taken = 0, taken + 1
            state |= changes
            yield metrics
            continue
        skipped += 1
        cause = (
            f"the loss of {type(model).__name__} is {float(metrics['loss'])} and its gradient "
            f"{float(grad.norm())} at step {step}; lower learning_rate = {learning_rate}. The "
            f"parameters are as they were before, and {skipped} steps in a row were skipped"
        )
        if skipped >= MOST_SKIPPED:
            raise DivergenceError(cause)
        yield {SKIPPED: torch.ones(())}
    if skipped > taken == 0:
        raise DivergenceError(cause)
