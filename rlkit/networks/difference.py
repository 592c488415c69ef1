"""How far two ways to the same numbers are apart: what the laws of encoders and models ask."""

from __future__ import annotations

from torch import Tensor


def differ(one: Tensor, two: Tensor, what: str, *, tolerance: float) -> str | None:
    """Says how far apart two tensors are; None where they agree.

    Args:
        one: Numbers.
        two: The same in another way; where they are larger than 1, the difference is relative to
            the largest of them.
        what: What is compared, to begin the sentence with.
        tolerance: Largest difference between tensors that agree.
    """
    if one.shape != two.shape:
        return f"{what} have shapes {tuple(one.shape)} and {tuple(two.shape)}"
    a, b = one.double(), two.double()
    difference = float((a - b).abs().max() / b.abs().max().clamp(min=1)) if a.numel() else 0.0
    # Written so that NaN counts as a difference.
    return None if difference <= tolerance else f"{what} differ by {difference:.2g}"
