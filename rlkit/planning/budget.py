"""The budget of a planner: sequences to score, or milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlkit.planning.contract import Clock

MARGIN = 1.5
"""Assumed duration of the next iteration, in durations of the longest one so far."""


def populations(samples: int, iterations: int, decay: float = 1.0, least: int = 1) -> list[int]:
    """Sizes of the populations of a search, which sum up to `samples`.

    Args:
        samples: Sequences per decision, >= 1.
        iterations: Populations, >= 1.
        decay: Each is smaller than the one before by this factor, >= 1, as far as `least` allows.
        least: Smallest size, >= 1.

    Raises:
        ValueError: If there are too few samples.
    """
    if samples < iterations * least:
        raise ValueError(
            f"samples must be at least {iterations * least} for {iterations} iterations of "
            f"{least} or more, got {samples!r}"
        )
    shares = [decay**-i for i in range(iterations)]
    sizes = [max(least, int(samples * share / sum(shares))) for share in shares]
    i = 0
    # The first ones take what rounding left, and give what `least` took.
    while (missing := samples - sum(sizes)) != 0:
        if missing > 0 or sizes[i] > least:
            sizes[i] += 1 if missing > 0 else -1
        i = (i + 1) % iterations
    return sizes


def rounds(sizes: Sequence[int], milliseconds: float | None, clock: Clock) -> Iterator[int]:
    """The size of each population until the budget is used up; at least one.

    A budget in time repeats the last of the sizes. It ends when the next iteration, with the
    longest duration so far and a margin, would exceed it.

    Args:
        sizes: Of the planned iterations.
        milliseconds: The budget in time; None for exactly these sizes.
        clock: Seconds; it is read before each iteration and after it.
    """
    if milliseconds is None:
        yield from sizes
        return
    began = before = clock()
    longest, i = 0.0, 0
    while before - began + MARGIN * longest <= milliseconds / 1000:
        yield sizes[min(i, len(sizes) - 1)]
        after = clock()
        longest, before, i = max(longest, after - before), after, i + 1
