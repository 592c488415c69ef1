"""What the contract tests of encoders, latent models, world models and planners share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rlkit.networks.gradient import Loss, gradient


def differ(one: Tensor, two: Tensor, what: str, *, tolerance: float) -> str | None:
    """How far two tensors are apart; None where they agree.

    Args:
        one: Numbers.
        two: The same, computed in another way; where they are larger than 1, the difference is
            relative to the largest of them.
        what: What is compared; begins the message.
        tolerance: Largest difference between tensors that agree.
    """
    if one.shape != two.shape:
        return f"{what} have shapes {tuple(one.shape)} and {tuple(two.shape)}"
    a, b = one.double(), two.double()
    difference = float((a - b).abs().max() / b.abs().max().clamp(min=1)) if a.numel() else 0.0
    # Written so that NaN counts as a difference.
    return None if difference <= tolerance else f"{what} differ by {difference:.2g}"


def changed(read: Mapping[str, Tensor], call: Callable[[], object]) -> str | None:
    """Which named tensors a call has written to; None for none."""
    before = {name: value.clone() for name, value in read.items()}
    call()
    written = [name for name, value in read.items() if not torch.equal(value, before[name])]
    return f"{', '.join(written)} changed" if written else None


def wrong_parameters(model: Any, vector: Tensor) -> str | None:
    """How a model's `size` and `views` disagree with its `initial_parameters`."""
    total = sum(view.numel() for view in model.views(vector).values())
    if not len(vector) == model.size == total:
        return (
            f"initial_parameters has {len(vector)} numbers, size is {model.size}, "
            f"the views hold {total}"
        )
    named = {name: tuple(view.shape) for name, view in model.views(vector).items()}
    shapes = getattr(model, "shapes", None)
    if shapes is not None and named != {name: tuple(shape) for name, shape in shapes().items()}:
        return "the views have other shapes than shapes()"
    return None


def wrong_loss(loss: Loss, vector: Tensor, metric: str | None) -> str | None:
    """What is wrong with a seeded loss `vector -> (loss, metrics)`.

    Args:
        loss: Draws from a generator with the same seed in every call.
        vector: Parameters.
        metric: What the metrics must hold; None for nothing.
    """
    (one, metrics), (two, _) = loss(vector), loss(vector)
    if one.shape != () or not one.isfinite():
        return f"the loss is {one}, not one finite number"
    if not torch.equal(one, two):
        return f"two losses with the same generator are {float(one)} and {float(two)}"
    if metric is not None and metric not in metrics:
        return f"the metrics {sorted(metrics)} hold no {metric}"
    found = loss(vector.clone().requires_grad_())[1]
    attached = [name for name, value in found.items() if value.requires_grad]
    return f"the metrics {', '.join(attached)} are attached" if attached else None


def unreached_parameters(model: Any, loss: Loss, vector: Tensor) -> str | None:
    """The parameters of a model that get no gradient from a loss."""
    found = gradient(loss, vector)[0]
    idle = [name for name, part in model.views(found).items() if not part.any()]
    return f"none reaches {', '.join(idle)}" if idle else None


def not_lowered(loss: Callable[[Tensor, int], float], before: Tensor, after: Tensor) -> str | None:
    """The mean loss over 8 seeds before and after a fit, unless it is lower after it."""
    with torch.no_grad():
        first, last = (sum(loss(v, seed) for seed in range(8)) / 8 for v in (before, after))
    return None if last < first else f"it is {first:.6g} before, {last:.6g} after"
