"""Named parameters inside one flat vector."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Parametric(ABC):
    """A function of one flat parameter vector; holds shapes, never the parameters.

    One contiguous vector per network makes the optimiser, the target average and a checkpoint one
    operation each, whatever the depth.
    """

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""

    @abstractmethod
    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Writes fresh values into the named parameters."""

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a flat vector `(size,)`; they share its memory."""
        shapes = self.shapes()
        parts = torch.split(vector, [math.prod(shape) for shape in shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(size,)`."""
        vector = torch.empty(self.size)
        self.fill(self.views(vector), generator)
        return vector
