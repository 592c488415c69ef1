"""What our latent models are built of: reading observations, dense and convolutional networks."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks import Mlp, Parametric
from rlkit.networks.fields import is_whole, require, require_flag, require_whole, require_widths
from rlkit.networks.mlp import part_of

Frames = Tensor | NDArray[Any]
CHANNELS = (16, 32, 32)
"""Default widths of the convolutions."""
STRIDES = ((4, 2, 2), (3, 2, 2), (5, 2, 2), (2, 2, 1))
"""Strides of the convolutions; an image gets the first whose product divides its side. The first
stride is wide because most of the cost is in the first layers."""
FINE_STRIDES = (2, 2, 1)
"""Strides of a spatial encoder, which reads positions to a fraction of a coarser pixel."""
SMALLEST = 8  # pixels


def as_tensor(x: Frames, images: bool) -> Tensor:
    """Rows as a tensor, uint8 or float32.

    Raises:
        ValueError: If they hold non-finite numbers, or images are of another type or range.
    """
    # Copied: torch warns of arrays that it may not write to, such as memory maps.
    rows = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    if rows.dtype == torch.uint8:
        return rows
    if images and not rows.is_floating_point():
        raise ValueError(
            f"images are bytes (uint8), or floats in [0, 1], got {str(rows.dtype)[6:]}: convert "
            f"them with .astype(numpy.uint8)"
        )
    rows = rows.float()
    if rows.numel() == 0:
        return rows
    low, high = (float(end) for end in torch.aminmax(rows))
    if not (np.isfinite(low) and np.isfinite(high)):
        at = tuple((~rows.isfinite()).nonzero()[0].tolist())
        raise ValueError(
            f"observations must be finite, found {float(rows[at])} at index {at}; check the "
            f"environment for divisions by zero"
        )
    if images and not (low >= 0 and high <= 1):
        raise ValueError(
            f"images as floats are in [0, 1], found {low if low < 0 else high:.6g}: give them as "
            f"uint8, or divide by 255"
        )
    return rows


def require_shape(x: Frames, shape: tuple[int, ...], what: str) -> None:
    """Raises a ValueError unless the last axes of an array are a shape."""
    if tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
        advice = ""
        if len(shape) == 3 and tuple(x.shape[-3:]) == (shape[2], *shape[:2]):
            advice = "; images have their channels last, use numpy.moveaxis(images, -3, -1)"
        wanted = ", ".join(str(n) for n in ("...", *shape))
        raise ValueError(f"{what} have shape {tuple(x.shape)}, not ({wanted}){advice}")


class ParametricLatent(Parametric):
    """What our models share: dataclasses with a width of latents and a shape of observations."""

    dims: int
    shape: tuple[int, ...]

    @property
    def of_images(self) -> bool:
        """Whether observations are images."""
        return len(self.shape) == 3

    def with_shape(self, shape: tuple[int, ...]) -> Self:
        """The same model for observations of a shape, `(H, W, C)` or `(F,)`.

        Raises:
            ValueError: If the shape is neither.
        """
        changed: Self = replace(self, shape=tuple(int(n) for n in shape))  # type: ignore[type-var]
        return changed

    def read(self, x: Tensor) -> Tensor:
        """Observations as the networks read them, `(B, *shape)` float32; images in [0, 1].

        Raises:
            ValueError: If the model has no shape yet, or another one.
        """
        # That float images are in [0, 1] is not checked: it would halt a GPU at every batch.
        if not self.shape:
            raise ValueError(
                f"{type(self).__name__} has no shape of observations yet: use "
                f"model.with_shape({tuple(x.shape[1:])})"
            )
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"observations have shape {tuple(x.shape[1:])}, {type(self).__name__} is "
                f"configured for {self.shape}: use model.with_shape({tuple(x.shape[1:])})"
            )
        if x.dtype == torch.uint8 and self.of_images:
            return x.float().mul_(1 / 255)
        return x.float()

    def _require_dims_and_shape(self) -> None:
        require_whole(self, 1, "dims")
        if len(self.shape) not in (0, 1, 3) or any(not is_whole(n, 1) for n in self.shape):
            advice = ""
            if len(self.shape) == 2:
                advice = f"; a grey image has one channel, {(*self.shape, 1)}"
            raise ValueError(
                f"{type(self).__name__}: observations are vectors (F,) or images (H, W, C), got "
                f"shape {self.shape}{advice}"
            )


@dataclass(frozen=True)
class Dense(Parametric):
    """A perceptron from arrays of one shape to arrays of another.

    Attributes:
        before: Shape of one input.
        hidden: Width of each hidden layer.
        after: Shape of one output.
    """

    before: tuple[int, ...]
    hidden: tuple[int, ...]
    after: tuple[int, ...]

    @cached_property
    def mlp(self) -> Mlp:
        """The perceptron between the flattened arrays."""
        return Mlp((math.prod(self.before),), self.hidden, math.prod(self.after))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        return self.mlp.shapes()

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values; see `Mlp.fill`."""
        self.mlp.fill(views, generator)

    def __call__(self, vector: Tensor, x: Tensor) -> Tensor:
        """Outputs `(B, *after)` for inputs `(B, *before)`."""
        return self.mlp(vector, [x.flatten(1)])[0].view(len(x), *self.after)


def _fits(side: int) -> bool:
    """Whether the networks support images with a side of so many pixels."""
    return side >= SMALLEST and side % 4 == 0


def require_image(owner: str, shape: tuple[int, ...]) -> None:
    """Raises a ValueError unless a shape is `(S, S, C)` with a side that the networks support."""
    height, width, channels = shape
    if width == channels and _fits(width) and not _fits(height):
        raise ValueError(
            f"{owner}: images have channels last, got shape {shape}; "
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
        """The perceptron between the innermost feature map and the vector."""

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution, from the image inwards."""
        return next(s for s in STRIDES if self.shape[0] % math.prod(s) == 0)

    @cached_property
    def innermost(self) -> tuple[int, int, int]:
        """Shape of the innermost feature map, `(side, side, channels)`."""
        side = self.shape[0] // math.prod(self.strides)
        return side, side, self.channels[-1]

    @cached_property
    def layers(self) -> list[tuple[int, int, int]]:
        """Of each convolution, from the image inwards: outer width, inner width, stride."""
        outer = (self.shape[2], *self.channels[:-1])
        return list(zip(outer, self.channels, self.strides, strict=True))

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values: convolutions keep the variance through ReLUs (He et al. 2015)."""
        self.mlp.fill(part_of(views, "dense"), generator)
        for name, view in part_of(views, "convolution").items():
            if name.endswith("bias"):
                view.zero_()
            else:
                bound = math.sqrt(6 / math.prod(view.shape[1:]))
                view.uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class ImageEncoder(Convolutions):
    """Three convolutions with ReLU, then a perceptron or, with `spatial`, positions of features.

    Kernels are about twice their stride, so that windows overlap evenly, and padded so that each
    layer divides the side by its stride. A spatial encoder computes the mean position of every
    feature under a softmax over the image, and an affine map from these positions to the outputs.

    Source of spatial features: Finn et al. 2016, section IV-B.

    Attributes:
        shape: `(H, W, C)` of an image.
        channels: Width of each convolution.
        hidden: Widths of the perceptron's hidden layers.
        outputs: Width of the output.
        spatial: Whether positions of features are encoded, `hidden` unused.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    spatial: bool = False

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution, from the image inwards."""
        return FINE_STRIDES if self.spatial else super().strides

    @cached_property
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
        # A permuted view: the memory stays channels-last, the fastest layout on a CPU.
        y = x.permute(0, 3, 1, 2)
        last = len(self.strides) - 1
        for i, stride in enumerate(self.strides):
            weight, bias = p[f"convolution.{i}.weight"], p[f"convolution.{i}.bias"]
            padding = (weight.shape[-1] - stride) // 2
            y = F.conv2d(y, weight, bias, stride=stride, padding=padding)
            if i < last or not self.spatial:
                y = F.relu(y)
        flat = mean_positions(y) if self.spatial else y.permute(0, 2, 3, 1).flatten(1)
        return mlp(vector[self.size - mlp.size :], [flat])[0]


def mean_positions(features: Tensor) -> Tensor:
    """Positions of features, `(B, C, H, W) -> (B, 2 C)`: column, then row, from -1 to 1."""
    height, width = features.shape[2:]
    share = features.flatten(2).softmax(2).view(features.shape)
    column = torch.linspace(-1, 1, width, device=features.device)
    row = torch.linspace(-1, 1, height, device=features.device)
    return torch.cat([share.sum(2) @ column, share.sum(3) @ row], dim=1)


@dataclass(frozen=True)
class ImageDecoder(Convolutions):
    """The encoder's mirror: a perceptron, then three convolutions that enlarge.

    Each computes all pixels of a stride as channels, then rearranges them (Shi et al. 2016):
    several times faster than a transposed convolution on a CPU, without checkerboard artefacts.

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

    @cached_property
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


class EncoderDecoder(ParametricLatent):
    """A model with an encoder and a decoder network, one after the other in the flat vector."""

    hidden: tuple[int, ...]
    channels: tuple[int, ...]
    spatial: bool

    encoded: ClassVar[int] = 1  # the encoder's outputs per dimension

    @property
    def affine(self) -> bool:
        """Whether the networks are one affine map each."""
        return False

    @cached_property
    def encoder(self) -> Dense | ImageEncoder:
        """From `(B, *shape)` to `(B, encoded * D)`."""
        outputs = self.encoded * self.dims
        if self.of_images and not self.affine:
            return ImageEncoder(self.shape, self.channels, self.hidden, outputs, self.spatial)
        return Dense(self.shape, () if self.affine else self.hidden, (outputs,))

    @cached_property
    def decoder(self) -> Dense | ImageDecoder:
        """From `(B, D)` to `(B, *shape)`, unbounded."""
        if self.of_images and not self.affine:
            return ImageDecoder(self.shape, self.channels, self.hidden, self.dims)
        return Dense((self.dims,), () if self.affine else self.hidden[::-1], self.shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        parts = {"encoder": self.encoder.shapes(), "decoder": self.decoder.shapes()}
        return {
            f"{part}.{name}": shape
            for part, named in parts.items()
            for name, shape in named.items()
        }

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values of both networks."""
        self.encoder.fill(part_of(views, "encoder"), generator)
        self.decoder.fill(part_of(views, "decoder"), generator)

    def _encoded(self, vector: Tensor, x: Tensor) -> Tensor:
        return self.encoder(vector[: self.encoder.size], x)

    def _decoded(self, vector: Tensor, z: Tensor) -> Tensor:
        start, decoder = self.encoder.size, self.decoder
        return decoder(vector[start : start + decoder.size], z)

    def _require_networks(self) -> None:
        self._require_dims_and_shape()
        require_widths(self, "hidden", "channels")
        require(self, "channels", len(self.channels) == 3, "three widths, one per convolution")
        require_flag(self, "spatial")
        if self.of_images and not self.affine:
            require_image(type(self).__name__, self.shape)


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a tensor's shape, drawn on the generator's device."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)


def squared_error(y: Tensor, x: Tensor) -> Tensor:
    """Squared differences, summed over each row: `(B, ...), (B, ...) -> (B,)`."""
    return (y - x).square().flatten(1).sum(1)
