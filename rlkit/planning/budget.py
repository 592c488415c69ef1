"""How much a planner may search: sequences that are scored, or milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlkit.planning.contract import Clock

MARGIN = 1.5
"""How much longer than the longest iteration so far the next one is allowed to take."""


def populations(samples: int, iterations: int, decay: float = 1.0, least: int = 1) -> list[int]:
    """Sizes of the populations of a search, `samples` in sum.

    Args:
        samples: Sequences per decision, >= 1.
        iterations: Populations, >= 1.
        decay: Each is smaller than the one before by this factor, >= 1, as far as `least` allows.
        least: Smallest size, >= 1.

    Raises:
        ValueError: If there are too few samples for that.
    """
    if samples < iterations * least:
        raise ValueError(
            f"samples must be at least {iterations * least} for {iterations} iterations of "
            f"{least} or more, got {samples!r}"
        )
    shares = [decay**-i for i in range(iterations)]
    sizes = [max(least, int(samples * share / sum(shares))) for share in shares]
    i = 0
    # What rounding left goes to the first ones, and what `least` took they give.
    while (missing := samples - sum(sizes)) != 0:
        if missing > 0 or sizes[i] > least:
            sizes[i] += 1 if missing > 0 else -1
        i = (i + 1) % iterations
    return sizes


def rounds(sizes: Sequence[int], milliseconds: float | None, clock: Clock) -> Iterator[int]:
    """Sizes of one population after the other, until the budget is used up; at least one.

    A budget in time goes through the sizes, and on with the last of them. It is over when the next
    iteration, as long as the longest so far and a margin, would end too late.

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
