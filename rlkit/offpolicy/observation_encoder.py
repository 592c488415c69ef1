"""Latents in place of images, for an agent with a latent model.

Latents of a frozen model are computed once, where observations come in: replay buffer, encoders and
networks hold vectors. Where the model is fitted again during training, the replay buffer stores
images and reads them through the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim
from numpy.typing import NDArray

from rlkit.goals import (
    GoalRule,
    ImageGoalRule,
    LatentDistanceRule,
    LatentGoalRule,
    is_goal_space,
    is_image_space,
    require_image_rule,
)
from rlkit.latents import LATENTS, FittedLatent
from rlkit.latents.joint import require_joint
from rlkit.latents.pretraining import Pretraining, pretraining_of
from rlkit.offpolicy.spaces import ObservationEncoder, rule_of
from rlkit.replay import LatentEncoder

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

Array = NDArray[Any]
OBSERVED, ACHIEVED, DESIRED = "observation", "achieved_goal", "desired_goal"


class LatentObservationEncoder(ObservationEncoder):
    """Replaces the images in raw observations by latents; see `ObservationEncoder`.

    Images under `observation` and `achieved_goal` (which are the same) and `desired_goal` become
    latents. In goals these are followed by what the rule reads: see `LatentGoalRule`. Where the
    model is fitted again during training, the replay buffer stores images and reads them through
    this object.

    Args:
        space: Space of one environment's raw observation.
        rule: The environment's goal rule; None without goals, or without an environment.
        model: The latent model.
        pretraining: How it is fitted.
        seed: Of the model's parameters, and of everything random in its pretraining.
        device: Where latents are computed.
        reward_source: Where rewards come from in training: the "environment", or the "latent"
            model by the distance of latents (Nair et al. 2018).

    Raises:
        ValueError: If there are no images, or of several shapes, or the rule cannot evaluate goals.
    """

    latent: FittedLatent

    def __init__(
        self,
        space: spaces.Space[Any],
        rule: GoalRule | None,
        model: Any,
        pretraining: Pretraining,
        seed: np.random.SeedSequence,
        device: torch.device | str,
        reward_source: str = "environment",
    ) -> None:
        self._seeds = [int(part) % 2**31 for part in seed.generate_state(3)]
        self.pretraining = pretraining
        self._images = images_of(space)
        generator = torch.Generator().manual_seed(self._seeds[0])
        shaped = model.with_shape(common_shape(self._images))
        self.latent = FittedLatent(shaped, generator, device)
        self.latent_rule = LatentDistanceRule() if reward_source == "latent" else None
        if self.latent_rule is not None and DESIRED not in self._images:
            raise ValueError(
                'reward_source = "latent" needs a latent model and goals that are images; set '
                'latent, or reward_source = "environment"'
            )
        super().__init__(space, rule)

    def set_rule(self, rule: GoalRule | None) -> None:
        """Takes over an environment's goal rule; `space` and `rule` follow from it.

        Raises:
            ValueError: If goals are images that the rule cannot evaluate once they are latents.
        """
        self.rule = rule
        self._image_rule: ImageGoalRule | None = None
        self.space = latent_space(self.latent.dims)
        if not isinstance(self.raw_space, spaces.Dict):
            return
        parts = {**self.raw_space.spaces, **dict.fromkeys(self._images, self.space)}
        if DESIRED in self._images:
            self.goal_width, width = self.latent.dims, 0
            if self.latent_rule is not None:
                self.rule = None if rule is None else self.latent_rule
            elif rule is not None:
                self._image_rule = require_image_rule(rule)
                width = self._image_rule.width
                self.rule = LatentGoalRule(self._image_rule.rule, self.latent.dims)
            parts |= dict.fromkeys((ACHIEVED, DESIRED), latent_space(self.latent.dims + width))
        self.space = spaces.Dict(parts)

    @property
    def is_ready(self) -> bool:  # type: ignore[override]
        """Whether the latent model has been fitted."""
        return self.latent.version > 0

    # Stored observations

    @property
    def latent_encoder(self) -> LatentEncoder | None:
        """This object, where latents do not stay valid; else None."""
        return None if self.pretraining.refresh_every == 0 else self

    def to_stored(self, observation: Any) -> Any:
        """See `ObservationEncoder.to_stored`."""
        return self.encode_observation(observation) if self.latent_encoder is None else observation

    def to_stored_one(self, observation: Any) -> Any:
        """See `ObservationEncoder.to_stored_one`."""
        if self.latent_encoder is not None:
            return observation
        if isinstance(observation, Mapping):
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
            return {key: value[0] for key, value in self.encode_observation(batch).items()}
        return self.encode_observation(np.asarray(observation)[None])[0]

    def from_stored(self, stored: Any) -> Any:
        """See `ObservationEncoder.from_stored`."""
        return stored if self.latent_encoder is None else self.encode_observation(stored)

    @property
    def version(self) -> int:
        """How often the latent model has been fitted."""
        return self.latent.version

    @property
    def widths(self) -> dict[str, int]:
        """By key of an image, the width of what replaces it."""
        parts = self.space.spaces if isinstance(self.space, spaces.Dict) else {OBSERVED: self.space}
        return {key: flatdim(parts[key]) for key in self._images}

    def encode(self, images: Array) -> Array:
        """Latents of images, followed by what the goal rule reads from them."""
        return self._goal(images, self.latent.encode(images))

    # Encoding

    def encode_observation(self, observation: Any) -> Any:
        """See `ObservationEncoder.encode_observation`."""
        if not isinstance(observation, Mapping):
            return self.latent.encode(observation)
        encoded = {key: observation[key] for key in observation if key not in self._images}
        encoded[OBSERVED] = self.latent.encode(observation[OBSERVED])
        if DESIRED in self._images:
            # The achieved goal is the observation: one image, one latent.
            encoded[ACHIEVED] = self._goal(observation[ACHIEVED], encoded[OBSERVED])
            encoded[DESIRED] = self.encode(observation[DESIRED])
        return encoded

    def _goal(self, images: Array, latent: Array) -> Array:
        if self._image_rule is None:
            return latent
        position = np.asarray(self._image_rule.goal_vector(images), np.float32)
        return np.concatenate([latent, position], axis=1)

    def reward(self, rewards: Array, observation: Any, next_observation: Any) -> Array:
        """See `ObservationEncoder.reward`."""
        if self.latent_rule is None:
            return rewards
        desired = observation[DESIRED]
        if self.latent_encoder is not None:
            desired = self.encode(desired)
        return self.latent_rule.reward(next_observation[ACHIEVED], desired).astype(np.float32)

    def readable_goal(self, goal: Array) -> Array:
        """See `ObservationEncoder.readable_goal`."""
        if self.latent_encoder is not None and DESIRED in self._images:
            goal = self.encode(goal[None])[0]
        return goal if self._image_rule is None else goal[..., self.goal_width :]

    # Fitting; see `rlkit.offpolicy.latent_fitting`

    @property
    def is_stale(self) -> bool:  # type: ignore[override]
        """Whether the latent model is to be fitted again."""
        return self.latent_encoder is not None and self.is_ready and self.age >= self._interval

    @property
    def _interval(self) -> float:
        return self.pretraining.interval(self.version - 1)

    def mark_stale(self) -> None:
        """Makes the latent model stale at once."""
        self.age = max(self.age, math.ceil(self._interval))

    @property
    def pretraining_seeds(self) -> tuple[int, int]:
        """Of everything random in the first fit, and of the environments after it."""
        return self._seeds[1], self._seeds[2]

    @property
    def refit_seed(self) -> list[int]:
        """Of everything random in the next fit: it repeats exactly when it was interrupted."""
        return [self._seeds[1], self.version]

    def state_dict(self) -> dict[str, Any]:
        """The latent model's parameters, version and age; empty without one."""
        threshold = {} if self.latent_rule is None else {"threshold": self.latent_rule.threshold}
        aged = {} if self.latent_encoder is None else {"age": self.age}
        return {**self.latent.state_dict(), **threshold, **aged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it is of another latent model.
        """
        self.latent.load_state_dict(dict(state))
        self.age = state.get("age", 0)
        if self.latent_rule is not None:
            self.latent_rule.threshold = float(state["threshold"])


def make_observation_encoder(agent: Algorithm, seed: np.random.SeedSequence) -> ObservationEncoder:
    """The observation encoder that an agent's options describe.

    Raises:
        ValueError: If the options do not go together, or do not fit the observation space.
    """
    space, rule, options = agent.observation_space, rule_of(agent.env), agent.options
    source = options["reward_source"]
    if source not in ("environment", "latent"):
        raise ValueError(f'reward_source must be "environment" or "latent", got {source!r}')
    pretraining = pretraining_of(options["pretraining"])
    model = LATENTS.make_optional(options["latent"])
    if getattr(agent.config, "joint", False):
        images = images_of(space)
        raw = ObservationEncoder(space, rule)
        raw.joint = require_joint(model, source, common_shape(images))
        raw.goal_width = math.prod(raw.joint.shape) if DESIRED in images else None
        return raw
    if model is not None:
        device = agent.device
        return LatentObservationEncoder(space, rule, model, pretraining, seed, device, source)
    if source == "latent":
        raise ValueError(
            'reward_source = "latent" needs a latent model and goals that are images; set latent, '
            'or reward_source = "environment"'
        )
    return ObservationEncoder(space, rule)


def latent_space(width: int) -> spaces.Box:
    """The space of latents of a width."""
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def images_of(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation that become latents, by key.

    Raises:
        ValueError: If there are none, or only one of achieved and desired goals are images.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVED: space}
    found = {key: part for key, part in parts.items() if is_image_space(part)}
    if (
        not found
        and isinstance(parts.get(OBSERVED), spaces.Box)
        and len(parts[OBSERVED].shape or ()) == 1
    ):
        found = {OBSERVED: parts[OBSERVED]}  # a wide vector
    allowed = [{OBSERVED}] + ([{OBSERVED, ACHIEVED, DESIRED}] if is_goal_space(space) else [])
    if set(found) not in allowed:
        raise ValueError(
            f"a latent model needs images, uint8 of shape (height, width, channels), under "
            f"'observation', or under all of 'observation', 'achieved_goal' and 'desired_goal'; "
            f"found them under {sorted(found)} of {space}. Set latent = none, or wrap the "
            f"environment in rlkit.envs.wrappers.pixel_observation.PixelObservation"
        )
    return found


def common_shape(parts: Mapping[str, spaces.Space[Any]]) -> tuple[int, ...]:
    """The shape of all parts; raises a ValueError if they have several."""
    shapes = {key: tuple(part.shape or ()) for key, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"images of one size are needed, so that one model fits; got {shapes}")
    return next(iter(shapes.values()))
