"""Draws in proportion to numbers that change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """Numbers >= 0 under the leaves of a binary tree, whose nodes hold the sums below them.

    Node i has the children 2 i and 2 i + 1, and the root is 1. A node is always the sum of its two
    children as they are, not an account of changes, so that no error adds up, and equal leaves make
    equal trees.

    Source: Schaul et al. 2016, "Prioritized Experience Replay", appendix B.2.1.

    Args:
        size: Number of leaves N, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size, self._depth = size, (size - 1).bit_length()
        self._first = 1 << self._depth
        self._nodes = np.zeros(2 * self._first)

    @property
    def leaves(self) -> NDArray[np.float64]:
        """All numbers, `(N,)`; to be read only."""
        return self._nodes[self._first : self._first + self.size]

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self._nodes[1])

    def put(self, leaf: NDArray[np.int64], value: NDArray[Any] | float) -> None:
        """Sets leaves `(K,)`; of a leaf that is given several times the last value counts."""
        nodes, node = self._nodes, leaf + self._first
        nodes[node] = value
        for _ in range(self._depth):
            node = node >> 1
            nodes[node] = nodes.take(2 * node) + nodes.take(2 * node + 1)

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """Leaves `(K,)` at which the running sum first exceeds `mass (K,)` in [0, total).

        A leaf of 0 is never found, whatever rounding does, as long as the total is positive.
        """
        nodes, node = self._nodes, np.ones(len(mass), np.int64)
        mass = mass.copy()
        for _ in range(self._depth):
            node <<= 1
            left = nodes.take(node)
            right = (mass >= left) & (nodes.take(node + 1) > 0)
            mass -= np.where(right, left, 0.0)
            node += right
        return node - self._first
