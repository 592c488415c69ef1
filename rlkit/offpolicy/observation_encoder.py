"""What an agent sees: raw observations, or codes in the place of pictures.

Of a model that is frozen, codes are computed once, where observations come in: everything behind
it, replay, memory and networks, has vectors and never touches a picture. Where the model is fitted
again in between, the replay keeps pictures, and reads them through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from rlkit.goals import GoalRule
from rlkit.latents import LATENTS, Autoencoder, FittedLatent, Metrics, nearness
from rlkit.offpolicy.interface import rule_of
from rlkit.offpolicy.joint import require_joint
from rlkit.offpolicy.latent_goals import (
    ImageGoalRule,
    LatentDistanceRule,
    LatentGoalRule,
    require_image_rule,
)
from rlkit.offpolicy.pictures import ACHIEVED, DESIRED, SEEN, common_shape, pictures_of, vectors
from rlkit.offpolicy.pretraining import pretraining_of
from rlkit.replay import LatentEncoder

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

Array = NDArray[Any]
LOG_INTERVAL = 100  # gradient steps


class Sight:
    """Translates raw observations of one environment into what the agent works with.

    Without a latent model that is the observation itself. With one, pictures under `observation`
    and `achieved_goal` (which are the same) and `desired_goal` become latents, which
    in goals are followed by what the rule reads: see `LatentGoalRule`.

    Args:
        space: Space of one environment's raw observation.
        rule: The environment's goal rule; None without goals, or without an environment.
        latent: The latent model, as `rlkit.latents.LATENTS.make` takes it; None for none.
        pretraining: Fields of `Pretraining`.
        seed: Of the model's parameters, and of everything random in its pretraining.
        device: Where codes are computed.
        judge: Who judges goals in training: the "environment", or the "latent" by the distance of
            codes, which then is all that an agent knows of its goals (Nair et al. 2018).
        joint: Whether the learner is to train the model.

    A sight is also the `rlkit.replay.LatentEncoder` of a replay buffer that stores images.

    Attributes:
        space: Space of what the agent works with.
        age: Steps of the training since the latent model was fitted.
        joint: The model that the learner trains and encodes pictures with, which stay pictures
            here; None for none.
        rule: Judges goals in that form.
        goal_width: How much of a goal networks read; None for all.
        latent: The model and its parameters, or None.

    Raises:
        ValueError: If there are no pictures, or of several shapes, or goals cannot be judged.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        rule: GoalRule | None,
        latent: Any,
        pretraining: Mapping[str, Any] | None,
        seed: np.random.SeedSequence,
        device: torch.device | str,
        judge: str = "environment",
        joint: bool = False,
    ) -> None:
        if judge not in ("environment", "latent"):
            raise ValueError(f'reward_source must be "environment" or "latent", got {judge!r}')
        self._raw = space
        self.goal_width: int | None = None
        self.latent: FittedLatent | None = None
        self._coded: dict[str, spaces.Space[Any]] = {}
        self._seeds = [int(part) % 2**31 for part in seed.generate_state(3)]
        self.pretraining = pretraining_of(pretraining)
        self.age = 0
        model = LATENTS.make_optional(latent)
        self.joint: Autoencoder | None = None
        if joint:
            parts = pictures_of(space)
            self.joint, model = require_joint(model, judge, common_shape(parts)), None
            if DESIRED in parts:
                self.goal_width = math.prod(self.joint.shape)
        if model is not None:
            self._coded = pictures_of(space)
            generator = torch.Generator().manual_seed(self._seeds[0])
            shaped = model.with_shape(common_shape(self._coded))
            self.latent = FittedLatent(shaped, generator, device)
        self.distance = LatentDistanceRule() if judge == "latent" else None
        if self.distance is not None and DESIRED not in self._coded:
            raise ValueError(
                'reward_source = "latent" needs a latent model and goals that are pictures; set '
                'latent, or reward_source = "environment"'
            )
        self.adopt(rule)

    def adopt(self, rule: GoalRule | None) -> None:
        """Takes over an environment's goal rule; `space` and `rule` follow from it.

        Raises:
            ValueError: If goals are pictures that the rule cannot judge once they are codes.
        """
        self.space, self.rule = self._raw, rule
        self._judge: ImageGoalRule | None = None
        if self.latent is None:
            self._judge = rule if isinstance(rule, ImageGoalRule) else None
            return
        self.space = vectors(self.latent.dims)
        if not isinstance(self._raw, spaces.Dict):
            return
        parts = {**self._raw.spaces, **dict.fromkeys(self._coded, self.space)}
        if DESIRED in self._coded:
            self.goal_width, width = self.latent.dims, 0
            if self.distance is not None:
                self.rule = None if rule is None else self.distance
            elif rule is not None:
                self._judge = require_image_rule(rule)
                width = self._judge.width
                self.rule = LatentGoalRule(self._judge.rule, self.latent.dims)
            parts |= dict.fromkeys((ACHIEVED, DESIRED), vectors(self.latent.dims + width))
        self.space = spaces.Dict(parts)

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to be fitted before the training."""
        return self.latent is None or self.latent.version > 0

    # What is kept

    @property
    def latent_encoder(self) -> LatentEncoder | None:
        """What reads pictures in the replay: this, where codes do not stay valid, or nothing."""
        return None if self.latent is None or self.pretraining.refresh_every == 0 else self

    @property
    def kept(self) -> spaces.Space[Any]:
        """Space of what the agent keeps, in the replay too: pictures where there is a coder."""
        return self.space if self.latent_encoder is None else self._raw

    def keep(self, observation: Any) -> Any:
        """A batch of raw observations `(n, ...)` as the agent keeps them."""
        return self.see(observation) if self.latent_encoder is None else observation

    def keep_one(self, observation: Any) -> Any:
        """One raw observation as the agent keeps it."""
        if self.latent is None or self.latent_encoder is not None:
            return observation
        if isinstance(observation, Mapping):
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
            return {key: value[0] for key, value in self.see(batch).items()}
        return self.see(np.asarray(observation)[None])[0]

    def show(self, kept: Any) -> Any:
        """A batch of kept observations as the agent works with them."""
        return kept if self.latent_encoder is None else self.see(kept)

    @property
    def version(self) -> int:
        """How often the latent model has been fitted."""
        return 0 if self.latent is None else self.latent.version

    @property
    def widths(self) -> dict[str, int]:
        """How many numbers the pictures of an observation become, by key."""
        parts = self.space.spaces if isinstance(self.space, spaces.Dict) else {SEEN: self.space}
        return {key: flatdim(parts[key]) for key in self._coded}

    def encode(self, pictures: Array) -> Array:
        """Codes of pictures, followed by what the rule of goals reads from them."""
        return self._goal(pictures, None)

    # What is seen

    def see(self, observation: Any) -> Any:
        """A batch of raw observations `(n, ...)` as the agent works with them."""
        if self.latent is None:
            return observation
        if not isinstance(observation, Mapping):
            return self.latent.encode(observation)
        seen = {key: observation[key] for key in observation if key not in self._coded}
        seen[SEEN] = self.latent.encode(observation[SEEN])
        if DESIRED in self._coded:
            # What is achieved is what is seen: one picture, one code.
            seen[ACHIEVED] = self._goal(observation[ACHIEVED], seen[SEEN])
            seen[DESIRED] = self._goal(observation[DESIRED], None)
        return seen

    def reward(self, rewards: Array, observation: Any, following: Any) -> Array:
        """The environment's rewards `(n,)` of a step, or the latent's where that judges.

        Args:
            rewards: The environment's.
            observation: What was kept before the step.
            following: What is seen after it.
        """
        if self.distance is None:
            return rewards
        desired = (
            observation[DESIRED]
            if self.latent_encoder is None
            else self.encode(observation[DESIRED])
        )
        return self.distance.reward(following[ACHIEVED], desired).astype(np.float32)

    def judged(self, goal: Array) -> Array:
        """The part of a kept goal that means something to people: places, not codes."""
        if self.latent is None and self._judge is not None:
            return np.asarray(self._judge.goal_vector(goal[None])[0])
        if self.latent_encoder is not None and DESIRED in self._coded:
            goal = self.encode(goal[None])[0]
        return goal if self._judge is None else goal[..., self.goal_width :]

    def _goal(self, pictures: Array, code: Array | None) -> Array:
        assert self.latent is not None
        code = self.latent.encode(pictures) if code is None else code
        if self._judge is None:
            return code
        place = np.asarray(self._judge.goal_vector(pictures), np.float32)
        return np.concatenate([code, place], axis=1)

    def pretrain(self, env: VecEnv, logger: Logger) -> Iterator[int]:
        """Fits the latent model to pictures of an environment, which is left to be reset.

        Nothing random in it depends on what was drawn before, so that a training that is stopped
        in the middle begins it again in the same way.

        Returns:
            An iterator over the gradient steps; it does the work.

        Raises:
            ValueError: If all pictures are the same.
        """
        plan = self.pretraining
        frames, near = self._gather(env)
        env.seed(self._seeds[2])
        for step, metrics in enumerate(self._fit(frames, near, plan.steps, self._seeds[1], logger)):
            if step % LOG_INTERVAL == 0:
                _record(logger, metrics)
                logger.dump(step)
            yield step
        if self.distance is not None:
            logger.dump(plan.steps)

    @property
    def is_stale(self) -> bool:
        """Whether the latent model is to be fitted again."""
        return self.latent_encoder is not None and self.is_ready and self.age >= self._interval

    @property
    def _interval(self) -> float:
        return self.pretraining.interval(self.version - 1)

    def expire(self) -> None:
        """Makes the latent model stale at once."""
        self.age = max(self.age, math.ceil(self._interval))

    @property
    def refit_seed(self) -> list[int]:
        """Of everything random in the next fit, so that one that is stopped begins again alike."""
        return [self._seeds[1], self.version]

    def refit(self, frames: Array, near: Array, logger: Logger) -> Iterator[None]:
        """Goes on fitting the latent model: from the end on, codes are of a new version.

        Args:
            frames: Pictures `(N, ...)`.
            near: Which of them are near each other, `(M, 2)`; only where the latent judges goals.
            logger: What is told how it went.

        Returns:
            An iterator over the gradient steps; it does the work.

        Raises:
            ValueError: If all pictures are the same.
        """
        seed = int(np.random.SeedSequence(self.refit_seed).generate_state(1)[0])
        last: Metrics = {}
        for metrics in self._fit(frames, near, self.pretraining.refresh_steps, seed, logger):
            last = metrics
            yield
        _record(logger, last)
        logger.record("latent/version", self.version)

    def _fit(
        self, frames: Array, near: Array, steps: int, seed: int, logger: Logger
    ) -> Iterator[Metrics]:
        assert self.latent is not None
        yield from self.latent.fit(
            frames,
            steps=steps,
            batch_size=self.pretraining.batch_size,
            learning_rate=self.pretraining.learning_rate,
            generator=torch.Generator().manual_seed(seed),
        )
        self.age = 0
        if self.distance is not None:
            self.distance.threshold, accuracy = self._calibrate(frames, near, seed)
            logger.record("latent/threshold", self.distance.threshold)
            logger.record("latent/threshold_accuracy", accuracy)

    def _calibrate(self, frames: Array, near: Array, seed: int) -> tuple[float, float]:
        """The threshold of the latent's judgement, and how well it tells near from far."""
        assert self.latent is not None
        codes = self.latent.encode(frames)
        rng = np.random.default_rng(seed)
        far = rng.integers(len(codes), size=(len(near), 2))
        apart = [np.linalg.norm(codes[i] - codes[j], axis=1) for i, j in (near.T, far.T)]
        return nearness(*apart)

    def _gather(self, env: VecEnv) -> tuple[Array, Array]:
        """Pictures of random actions and of goals, `(frames, ...)`, and near pairs `(M, 2)`."""
        plan, n = self.pretraining, env.num_envs
        found, near, count = list[Array](), list[Array](), 0
        env.seed(self._seeds[1])
        env.action_space.seed(self._seeds[1])
        while count < plan.frames:
            asked, seen = self._pictures_of(env.reset())
            found += [asked, seen]
            count += len(asked)
            for step in range(1, plan.stay + 1):
                actions = np.stack([env.action_space.sample() for _ in range(n)])
                observation, _, dones, _ = env.step(actions)
                found.append(self._pictures_of(observation)[1])
                count += n
                if dones.any():
                    break
                if step >= plan.near:
                    here = np.arange(count, count + n)
                    near.append(np.stack([here - plan.near * n, here], axis=1))
            count += n
        pairs = np.concatenate(near) if near else np.zeros((0, 2), np.int64)
        pairs = pairs[(pairs < plan.frames).all(axis=1)]
        return np.concatenate(found)[: plan.frames], pairs

    def _pictures_of(self, observation: Any) -> tuple[Array, Array]:
        """Copies of the pictures of goals, as far as these are pictures, and of what is seen."""
        if not isinstance(observation, Mapping):
            return observation[:0].copy(), observation.copy()
        seen = observation[SEEN]
        asked = observation[DESIRED] if DESIRED in self._coded else seen[:0]
        return asked.copy(), seen.copy()

    def state_dict(self) -> dict[str, Any]:
        """The latent model's parameters, version and age; empty without one."""
        if self.latent is None:
            return {}
        judged = {} if self.distance is None else {"threshold": self.distance.threshold}
        aged = {} if self.latent_encoder is None else {"age": self.age}
        return {**self.latent.state_dict(), **judged, **aged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it is of another latent model.
        """
        if self.latent is not None:
            self.latent.load_state_dict(dict(state))
            self.age = state.get("age", 0)
        if self.distance is not None:
            self.distance.threshold = float(state["threshold"])


def sight_of(agent: Algorithm, seed: np.random.SeedSequence) -> Sight:
    """What an agent's options say about seeing."""
    return Sight(
        agent.observation_space,
        rule_of(agent.env),
        agent.options["latent"],
        agent.options["pretraining"],
        seed,
        agent.device,
        agent.options["reward_source"],
        agent.config.joint,
    )


def _record(logger: Logger, metrics: Metrics) -> None:
    for name, value in metrics.items():
        if value.ndim == 0:
            logger.record(f"latent/{name}", value.item())
