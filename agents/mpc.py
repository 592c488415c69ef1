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
from rlkit.goals import vector_size
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.algorithm import Algorithm
from rlkit.offpolicy.planning_metrics import PlanningMetrics
from rlkit.planning import PLANNERS, Actions
from rlkit.world import WORLDS, Layout


class MPC(Algorithm):
    """Model-predictive control for Box and Discrete actions, with Stable-Baselines3's interface.

    Options are `MPCConfig`'s fields and those of `Algorithm`, of which `train_freq` and
    `gradient_steps` (or `update_ratio`) say how often, and how far, the world model is fitted to
    all of the replay. Until `learning_starts` actions are random, and the first fit follows; from
    then on every action is planned, in evaluation, too. Hindsight has no effect.

    The log always holds, beside the fit's metrics: `imagination/gap` and, with goals,
    `imagination/success_gap` (see `rlkit.offpolicy.planning_metrics`), `world/error_ahead` (squared
    error one step ahead on what was collected since the last fit), `world/nonfinite` (sequences of
    actions that were dropped because a future was not finite), `world/fallbacks` (random actions
    because all of them were), `planner/score`, `planner/spread` and `planner/milliseconds` per
    decision.
    """

    learner_class = MPCLearner
    learner: MPCLearner
    metrics: PlanningMetrics
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

    def make_metrics(self) -> PlanningMetrics:
        """See `Algorithm.make_metrics`."""
        return PlanningMetrics(getattr(self, "n_envs", 1), self.learner.planner.horizon)

    def make_learner(self, seed: np.random.SeedSequence) -> MPCLearner:
        """See `rlkit.offpolicy.options.make_learner`.

        Raises:
            ValueError: If goals are not visible vectors, or latents are refreshed in training.
        """
        goal = self.adapter.layout.goal
        if goal is not None and not (isinstance(goal, spaces.Box) and len(goal.shape) == 1):
            raise ValueError(
                f"MPC plans towards goals that are vectors of real numbers, not {goal}; images "
                f"become vectors with latent = ..."
            )
        if self.adapter.layout.hides_goal:
            raise ValueError(
                "this environment hides its goal for a while, and MPC plans towards the visible "
                'goal; use a recurrent agent, for example SAC with encoder = "gru"'
            )
        if self.observation_encoder.latent_encoder is not None:
            raise ValueError(
                "pretraining.refresh_every > 0 does not go with MPC: latents of another version "
                "have other dynamics; leave it out, so that the latent model is frozen"
            )
        outcomes = () if goal is not None else ("reward", "terminated")
        is_discrete = isinstance(self.action_space, spaces.Discrete)
        actions = Actions(vector_size(self.action_space), is_discrete)
        return MPCLearner(
            self.config,
            Layout.of_spaces(self.observation_encoder.space, self.action_space, outcomes),
            actions,
            seed=int(seed.generate_state(1)[0]),
            device=self.device,
            rule=self.rule,
        )

    def act(
        self,
        observation: Any,
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> tuple[NDArray[Any], HiddenState]:
        """Plans; see `Algorithm.act`. What is planned in training is logged.

        Raises:
            ValueError: If there are goals, and no environment with a rule that evaluates them.
        """
        x, goal = self.adapter.vectors(observation)
        decision = self.learner.decide(x, goal, hidden_state, is_first, explore=explore)
        # `predict` passes a hidden state of its own; its decisions are no part of the training.
        if (
            hidden_state is self.hidden_state
            and decision.plan is not None
            and decision.predicted is not None
        ):
            self.metrics.add_decision(
                decision.plan, decision.predicted, decision.fallback, np.asarray(is_first, np.bool_)
            )
        return decision.action, decision.hidden_state
