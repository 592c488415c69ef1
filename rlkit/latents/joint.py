"""A latent model that is trained together with the agent, by the critic's loss and reconstruction.

Source: Yarats et al. 2021, "Improving Sample Efficiency in Model-Free Reinforcement Learning from
Images", section 4. The actor's loss never reaches the encoder, and latents are deterministic: both
are what made training from images stable there. Deviations: one optimiser step for both losses
instead of one for each, and targets read the current latents (Yarats et al. 2022) instead of those
of a slowly updated copy of the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlkit.latents.autoencoder import Autoencoder
from rlkit.latents.contract import LATENTS
from rlkit.networks import adam_state
from rlkit.networks.gradient import Loss, Metrics, State

CHUNK = 256  # images that pass through a network at a time; more do not stay in the cache


@dataclass(frozen=True)
class JointLatent:
    """The latent model that a learner trains, and where images are in the learner's vectors.

    Observations and goals reach the learner as vectors that contain the flattened images, in
    [0, 1]. Its networks read latents in place of the images.

    Attributes:
        model: The autoencoder, with its shape.
        start: Where the image begins in an observation's vector.
        of_goals: Whether goals are images, too; their vectors hold nothing else then.
        one_goal: Whether a window has one goal throughout.
        burn_in: Records at a window's start that are not learned from.
        reconstruction: Weight of the reconstruction beside the critic's loss; with 0 nothing is
            decoded.
    """

    model: Autoencoder
    start: int
    of_goals: bool
    one_goal: bool = False
    burn_in: int = 0
    reconstruction: float = 1.0

    @property
    def width(self) -> int:
        """Numbers in an image."""
        return math.prod(self.model.shape)

    def widths(self, observation: int, goal: int) -> tuple[int, int]:
        """Widths that networks read, of observations and goals of these widths."""
        encoded = observation - self.width + self.model.dims
        return encoded, self.model.dims if self.of_goals else goal

    def initial_state(self, generator: torch.Generator) -> State:
        """Fresh parameters under the name `latent`, with the optimiser's moments."""
        return adam_state("latent", self.model.initial_parameters(generator))

    @torch.no_grad()
    def encode(self, state: State, batch: State) -> State:
        """Observations `(..., F)` and goals `(..., G)` with latents in place of images."""
        vector = state["latent"]
        found = {**batch, "observation": self._encoded(vector, batch["observation"], self.start)}
        if self.of_goals:
            found["goal"] = self._encoded(vector, batch["goal"], 0)
        return found

    def before(self, update: Callable[..., tuple[State, Metrics]]) -> Callable[..., Any]:
        """An update function that encodes its batch once, then calls another one."""

        def encode_and_update(state: State, batch: State, *rest: Any) -> tuple[State, Metrics]:
            return update(state, self.encode_to_learn(state, batch), *rest)

        return encode_and_update

    @torch.enable_grad()
    def encode_to_learn(self, state: State, batch: State) -> State:
        """A batch with latents; those that the critic's loss reads have a gradient to the model.

        Args:
            state: The learner's tensors.
            batch: As `Learner.update` takes it, as tensors.

        Returns:
            The batch, with the model's vector under `latent` and, where it has a weight, the mean
            reconstruction error of the steps that are learned from under `reconstruction`.
        """
        x, goal, mask = batch["observation"], batch["goal"], batch["mask"]
        vector = state["latent"].detach().requires_grad_()
        part, found = slice(self.burn_in, mask.shape[1]), {**batch, "latent": vector}
        found["observation"] = self._partly_trained(vector, x, self.start, part)
        if self.of_goals and self.one_goal:
            one = self._partly_trained(vector, goal[:, :1], 0, slice(0, 1))
            found["goal"] = one.expand(-1, goal.shape[1], -1)
        elif self.of_goals:
            found["goal"] = self._partly_trained(vector, goal, 0, part)
        if self.reconstruction > 0:
            z = found["observation"][:, part, self.start : self.start + self.model.dims]
            found["reconstruction"] = self._error(vector, z, x[:, part], mask[:, part])
        return found

    def gradient(self, loss: Loss, vector: Tensor, batch: State) -> tuple[Tensor, Tensor, Metrics]:
        """Gradients of a critic's loss and of the reconstruction, in one pass.

        Args:
            loss: The critic's, of latents from `encode_to_learn`.
            vector: The critic's parameters; if they require a gradient, the graph behind them is
                kept, as in `rlkit.networks.gradient`.
            batch: From `encode_to_learn`.

        Returns:
            The gradient at the critic's vector, that at the model's, and metrics.
        """
        kept = vector.requires_grad
        leaf = vector if kept else vector.detach().requires_grad_()
        with torch.enable_grad():
            value, metrics = loss(leaf)
            if "reconstruction" in batch:
                value = value + self.reconstruction * batch["reconstruction"]
                metrics = {**metrics, "reconstruction": batch["reconstruction"]}
        grad, of_model = torch.autograd.grad(value, (leaf, batch["latent"]), retain_graph=kept)
        metrics = {name: metric.detach() for name, metric in metrics.items()}
        return grad, of_model, metrics | {"latent_grad_norm": of_model.norm()}

    def _partly_trained(self, vector: Tensor, x: Tensor, start: int, part: slice) -> Tensor:
        """Encoded vectors `(B, L, F)`; only those of `part` have a gradient to the model."""
        parts = [x[:, : part.start], x[:, part], x[:, part.stop :]]
        sources = vector.detach(), vector, vector.detach()
        found = [
            self._encoded(source, some, start)
            for source, some in zip(sources, parts, strict=True)
            if some.shape[1] > 0
        ]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _encoded(self, vector: Tensor, x: Tensor, start: int) -> Tensor:
        """Vectors `(..., F)` with the latent of the image in its place."""
        lead, stop = x.shape[:-1], start + self.width
        images = self._images(x, start)
        chunks = [self.model.encode(vector, chunk)[0] for chunk in torch.split(images, CHUNK)]
        z = (chunks[0] if len(chunks) == 1 else torch.cat(chunks)).view(*lead, -1)
        if self.width == x.shape[-1]:
            return z
        return torch.cat([x[..., :start], z, x[..., stop:]], dim=-1)

    def _images(self, x: Tensor, start: int) -> Tensor:
        """The images `(N, H, W, C)` in vectors `(..., F)`."""
        # Contiguous: convolutions of images with gaps between them take several times as long.
        images = x[..., start : start + self.width].contiguous()
        return images.view(-1, *self.model.shape)

    def _error(self, vector: Tensor, z: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of the images decoded from latents `(B, T, D)`, over valid steps."""
        weight = (mask / mask.sum()).flatten()
        rows = (z.flatten(0, 1), self._images(x, self.start), weight)
        parts = zip(*(torch.split(row, CHUNK) for row in rows), strict=True)
        errors = [(self.model.errors(vector, z, x) * share).sum() for z, x, share in parts]
        return torch.stack(errors).sum()


def require_joint(model: Any, reward_source: str, shape: tuple[int, ...]) -> Autoencoder:
    """The model, if it can be trained together with an agent.

    Raises:
        ValueError: If it cannot, or the latent is the reward source, or there are no images.
    """
    if model is None:
        raise ValueError(
            'joint = True needs a latent model to train; set latent = "autoencoder", or joint = '
            "False"
        )
    if not isinstance(model, Autoencoder) or model.noise > 0:
        raise ValueError(
            f"joint = True needs an autoencoder without noise, which latent = "
            f'{LATENTS.describe(model)} is not; set latent = "autoencoder", or joint = False to '
            f"fit it before the training"
        )
    if reward_source == "latent":
        raise ValueError(
            'reward_source = "latent" does not go with joint = True, which changes latents and '
            'their distances with every update; set reward_source = "environment", or joint = False'
        )
    if len(shape) != 3:
        raise ValueError(
            f"joint = True needs images, and observations have shape {shape}; set joint = False"
        )
    return model.with_shape(shape)
