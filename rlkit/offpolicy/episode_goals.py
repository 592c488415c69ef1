"""The goals that training episodes pursue in place of the environment's, from a goal generator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import GoalRule
from rlkit.goals.generators import GENERATORS, GoalContext, GoalGenerator
from rlkit.offpolicy.observation_encoder import ACHIEVED, DESIRED
from rlkit.offpolicy.spaces import ObservationEncoder
from rlkit.replay import EpisodeStorage

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

Array = NDArray[Any]
DECODED = 48  # goals in an image of decoded goals


class EpisodeGoals:
    """Puts proposed goals in the environment's place, before observations are stored.

    Args:
        generator: Proposes the goals.
        encoder: The agent's observation encoder; its space and rule are those of the goals.

    Raises:
        ValueError: If there are no goals, the latent model is refreshed, or the generator cannot
            propose goals here.
    """

    def __init__(self, generator: GoalGenerator, encoder: ObservationEncoder) -> None:
        if not isinstance(encoder.space, spaces.Dict) or DESIRED not in encoder.space.spaces:
            raise ValueError(
                f"goal_generator needs an environment with goals, but its space is {encoder.space}"
            )
        if encoder.latent_encoder is not None:
            raise ValueError(
                "goal_generator proposes goals as latents without an image, of which a refresh "
                "could not make new ones: set pretraining.refresh_every = 0, or goal_generator = "
                '"none"'
            )
        self.generator, self.encoder = generator, encoder

    def attach(self, storage: EpisodeStorage) -> None:
        """Gives the generator its context: the storage, and the space and rule of goals."""
        encoder = self.encoder
        assert isinstance(encoder.space, spaces.Dict)

        def achieved(count: int, rng: np.random.Generator) -> Array:
            env, step = storage.sample_steps(count, rng)
            return storage.achieved(storage.flat(env, step + 1))

        if encoder.rule is None:  # loaded without an environment, only to predict
            return
        self.generator.attach(
            GoalContext(
                encoder.space[DESIRED],
                encoder.rule,
                lambda: len(storage),
                achieved,
                has_prior=_has_prior(encoder),
                version=lambda: 0 if encoder.latent is None else encoder.latent.version,
            )
        )

    def replace(
        self,
        observation: Any,
        before: Any,
        is_first: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> Any:
        """Observations with the goals that their episodes pursue.

        Args:
            observation: Observations of `n` environments as stored, with the environment's goals.
            before: Those of the step before, with the goals pursued; None at the very beginning.
            is_first: Which of them begin an episode, `(n,)`.
            rng: The source of randomness.
        """
        goals = observation[DESIRED] if before is None else before[DESIRED]
        new = is_first & (rng.random(len(is_first)) < self.generator.share)
        is_own = is_first.reshape(-1, *[1] * (goals.ndim - 1))
        goals = np.where(is_own, observation[DESIRED], goals)
        if new.any():
            proposed = self.generator.propose(goals[new], rng)
            if proposed.shape != goals[new].shape:
                raise ValueError(
                    f"goal generator {type(self.generator).__name__} proposed goals of shape "
                    f"{proposed.shape} instead of {goals[new].shape}"
                )
            goals[new] = proposed
        return {**observation, DESIRED: goals}

    def outcome(
        self,
        observation: Any,
        next_observation: Any,
        rewards: Array,
        terminated: NDArray[np.bool_],
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Rewards of a step for the goals pursued, and which terminations are theirs.

        An episode that the environment ended because its own goal was reached ends as truncated.
        Where reaching a pursued goal would terminate, the episode goes on; the replay buffer
        applies the rule's termination when it samples the step.

        Args:
            observation: Observations before the step, with the goals pursued.
            next_observation: Those after it; where an episode ended, with the environment's goal.
            rewards: The environment's, `(n,)`, or the latent model's.
            terminated: Which episodes the environment terminated, `(n,)`.

        Returns:
            Rewards `(n,)`, and terminations `(n,)` that the environment's goal does not explain.
        """
        if self.encoder.latent_rule is not None:  # its rewards are for the goals pursued
            return rewards, terminated
        rule, achieved, pursued = self.rule, next_observation[ACHIEVED], observation[DESIRED]
        rewards = np.asarray(rule.reward(achieved, pursued)).astype(rewards.dtype)
        rows = np.flatnonzero(terminated)
        if len(rows) == 0:
            return rewards, terminated
        terminated = terminated.copy()
        by_own = rule.terminated(achieved[rows], next_observation[DESIRED][rows])
        terminated[rows] = ~by_own | rule.terminated(achieved[rows], pursued[rows])
        return rewards, terminated

    def observe(self, observation: Any, next_observation: Any, rows: NDArray[np.int64]) -> None:
        """Reports how the episodes of some environments ended to the generator.

        Args:
            observation: Observations before their last step, with the goals pursued.
            next_observation: Those after it.
            rows: Environments whose episodes ended, `(k,)`.
        """
        if len(rows) == 0:
            return
        goals, achieved = observation[DESIRED][rows], next_observation[ACHIEVED][rows]
        self.generator.observe(goals, achieved, self.rule.success(achieved, goals))

    @property
    def rule(self) -> GoalRule:
        """The rule of the goals."""
        assert self.encoder.rule is not None
        return self.encoder.rule

    def decoded(self) -> Array | None:
        """Images `(DECODED, H, W, C)` in [0, 1] of goals as they would be proposed now.

        None where goals are no latents that can be decoded, or none can be proposed yet. It does
        not affect training.
        """
        latent = self.encoder.latent
        if latent is None or self.encoder.latent_rule is None:
            return None
        if not latent.decodes or len(latent.shape) != 3:
            return None
        unknown = np.full((DECODED, latent.dims), np.nan, np.float32)
        goals = copy.deepcopy(self.generator).propose(unknown, np.random.default_rng(0))
        return None if np.isnan(goals).any() else latent.decode(goals)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return self.generator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.generator.load_state_dict(state)


def _has_prior(encoder: ObservationEncoder) -> bool:
    latent = encoder.latent
    if latent is None or encoder.latent_rule is None:
        return False
    blank = np.zeros((1, *latent.shape), np.uint8)
    return bool((latent.posterior(blank)[1] > 0).all())


def make_episode_goals(agent: Algorithm) -> EpisodeGoals | None:
    """The proposed goals of an agent's training; None where episodes pursue the environment's."""
    generator = GENERATORS.make_optional(agent.options["goal_generator"])
    return None if generator is None else EpisodeGoals(generator, agent.observation_encoder)
