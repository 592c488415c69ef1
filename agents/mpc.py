"""Model-predictive control: collect, fit a world model, plan in it.

Source: Chua et al. 2018 (PETS), with the planner of Pinneri et al. 2020 (iCEM), and any other
world model or planner of the suite in their place. Goals are judged in imagination by the
environment's `GoalRule`: nothing has to be learned of rewards there, and no hindsight is needed,
since what was learned of the world on the way to one goal serves all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy

from rlkit.agents.mpc_learner import MPCConfig as MPCConfig
from rlkit.agents.mpc_learner import MPCLearner as MPCLearner
from rlkit.goals import ObservationLayout, vector_size
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.algorithm import Algorithm
from rlkit.offpolicy.planning_metrics import PlanningMetrics, metrics_of
from rlkit.planning import PLANNERS, Actions
from rlkit.world import WORLDS, Layout, stored_episodes


class MPC(Algorithm):
    """Model-predictive control for Box and Discrete actions, with Stable-Baselines3's interface.

    Options are `MPCConfig`'s fields and those of `Algorithm`, of which `train_freq` and
    `gradient_steps` (or `update_ratio`) say how often, and how far, the world model is fitted to
    all of the replay. Until `learning_starts` actions are random, and the first fit follows; from
    then on every action is planned, in evaluation, too. The shell's hindsight has no effect.

    The log always holds, beside the fit's metrics: `imagination/gap` and, with goals,
    `imagination/success_gap` (see `rlkit.offpolicy.planning_metrics`), `world/error_ahead` (squared
    error one step ahead on what was collected since the last fit), `world/nonfinite` (sequences of
    actions that were dropped because a future was not finite), `world/fallbacks` (random actions
    because all of them were), `planner/score`, `planner/spread` and `planner/milliseconds` per
    decision.
    """

    # A learner of another kind: it fits episodes where others learn from batches, and `act` and
    # `train` below are the only ones to know.
    learner_class = MPCLearner  # type: ignore[assignment]
    learner: MPCLearner  # type: ignore[assignment]
    report: PlanningMetrics
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box, spaces.Discrete)

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        buffer_size: int = 100_000,
        learning_starts: int = 200,
        train_freq: int | tuple[int, str] = 25,
        gradient_steps: int = 50,
        **options: Any,
    ) -> None:
        # Objects become tables, which files can hold.
        for name, group in (("world", WORLDS), ("planner", PLANNERS)):
            if hasattr(options.get(name), "__dataclass_fields__"):
                options[name] = group.describe(options[name])
        super().__init__(
            policy,
            env,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            **options,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.report = PlanningMetrics(getattr(self, "n_envs", 1), self.learner.planner.horizon)

    def _fresh_learner(self, seed: np.random.SeedSequence) -> Any:
        goal = self.interface.goal
        if goal is not None and not (isinstance(goal, spaces.Box) and len(goal.shape) == 1):
            raise ValueError(
                f"MPC plans towards goals that are vectors of real numbers, not {goal}; pictures "
                f"become vectors with latent = ..."
            )
        if self.interface.hides_goal:
            raise ValueError(
                "this environment hides its goal for a while, and MPC plans towards the goal that "
                'it is shown; take an agent with memory, SAC with encoder = "gru" say'
            )
        if self.sight.latent_encoder is not None:
            raise ValueError(
                "pretraining.refresh_every > 0 does not go with MPC: codes of another version "
                "would be another world; leave it out, so that the latent is frozen"
            )
        outcomes = () if goal is not None else ("reward", "terminated")
        actions = Actions(vector_size(self.action_space), self._choices > 0)
        return MPCLearner(
            self.config,
            Layout.of_spaces(self.sight.space, self.action_space, outcomes),
            actions,
            seed=int(seed.generate_state(1)[0]),
            device=self.device,
        )

    @property
    def _choices(self) -> int:
        """Number of Discrete actions; 0 for a Box."""
        space = self.action_space
        return int(space.n) if isinstance(space, spaces.Discrete) else 0

    def act(
        self,
        observation: Any,
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> tuple[NDArray[Any], HiddenState]:
        """Plans; see `Algorithm.act`.

        Raises:
            ValueError: If there are goals and no environment whose rule judges them.
        """
        goal = None
        if self.interface.goal is not None:
            goal = np.asarray(observation["desired_goal"], np.float32)
            if self.rule is None:
                raise ValueError(
                    "this agent plans towards goals, which the environment's goal rule judges, and "
                    "it has no environment; load it with one, load(path, env), or give it one with "
                    "set_env(env)"
                )
        x = ObservationLayout.of(self.sight.space).vector(observation)
        decision = self.learner.decide(
            x, goal, hidden_state, is_first, explore=explore, rule=self.rule
        )
        # `predict` comes with a memory of its own; what it decides is no part of the training.
        if (
            hidden_state is self.hidden_state
            and decision.plan is not None
            and decision.predicted is not None
        ):
            self.report.add_decision(
                decision.plan, decision.predicted, decision.fallback, np.asarray(is_first, np.bool_)
            )
        return decision.action, decision.hidden_state

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Fits the world further to everything in the replay, by so many steps and records."""
        storage, space = self.replay_buffer.storage, self.sight.space
        data = stored_episodes(storage, space, choices=self._choices)
        if gradient_steps == 0 or data is None or data.steps < 2:
            return
        new = stored_episodes(storage, space, choices=self._choices, since=self.report.fitted)
        if self.learner.updates > 0 and new is not None:
            self.report.add("world/error_ahead", self.learner.error(new))
        if self.learner.updates == 0:
            gradient_steps += self.config.first_fit
        self.learner.learning_rate.fill_(self.lr_schedule(self._current_progress_remaining))
        for metrics in self.learner.fit(data, gradient_steps, batch_size):
            self.report.add_update(*metrics_of(metrics))
        self.report.fitted = storage.cursor.copy()
        self._n_updates = self.learner.updates
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
