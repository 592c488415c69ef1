"""What an agent sees: raw observations, or codes in the place of pictures.

The codes are computed once, where observations come in. Everything behind it, replay, memory and
networks, has vectors and never touches a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from rlkit.agents.code_goals import CodedRule, CodeRule, PictureRule, picture_rule
from rlkit.agents.interface import rule_of
from rlkit.goals import GoalRule, is_goal_space
from rlkit.latents import Latent, make_latent, nearness

if TYPE_CHECKING:
    from rlkit.agents.algorithm import Algorithm

Array = NDArray[Any]
LOG_INTERVAL = 100  # gradient steps
SEEN, ACHIEVED, DESIRED = "observation", "achieved_goal", "desired_goal"


@dataclass(frozen=True)
class Pretraining:
    """How a latent model is fitted before the training, and frozen.

    Frames come from random actions, in episodes that are broken off early: where they begin, and
    what they ask for, shows more of the world than what random actions reach. They are not counted
    as steps of the training.
    """

    frames: int = 6_000
    """Pictures to fit to, >= 2."""
    stay: int = 10
    """Random actions between two resets, >= 1."""
    steps: int = 3_000
    """Gradient steps, >= 1."""
    batch_size: int = 64
    """Pictures per step, >= 1."""
    learning_rate: float = 1e-3
    """Adam's step size, > 0."""
    near: int = 3
    """Random actions by which pictures are near each other, >= 1 and at most `stay`; what is nearer
    than most others counts as reached where the latent judges goals."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        for field in fields(self):
            value, least = getattr(self, field.name), 2 if field.name == "frames" else 1
            if field.name == "learning_rate":
                if not value > 0:
                    raise ValueError(f"pretraining: learning_rate = {value!r} must be > 0")
            elif not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"pretraining: {field.name} = {value!r} must be a whole number >= {least}"
                )
        if self.near > self.stay:
            raise ValueError(
                f"pretraining: near = {self.near} must be at most stay = {self.stay}, the random "
                f"actions between two resets"
            )


class Sight:
    """Translates raw observations of one environment into what the agent works with.

    Without a latent model that is the observation itself. With one, pictures under `observation`
    and `achieved_goal` (which are the same) and `desired_goal` become codes. Goals that were
    pictures become a code, for the networks, followed by what their rule judges: see `CodedRule`.

    Args:
        space: Space of one environment's raw observation.
        rule: The environment's goal rule; None without goals, or without an environment.
        latent: The latent model, as `rlkit.latents.make_latent` takes it; None for none.
        pretraining: Fields of `Pretraining`.
        seed: Of the model's parameters, and of everything random in its pretraining.
        device: Where codes are computed.
        judge: Who judges goals in training: the "environment", or the "latent" by the distance of
            codes, which then is all that an agent knows of its goals (Nair et al. 2018).

    Attributes:
        space: Space of what the agent works with.
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
    ) -> None:
        if judge not in ("environment", "latent"):
            raise ValueError(f'goal_judge must be "environment" or "latent", got {judge!r}')
        self._raw = space
        self.goal_width: int | None = None
        self.latent: Latent | None = None
        self._coded: dict[str, spaces.Space[Any]] = {}
        self._seeds = [int(part) % 2**31 for part in seed.generate_state(3)]
        self.pretraining = _pretraining(pretraining)
        model = make_latent(latent)
        if model is not None:
            self._coded = _pictures(space)
            generator = torch.Generator().manual_seed(self._seeds[0])
            self.latent = Latent(model.with_shape(_common_shape(self._coded)), generator, device)
        self.distance = CodeRule() if judge == "latent" else None
        if self.distance is not None and DESIRED not in self._coded:
            raise ValueError(
                'goal_judge = "latent" needs a latent model and goals that are pictures; set '
                'latent, or goal_judge = "environment"'
            )
        self.adopt(rule)

    def adopt(self, rule: GoalRule | None) -> None:
        """Takes over an environment's goal rule; `space` and `rule` follow from it.

        Raises:
            ValueError: If goals are pictures that the rule cannot judge once they are codes.
        """
        self.space, self.rule = self._raw, rule
        self._judge: PictureRule | None = None
        if self.latent is None:
            return
        self.space = _vectors(self.latent.dims)
        if not isinstance(self._raw, spaces.Dict):
            return
        parts = {**self._raw.spaces, **dict.fromkeys(self._coded, self.space)}
        if DESIRED in self._coded:
            self.goal_width, width = self.latent.dims, 0
            if self.distance is not None:
                self.rule = None if rule is None else self.distance
            elif rule is not None:
                self._judge = picture_rule(rule)
                self.rule, width = CodedRule(self._judge.rule, self.latent.dims), self._judge.width
            parts |= dict.fromkeys((ACHIEVED, DESIRED), _vectors(self.latent.dims + width))
        self.space = spaces.Dict(parts)

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to be fitted before the training."""
        return self.latent is None or self.latent.version > 0

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

    def see_one(self, observation: Any) -> Any:
        """One raw observation as the agent works with it."""
        if self.latent is None:
            return observation
        if isinstance(observation, Mapping):
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
            return {key: value[0] for key, value in self.see(batch).items()}
        return self.see(np.asarray(observation)[None])[0]

    def reward(self, rewards: Array, observation: Any, following: Any) -> Array:
        """The environment's rewards `(n,)` of a step, or the latent's where that judges."""
        if self.distance is None:
            return rewards
        earned = self.distance.reward(following[ACHIEVED], observation[DESIRED])
        return earned.astype(np.float32)

    def judged(self, goal: Array) -> Array:
        """The part of a goal that means something to people: places, not codes."""
        return goal if self._judge is None else goal[..., self.goal_width :]

    def _goal(self, pictures: Array, code: Array | None) -> Array:
        assert self.latent is not None
        code = self.latent.encode(pictures) if code is None else code
        if self._judge is None:
            return code
        place = np.asarray(self._judge.place(pictures), np.float32)
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
        assert self.latent is not None
        plan = self.pretraining
        frames, near = self._gather(env)
        env.seed(self._seeds[2])
        fitted = self.latent.fit(
            frames,
            steps=plan.steps,
            batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            generator=torch.Generator().manual_seed(self._seeds[1]),
        )
        for step, metrics in enumerate(fitted):
            if step % LOG_INTERVAL == 0:
                for name, value in metrics.items():
                    if value.ndim == 0:
                        logger.record(f"latent/{name}", value.item())
                logger.dump(step)
            yield step
        if self.distance is not None:
            self.distance.threshold, accuracy = self._calibrate(frames, near)
            logger.record("latent/threshold", self.distance.threshold)
            logger.record("latent/threshold_accuracy", accuracy)
            logger.dump(plan.steps)

    def _calibrate(self, frames: Array, near: Array) -> tuple[float, float]:
        """The threshold of the latent's judgement, and how well it tells near from far."""
        assert self.latent is not None
        codes = self.latent.encode(frames)
        rng = np.random.default_rng(self._seeds[1])
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
        """The latent model's parameters and version; empty without one."""
        if self.latent is None:
            return {}
        judged = {} if self.distance is None else {"threshold": self.distance.threshold}
        return {**self.latent.state_dict(), **judged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it is of another latent model.
        """
        if self.latent is not None:
            self.latent.load_state_dict(dict(state))
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
        agent.options["goal_judge"],
    )


def _vectors(width: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def _pretraining(options: Mapping[str, Any] | None) -> Pretraining:
    known = {field.name for field in fields(Pretraining)}
    for name in options or {}:
        if name not in known:
            raise ValueError(f"pretraining has no option {name!r}; known: {sorted(known)}")
    return Pretraining(**(options or {}))


def _pictures(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation that become codes."""
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {SEEN: space}
    found = {key: part for key, part in parts.items() if _is_picture(part)}
    if not found and isinstance(parts.get(SEEN), spaces.Box) and len(parts[SEEN].shape or ()) == 1:
        found = {SEEN: parts[SEEN]}  # a wide vector
    allowed = [{SEEN}] + ([{SEEN, ACHIEVED, DESIRED}] if is_goal_space(space) else [])
    if set(found) not in allowed:
        raise ValueError(
            f"a latent model needs pictures, uint8 of shape (height, width, channels), under "
            f"'observation', or under all of 'observation', 'achieved_goal' and 'desired_goal'; "
            f"found them under {sorted(found)} of {space}. Set latent = none, or wrap the "
            f"environment in rlkit.envs.pixel_observation.PixelObservation"
        )
    return found


def _is_picture(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def _common_shape(parts: Mapping[str, spaces.Space[Any]]) -> tuple[int, ...]:
    shapes = {key: tuple(part.shape or ()) for key, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"pictures of one size are needed, so that one model fits; got {shapes}")
    return next(iter(shapes.values()))
