"""A latent model with its parameters, as agents use, fit, save and load it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.io.foreign import built_from
from rlkit.latents.contract import LATENTS, Decoder, LatentModel, Metrics
from rlkit.latents.frames import moments, require_frames
from rlkit.latents.networks import Frames, as_tensor, require_shape
from rlkit.networks import adam_state
from rlkit.networks.files import fill_views, read_model, write_model
from rlkit.networks.fit import descend

CHUNK = 256  # frames that pass through a network at a time; more do not stay in the cache


class FittedLatent:
    """A latent model, its parameters and their version.

    Vectors are standardised by the mean and deviation of the frames of the last fit, so that a
    model reads numbers around 1. Agents read the mean of a latent, never a sample.

    Args:
        model: Configured, with a shape.
        generator: Source of the first parameters.
        device: Of the parameters and all computation.

    Attributes:
        model: The pure function.
        version: Number of fits; latents of different versions cannot be compared.
        steps: Gradient steps taken so far.
        shift: What is subtracted from vectors `(F,)`; empty for images.
        scale: What they are then multiplied by `(F,)`; empty for images.

    Raises:
        ValueError: If the model has no shape.
    """

    def __init__(
        self, model: LatentModel, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        if not model.shape:
            raise ValueError(
                f"{type(model).__name__} has no shape of observations yet: use "
                f"model.with_shape(space.shape)"
            )
        self.model = model
        self.device = torch.device(device)
        self.version = 0
        self.steps = 0
        width = model.shape[0] if len(model.shape) == 1 else 0
        self.shift = torch.zeros(width, device=self.device)
        self.scale = torch.ones(width, device=self.device)
        vector = model.initial_parameters(generator).to(self.device)
        self._state = adam_state("vector", vector)

    @property
    def vector(self) -> Tensor:
        """The parameters `(size,)`; a new tensor after each fit."""
        return self._state["vector"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.model.shape

    @property
    def dims(self) -> int:
        """D, the width of a latent."""
        return self.model.dims

    @property
    def decodes(self) -> bool:
        """Whether the model has a decoder."""
        return isinstance(self.model, Decoder)

    @property
    def reads_next(self) -> bool:
        """Whether the model's loss compares neighbours in time."""
        return bool(getattr(self.model, "reads_next", False))

    @overload
    def encode(self, x: Tensor) -> Tensor: ...

    @overload
    def encode(self, x: NDArray[Any]) -> NDArray[np.float32]: ...

    def encode(self, x: Frames) -> Tensor | NDArray[np.float32]:
        """Mean latents `(..., D)` float32 of observations `(..., *shape)`, without gradient.

        Args:
            x: Bytes, or floats that are finite and in [0, 1] for images; an array gives an array,
                a tensor a tensor on this latent's device.

        Raises:
            ValueError: If observations have another shape, or non-finite numbers.
        """
        z = self._mapped(lambda rows: self._posterior(rows)[0], x, self.shape, "observations")
        return z if isinstance(x, Tensor) else z.cpu().numpy()

    def posterior(self, x: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation `(..., D)` of the latents of observations `(..., *shape)`."""

        def both(rows: Frames) -> Tensor:
            return torch.stack(self._posterior(rows), -1)

        mean, scale = self._mapped(both, x, self.shape, "observations").cpu().unbind(-1)
        return mean.numpy(), scale.numpy()

    @overload
    def decode(self, z: Tensor) -> Tensor: ...

    @overload
    def decode(self, z: NDArray[Any]) -> NDArray[np.float32]: ...

    def decode(self, z: Frames) -> Tensor | NDArray[np.float32]:
        """Observations `(..., *shape)` float32 of latents `(..., D)`, images in [0, 1].

        Raises:
            ValueError: If latents have another width, or the model has no decoder.
        """
        x = self._mapped(self._decoded, z, (self.dims,), "latents")
        return x if isinstance(z, Tensor) else x.cpu().numpy()

    def fit(
        self,
        frames: Frames,
        *,
        steps: int,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        generator: torch.Generator,
        next_rows: NDArray[np.integer[Any]] | None = None,
    ) -> Iterator[Metrics]:
        """Fits the model to frames, or goes on fitting it; a model with a `solve` by that, at once.

        The parameters and the version change after the last step: a fit that is stopped earlier
        changes nothing.

        Args:
            frames: `(N, *shape)`; an array, a tensor or a memory map. Batches are drawn from it
                with replacement.
            steps: Gradient steps, >= 1.
            batch_size: Frames per step, >= 1.
            learning_rate: Adam's, > 0.
            generator: Source of batches and of the model's randomness; on the CPU.
            next_rows: Row of a later frame of the same episode for each `(N,)`, -1 where there is
                none; needed by models that read it, ignored by others.

        Returns:
            An iterator over the steps' metrics; it does the work.

        Raises:
            ValueError: At once if the frames have another shape, are all the same or hold
                non-finite numbers, or `next_rows` is missing; later if the loss is not finite.
        """
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {learning_rate}")
        require_frames(frames, self.shape)
        solve: Callable[[Any], Tensor] | None = getattr(self.model, "solve", None)
        if solve is not None:
            return self._solve(solve, frames, min(batch_size, len(frames)), generator)
        rows = _Rows.of(self, len(frames), next_rows)
        return self._descend(frames, rows, steps, batch_size, learning_rate, generator)

    def _solve(
        self,
        solve: Callable[[Any], Tensor],
        frames: Frames,
        batch_size: int,
        generator: torch.Generator,
    ) -> Iterator[Metrics]:
        shift, scale = self._standard(frames)
        standardised = frames
        if self._of_vectors:
            standardised = self._standardised(self._rows(frames[:]), shift, scale)
        vector = solve(standardised).to(self.device)
        rows = torch.randint(len(frames), (batch_size,), generator=generator).numpy()
        x = self._standardised(self._rows(frames[rows]), shift, scale)
        loss, metrics = self.model.loss(vector, x, generator, self.steps)
        yield metrics | {"loss": loss.detach()}
        self._publish(adam_state("vector", vector), shift, scale, 1)

    def _descend(
        self,
        frames: Frames,
        rows: _Rows,
        steps: int,
        batch_size: int,
        learning_rate: float,
        generator: torch.Generator,
    ) -> Iterator[Metrics]:
        shift, scale = self._standard(frames)
        state = dict(self._state)

        def batch() -> list[Tensor]:
            parts = rows.draw(batch_size, generator)
            return [self._standardised(self._rows(frames[part]), shift, scale) for part in parts]

        yield from descend(
            state,
            lambda vector, x, step: self.model.loss(vector, x[0], generator, step, *x[1:]),
            (batch() for _ in range(steps)),
            model=self.model,
            learning_rate=learning_rate,
            start=self.steps,
        )
        self._publish(state, shift, scale, steps)

    def _publish(self, state: dict[str, Tensor], shift: Tensor, scale: Tensor, steps: int) -> None:
        self._state, self.shift, self.scale = state, shift, scale
        self.steps += steps
        self.version += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on fitting exactly, as plain data and tensors on the CPU."""
        tensors = {"shift": self.shift, "scale": self.scale, **self._state}
        return {
            "model": LATENTS.describe(self.model),
            "shape": list(self.shape),
            "version": self.version,
            "steps": self.steps,
            **{name: value.detach().cpu().clone() for name, value in tensors.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`.

        Raises:
            ValueError: If it is of another model or shape; nothing is changed then.
        """
        ours = {"model": LATENTS.describe(self.model), "shape": list(self.shape)}
        for name, setting in ours.items():
            if state[name] != setting:
                raise ValueError(
                    f"the saved latent has {name} {state[name]}, this one has {setting}; make this "
                    f"one like it, or fit it anew"
                )
        tensors = {"shift": self.shift, "scale": self.scale, **self._state}
        for name, value in tensors.items():
            if state[name].shape != value.shape:
                raise ValueError(
                    f"the saved latent's {name} has shape {tuple(state[name].shape)}, this one's "
                    f"{tuple(value.shape)}"
                )
        loaded = {name: state[name].to(self.device, copy=True) for name in tensors}
        self.shift, self.scale = loaded.pop("shift"), loaded.pop("scale")
        self._state = loaded
        self.version, self.steps = int(state["version"]), int(state["steps"])

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | str = "cpu") -> FittedLatent:
        """A latent like the one whose `state_dict` this is.

        Raises:
            ValueError: If the state names no model, or does not fit the one that it names.
        """
        model = LATENTS.make(state["model"])
        shaped = model.with_shape(tuple(state["shape"]))
        latent = cls(shaped, torch.Generator().manual_seed(0), device)
        latent.load_state_dict(state)
        return latent

    def save(self, folder: Path | str) -> None:
        """Writes weights, facts and a manifest into a folder of their own, all or none.

        Raises:
            ValueError: If the folder holds anything else.
        """
        write_model(Path(folder), "latent", self.state_dict(), self.model.views(self.vector.cpu()))

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        shape: tuple[int, ...] | None = None,
        trust: bool = False,
    ) -> FittedLatent:
        """A latent from a folder that `save` wrote.

        Args:
            folder: The folder.
            device: Of the parameters.
            shape: Of the observations to encode; None takes the folder's.
            trust: Whether the folder may name any class, which is then imported; otherwise only
                installed latent models.

        Raises:
            UntrustedError: If it names another class and is not trusted.
            ValueError: If there is no latent, it is damaged, or it is for another shape.
        """
        state, named = read_model(Path(folder), "latent", trust=trust)
        with built_from(named, folder):
            saved = tuple(state["shape"])
            model = LATENTS.make(state["model"]).with_shape(saved)
        if shape is not None and saved != tuple(shape):
            raise ValueError(
                f"the latent in {folder} encodes observations of shape {saved}, these have shape "
                f"{tuple(shape)}; fit one to them, or use an environment with images like these"
            )
        with built_from(named, folder):
            latent = cls(model, torch.Generator().manual_seed(0), device)
            vector = torch.empty(latent.model.size)
            fill_views(latent.model.views(vector), named, Path(folder))
            latent.load_state_dict({**state, "vector": vector})
        return latent

    def _posterior(self, rows: Frames) -> tuple[Tensor, Tensor]:
        x = self._standardised(self._rows(rows), self.shift, self.scale)
        return self.model.encode(self.vector, x)

    def _decoded(self, z: Frames) -> Tensor:
        if not isinstance(self.model, Decoder):
            raise ValueError(
                f"{type(self.model).__name__} has no decoder; use a model with decode, such as vae"
            )
        y = self.model.decode(self.vector, as_tensor(z, images=False).to(self.device))
        return y / self.scale + self.shift if self._of_vectors else y

    @property
    def _of_vectors(self) -> bool:
        return len(self.shape) == 1

    def _standardised(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return (x - shift) * scale if self._of_vectors else x

    def _standard(self, frames: Frames) -> tuple[Tensor, Tensor]:
        if not self._of_vectors:
            return self.shift, self.scale
        shift, scale = moments(frames)
        return shift.to(self.device), scale.to(self.device)

    def _rows(self, x: Frames) -> Tensor:
        return as_tensor(x, images=len(self.shape) == 3).to(self.device)

    @torch.no_grad()
    def _mapped(
        self,
        function: Callable[[Frames], Tensor],
        x: Frames,
        shape: tuple[int, ...],
        what: str,
    ) -> Tensor:
        """A function of rows `(B, *shape)`, chunk by chunk over any leading axes."""
        require_shape(x, shape, what)
        lead = x.shape[: x.ndim - len(shape)]
        flat = x.reshape(-1, *shape)
        if len(flat) == 0:
            y = function(torch.zeros(1, *shape))[:0]
        else:
            starts = range(0, len(flat), CHUNK)
            y = torch.cat([function(flat[start : start + CHUNK]) for start in starts])
        return y.reshape(*lead, *y.shape[1:])


class _Rows(NamedTuple):
    """The rows of frames that batches are drawn from.

    Attributes:
        number: How many frames there are.
        pairs: Rows with a successor, and the successors, `(2, M)`; None for models that read one
            frame at a time.
    """

    number: int
    pairs: NDArray[np.integer[Any]] | None

    @classmethod
    def of(
        cls, latent: FittedLatent, number: int, next_rows: NDArray[np.integer[Any]] | None
    ) -> _Rows:
        """Those that a model reads; raises a ValueError if it lacks its successors."""
        if not latent.reads_next:
            return cls(number, None)
        if next_rows is None or len(next_rows) != number or not (next_rows >= 0).any():
            raise ValueError(
                f"{type(latent.model).__name__} reads pairs of frames that follow each other: give "
                f"next_rows, the row of the frame after each of the {number} frames or -1"
            )
        first = np.flatnonzero(next_rows >= 0)
        return cls(number, np.stack([first, next_rows[first]]))

    def draw(self, count: int, generator: torch.Generator) -> list[NDArray[np.integer[Any]]]:
        """Rows `(count,)`, with replacement, and those of their successors where there are any."""
        if self.pairs is None:
            return [torch.randint(self.number, (count,), generator=generator).numpy()]
        drawn = torch.randint(self.pairs.shape[1], (count,), generator=generator).numpy()
        return list(self.pairs[:, drawn])
