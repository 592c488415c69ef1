"""A latent model that learns together with the agent, by the critic's loss and by reconstruction.

Source: Yarats et al. 2021, "Improving Sample Efficiency in Model-Free Reinforcement Learning from
Images", section 4. The actor's loss never reaches the encoder, and codes are deterministic: both
are what made training from pictures stable there. Deviations: one step of Adam for both losses
instead of one for each, and targets read the present codes (Yarats et al. 2022) instead of those
of a slowly following encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.latents import LATENTS, Autoencoder
from rlkit.networks import adam_state
from rlkit.networks.gradient import Loss, Metrics, State
from rlkit.offpolicy.settings import LearnerConfig, Sizes

if TYPE_CHECKING:
    from rlkit.offpolicy.spaces import SpaceAdapter

CHUNK = 256  # pictures that pass through a network at a time; more do not stay in the cache


@dataclass(frozen=True)
class JointLatent:
    """The latent model of a learner, which trains it, and where its pictures are.

    Observations and goals reach the learner as vectors; pictures lie flattened in them, in [0, 1].
    Its networks read codes in their place.

    Attributes:
        model: The autoencoder, with its shape.
        start: Where the picture begins in an observation's vector.
        of_goals: Whether goals are pictures, too; nothing else is in their vector then.
        one_goal: Whether a window has one goal throughout.
        warm: Records at a window's start that nothing is learned from.
        reconstruction: Weight of the reconstruction beside the critic's loss; with 0 nothing is
            decoded.
    """

    model: Autoencoder
    start: int
    of_goals: bool
    one_goal: bool = False
    warm: int = 0
    reconstruction: float = 1.0

    @property
    def width(self) -> int:
        """Numbers in a picture."""
        return math.prod(self.model.shape)

    def sizes(self, sizes: Sizes) -> Sizes:
        """Widths of what networks read, of those that come in."""
        observation = sizes.observation - self.width + self.model.dims
        goal = self.model.dims if self.of_goals else sizes.goal
        return Sizes(observation, goal, sizes.action)

    def initial_state(self, generator: torch.Generator) -> State:
        """A fresh model under the name `latent`, with Adam's moments."""
        return adam_state("latent", self.model.initial_parameters(generator))

    @torch.no_grad()
    def see(self, state: State, seen: State) -> State:
        """Observations `(..., F)` and goals `(..., G)` with codes in the place of pictures."""
        vector = state["latent"]
        found = {**seen, "observation": self._with_codes(vector, seen["observation"], self.start)}
        if self.of_goals:
            found["goal"] = self._with_codes(vector, seen["goal"], 0)
        return found

    def before(self, update: Callable[..., tuple[State, Metrics]]) -> Callable[..., Any]:
        """An update function of codes as one of pictures, which are encoded once."""

        def update_seeing(state: State, batch: State, *rest: Any) -> tuple[State, Metrics]:
            return update(state, self.see_to_learn(state, batch), *rest)

        return update_seeing

    @torch.enable_grad()
    def see_to_learn(self, state: State, batch: State) -> State:
        """A batch with codes whose gradient leads to the model, where the critic's loss reads them.

        Args:
            state: The learner's tensors.
            batch: As `Learner.update` takes it, as tensors.

        Returns:
            The batch, with the model's vector under `latent` and, where it counts, the mean error
            of observations that are learned from under `reconstruction`.
        """
        x, goal, mask = batch["observation"], batch["goal"], batch["mask"]
        vector = state["latent"].detach().requires_grad_()
        part, found = slice(self.warm, mask.shape[1]), {**batch, "latent": vector}
        found["observation"] = self._learnt_codes(vector, x, self.start, part)
        if self.of_goals and self.one_goal:
            code = self._learnt_codes(vector, goal[:, :1], 0, slice(0, 1))
            found["goal"] = code.expand(-1, goal.shape[1], -1)
        elif self.of_goals:
            found["goal"] = self._learnt_codes(vector, goal, 0, part)
        if self.reconstruction > 0:
            codes = found["observation"][:, part, self.start : self.start + self.model.dims]
            found["reconstruction"] = self._error(vector, codes, x[:, part], mask[:, part])
        return found

    def gradient(self, loss: Loss, vector: Tensor, batch: State) -> tuple[Tensor, Tensor, Metrics]:
        """Gradients of a critic's loss and of the reconstruction, in one pass.

        Args:
            loss: The critic's, of codes that `see_to_learn` gave.
            vector: The critic's parameters; if they require a gradient, the graph behind them is
                kept, as in `rlkit.networks.gradient`.
            batch: What `see_to_learn` gave.

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
        grad, pull = torch.autograd.grad(value, (leaf, batch["latent"]), retain_graph=kept)
        metrics = {name: metric.detach() for name, metric in metrics.items()}
        return grad, pull, metrics | {"latent_grad_norm": pull.norm()}

    def _learnt_codes(self, vector: Tensor, x: Tensor, start: int, part: slice) -> Tensor:
        """Vectors `(B, L, F)` with codes; only those of `part` lead back to the model."""
        parts = [x[:, : part.start], x[:, part], x[:, part.stop :]]
        sources = vector.detach(), vector, vector.detach()
        found = [
            self._with_codes(source, some, start)
            for source, some in zip(sources, parts, strict=True)
            if some.shape[1] > 0
        ]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _with_codes(self, vector: Tensor, x: Tensor, start: int) -> Tensor:
        """Vectors `(..., F)` with the code of the picture in its place."""
        lead, stop = x.shape[:-1], start + self.width
        pictures = self._pictures(x, start)
        chunks = [self.model.encode(vector, chunk)[0] for chunk in torch.split(pictures, CHUNK)]
        codes = (chunks[0] if len(chunks) == 1 else torch.cat(chunks)).view(*lead, -1)
        if self.width == x.shape[-1]:
            return codes
        return torch.cat([x[..., :start], codes, x[..., stop:]], dim=-1)

    def _pictures(self, x: Tensor, start: int) -> Tensor:
        """The pictures `(N, H, W, C)` in vectors `(..., F)`."""
        # Convolutions of gaps between pictures take several times as long as closing them here.
        pictures = x[..., start : start + self.width].contiguous()
        return pictures.view(-1, *self.model.shape)

    def _error(self, vector: Tensor, codes: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of what codes `(B, T, D)` are decoded to, over valid steps."""
        weight = (mask / mask.sum()).flatten()
        rows = (codes.flatten(0, 1), self._pictures(x, self.start), weight)
        parts = zip(*(torch.split(row, CHUNK) for row in rows), strict=True)
        errors = [(self.model.errors(vector, z, x) * share).sum() for z, x, share in parts]
        return torch.stack(errors).sum()


def joint_latent(
    model: Autoencoder | None, adapter: SpaceAdapter, config: LearnerConfig
) -> JointLatent | None:
    """What a learner needs to train a latent model; None for none."""
    if model is None:
        return None
    goal = adapter.layout.goal
    return JointLatent(
        model,
        adapter.layout.slices["observation"].start,
        of_goals=goal is not None and goal.shape == model.shape,
        one_goal=config.is_recurrent and config.goal_mode == "early",
        warm=config.burn_in if config.is_recurrent else 0,
        reconstruction=config.reconstruction,
    )


def require_joint(model: Any, judge: str, shape: tuple[int, ...]) -> Autoencoder:
    """The model, if it can be trained together with an agent.

    Raises:
        ValueError: If it cannot, or the latent was to judge goals, or there are no pictures.
    """
    if model is None:
        raise ValueError(
            'joint = True needs a latent model to train; set latent = "autoencoder", or joint = '
            "False"
        )
    if not isinstance(model, Autoencoder) or model.noise > 0:
        raise ValueError(
            f"joint = True needs a model without chance in its codes, which "
            f'latent = {LATENTS.describe(model)} is not; set latent = "autoencoder", or joint = '
            f"False to fit it before the training"
        )
    if judge == "latent":
        raise ValueError(
            'reward_source = "latent" does not go with joint = True, where codes and their '
            "distances "
            'change with every update; set reward_source = "environment", or joint = False'
        )
    if len(shape) != 3:
        raise ValueError(
            f"joint = True needs pictures, and observations have shape {shape}; set joint = False"
        )
    return model.with_shape(shape)
