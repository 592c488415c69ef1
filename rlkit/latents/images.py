"""Convolutional networks between images and vectors, as pure functions of one flat vector."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks import Mlp, Parametric

STRIDES = ((4, 2, 2), (3, 2, 2), (5, 2, 2), (2, 2, 1))
"""Strides, of which an image gets the first whose product divides its side. The first is wide: most
of a convolution's cost is in its first layers, and this is what makes one affordable on a CPU."""
FINE_STRIDES = (2, 2, 1)
"""Strides where it matters where something is: places are read to a fraction of a larger pixel."""
SMALLEST = 8  # pixels; less leaves convolutions nothing to look at


def _fits(side: int) -> bool:
    """Whether the networks have images of a side: the last strides divide what 4 divides."""
    return side >= SMALLEST and side % 4 == 0


def require_image(owner: str, shape: tuple[int, ...]) -> None:
    """Raises a ValueError unless a shape is `(S, S, C)` of a side that the networks have."""
    height, width, channels = shape
    if width == channels and _fits(width) and not _fits(height):
        raise ValueError(
            f"{owner}: images have their channels last, got shape {shape}; "
            f"{(width, channels, height)} is meant, from numpy.moveaxis(image, -3, -1)"
        )
    if height != width or not _fits(height):
        raise ValueError(
            f"{owner}: images are square with a side that is a multiple of 4 pixels, {SMALLEST} or "
            f"more, channels last, got shape {shape}; resize them, or encode them with PCA or a "
            f"linear autoencoder, which take any size"
        )


class Convolutions(Parametric):
    """What encoder and decoder share: three convolutions and a perceptron."""

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]

    @property
    @abstractmethod
    def mlp(self) -> Mlp:
        """The perceptron between the smallest picture and the vector."""

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution, from the image inwards."""
        return next(s for s in STRIDES if self.shape[0] % math.prod(s) == 0)

    @property
    def innermost(self) -> tuple[int, int, int]:
        """Shape of the smallest picture, `(side, side, channels)`."""
        side = self.shape[0] // math.prod(self.strides)
        return side, side, self.channels[-1]

    @property
    def layers(self) -> list[tuple[int, int, int]]:
        """Of each convolution, from the image inwards: outer width, inner width, stride."""
        outer = (self.shape[2], *self.channels[:-1])
        return list(zip(outer, self.channels, self.strides, strict=True))

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values: convolutions keep the variance through ReLUs (He et al. 2015)."""
        dense = {name: view for name, view in views.items() if name.startswith("dense.")}
        self.mlp.fill(
            {name.removeprefix("dense."): view for name, view in dense.items()}, generator
        )
        for name, view in views.items():
            if name in dense:
                continue
            if name.endswith("bias"):
                view.zero_()
            else:
                bound = math.sqrt(6 / math.prod(view.shape[1:]))
                view.uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class ImageEncoder(Convolutions):
    """Three convolutions with ReLU, then a perceptron; or, with `spatial`, where features are.

    Kernels are about twice their stride, so that windows overlap evenly, and padded so that each
    layer divides the side by its stride. A spatial encoder takes from every feature its mean place
    under a softmax over the picture, and an affine map from these places to the outputs.

    Source of spatial features: Finn et al. 2016, section IV-B.

    Attributes:
        shape: `(H, W, C)` of an image.
        channels: Width of each convolution.
        hidden: Widths of the perceptron's hidden layers.
        outputs: Width of the output.
        spatial: Whether places are read, `hidden` unused.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    spatial: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution, from the image inwards."""
        return FINE_STRIDES if self.spatial else super().strides

    @property
    def mlp(self) -> Mlp:
        """The perceptron."""
        if self.spatial:
            return Mlp((2 * self.channels[-1],), (), self.outputs)
        return Mlp((math.prod(self.innermost),), self.hidden, self.outputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (outer, inner, stride) in enumerate(self.layers):
            kernel = max(2 * stride - stride % 2, 3)
            shapes[f"convolution.{i}.weight"] = (inner, outer, kernel, kernel)
            shapes[f"convolution.{i}.bias"] = (inner,)
        return shapes | {f"dense.{name}": shape for name, shape in self.mlp.shapes().items()}

    def __call__(self, vector: Tensor, x: Tensor) -> Tensor:
        """Outputs `(B, outputs)` of images `(B, H, W, C)`."""
        p, mlp = self.views(vector), self.mlp
        # A permuted view: the memory stays channels-last, which CPU convolutions like best.
        y = x.permute(0, 3, 1, 2)
        last = len(self.strides) - 1
        for i, stride in enumerate(self.strides):
            weight, bias = p[f"convolution.{i}.weight"], p[f"convolution.{i}.bias"]
            padding = (weight.shape[-1] - stride) // 2
            y = F.conv2d(y, weight, bias, stride=stride, padding=padding)
            if i < last or not self.spatial:
                y = F.relu(y)
        flat = mean_places(y) if self.spatial else y.permute(0, 2, 3, 1).flatten(1)
        return mlp(vector[self.size - mlp.size :], [flat])[0]


def mean_places(features: Tensor) -> Tensor:
    """Where features are, `(B, C, H, W) -> (B, 2 C)`: column, then row, from -1 to 1."""
    height, width = features.shape[2:]
    share = features.flatten(2).softmax(2).view(features.shape)
    column = torch.linspace(-1, 1, width, device=features.device)
    row = torch.linspace(-1, 1, height, device=features.device)
    return torch.cat([share.sum(2) @ column, share.sum(3) @ row], dim=1)


@dataclass(frozen=True)
class ImageDecoder(Convolutions):
    """The encoder's mirror: a perceptron, then three convolutions that enlarge.

    Each gives the stride's square of pixels at once, which are then spread out (Shi et al. 2016):
    several times faster than a transposed convolution on a CPU, and no grid shows either.

    Attributes:
        shape: `(H, W, C)` of an image.
        channels: Width of each convolution, in the encoder's order.
        hidden: Widths of the perceptron's hidden layers, in the encoder's order.
        inputs: Width of the input.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    inputs: int

    @property
    def mlp(self) -> Mlp:
        """The perceptron."""
        return Mlp((self.inputs,), self.hidden[::-1], math.prod(self.innermost))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        shapes = {f"dense.{name}": shape for name, shape in self.mlp.shapes().items()}
        for i, (outer, inner, stride) in reversed(list(enumerate(self.layers))):
            shapes[f"convolution.{i}.weight"] = (outer * stride**2, inner, 3, 3)
            shapes[f"convolution.{i}.bias"] = (outer * stride**2,)
        return shapes

    def __call__(self, vector: Tensor, z: Tensor) -> Tensor:
        """Images `(B, H, W, C)`, unbounded, of inputs `(B, inputs)`."""
        p, mlp = self.views(vector), self.mlp
        flat = mlp(vector[: mlp.size], [z])[0]
        y = flat.view(len(z), *self.innermost).permute(0, 3, 1, 2)
        for i, stride in reversed(list(enumerate(self.strides))):
            weight, bias = p[f"convolution.{i}.weight"], p[f"convolution.{i}.bias"]
            y = F.pixel_shuffle(F.conv2d(F.relu(y), weight, bias, padding=1), stride)
        return y.permute(0, 2, 3, 1)
