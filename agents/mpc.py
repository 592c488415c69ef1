"""Model-predictive control: collect data, fit a world model, plan in it.

Source: Chua et al. 2018 (PETS), with the planner of Pinneri et al. 2020 (iCEM), or any other world
model and planner. The environment's `GoalRule` evaluates imagined goals: rewards need not be
learned, and one world model serves all goals without hindsight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import one_hot

from rlkit.goals import GoalRule, ObservationLayout, vector_size
from rlkit.networks.encoders import HiddenState
from rlkit.networks.fields import require_number, require_positive, require_whole
from rlkit.offpolicy.algorithm import Algorithm
from rlkit.offpolicy.metrics import TrainingMetrics
from rlkit.offpolicy.planning_metrics import Decision, PlanningMetrics, metrics_of
from rlkit.offpolicy.policy import policy_class
from rlkit.offpolicy.settings_group import check_types
from rlkit.offpolicy.spaces import SpaceAdapter
from rlkit.planning import PLANNERS, Actions, ImaginedProblem, Planner, PlanningObjective
from rlkit.planning.problem import require_known_goals
from rlkit.replay import ReplayBuffer
from rlkit.world import (
    WORLDS,
    Layout,
    World,
    WorldModel,
    handover,
    stored_episodes,
)

Array = NDArray[Any]
BUDGET = {"name": "icem", "horizon": 20, "samples": 150, "iterations": 3}


@dataclass(frozen=True)
class MPCConfig:
    """Settings of model-predictive control."""

    world: str | Mapping[str, Any] | WorldModel = "ensemble"
    """World model: a name, a table `{name = "ensemble", members = 3}`, "my_pkg.mod:Class", a model;
    or a fitted world: a `World`, or its folder."""
    planner: str | Mapping[str, Any] | Planner = field(default_factory=lambda: dict(BUDGET))
    """Planner, likewise, with its horizon, samples or time budget. "icem" plans Box actions only,
    "cem", "mppi" and "shooting" Discrete ones as well."""
    particles: int = 5
    """Roll-outs per sequence of actions, >= 1; as many as an ensemble has members: one of each."""
    temperature: float = 1.0
    """Scales the randomness of predictions, >= 0: 1 as learned, 0 none, for searches with few
    samples; the members of an ensemble still differ at 0."""
    shaping: float = 1.0
    """Weight of the distance to the goal, per step and in the goal's own units, >= 0; 0 is right
    where distances mislead (walls), if the horizon reaches the goal."""
    uncertainty_penalty: float = 0.0
    """Weight of the standard deviation of a sequence's imagined returns; a bonus below 0."""
    gamma: float = 0.99
    """Discount of one imagined step, in [0, 1]."""
    first_fit: int = 500
    """Additional gradient steps of the world model before the first plan, >= 0."""
    learning_rate: float = 1e-3
    """Adam's step size for the world model, > 0."""
    batch_size: int = 256
    """Records per gradient step, >= 1."""
    binary_termination: bool = False
    """Whether terminations are predicted by a Bernoulli distribution; otherwise as numbers, which
    count as terminations above 0.5. Without goals only."""
    keep_scaling: bool | None = None
    """Whether fits keep the scaling of the world's columns; None: of a fitted world only."""
    exploration_noise: float = 0.0
    """Deviation of Gaussian noise on training actions, >= 0; no effect on Discrete ones."""
    random_fraction: float = 0.0
    """Share of training actions drawn uniformly at random, in [0, 1]."""

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_types(self)
        require_whole(self, 1, "particles", "batch_size")
        require_whole(self, 0, "first_fit")
        require_number(self, 0, "temperature", "shaping", "exploration_noise")
        require_number(self, 0, "gamma", "random_fraction", most=1)
        if not callable(self.learning_rate):
            require_positive(self, "learning_rate")
        WORLDS.make(self.world), PLANNERS.make(self.planner)

    @property
    def windows(self) -> int:
        """`batch_size`, by the name that `Algorithm` reads."""
        return self.batch_size

    @property
    def schedule(self) -> Any:
        """`learning_rate`, by the name that `Algorithm` reads."""
        return self.learning_rate


class MPCLearner:
    """A world model and a planner; see `rlkit.offpolicy.contract.Learner`.

    A hidden state holds the last action `(n, A)`, the steps since the episode began `(n,)`, the
    planner state, and the hidden state of the world.

    Args:
        config: The settings.
        columns: Columns of observations.
        layout: Columns of the world.
        actions: The planner's actions.
        seed: Of the world's parameters and of all randomness.
        device: Where the world lives; plans are made on the CPU.
        rule: Evaluates imagined goals; None without goals.
    """

    config_class: ClassVar[type[MPCConfig]] = MPCConfig
    acting: ClassVar[str | None] = None  # no network acts

    def __init__(
        self,
        config: MPCConfig,
        columns: ObservationLayout,
        layout: Layout,
        actions: Actions,
        seed: int,
        device: torch.device | str = "cpu",
        rule: GoalRule | None = None,
    ) -> None:
        self.config, self.actions, self.seed = config, actions, seed
        self.columns, self.rule = columns, rule
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        fresh = torch.Generator().manual_seed(seed)
        self.world = World(WORLDS.make(config.world), layout, fresh, device)
        self.planner = PLANNERS.make(config.planner).with_actions(actions)
        rate = config.learning_rate
        self.learning_rate = torch.tensor(1.0 if callable(rate) else rate)

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return self.world.steps

    def set_rule(self, rule: GoalRule | None) -> None:
        """See `Learner.set_rule`."""
        self.rule = rule

    def initial(self, count: int) -> HiddenState:
        """Hidden state of `count` fresh episodes."""
        return (
            torch.zeros(count, self.actions.size),
            torch.zeros(count, dtype=torch.int64),
            *self.planner.initial(count),
            *self.world.initial(count),
        )

    def act(
        self,
        observation: Array,
        goal: Array,
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
        visible: Array | None = None,
        reward: Array | None = None,
    ) -> tuple[Array, HiddenState]:
        """See `Learner.act`, and `decide`."""
        made = self.decide(observation, goal, hidden_state, is_first, explore=explore)
        return made.action, made.hidden_state

    @torch.no_grad()
    def decide(
        self,
        observation: Array,
        goal: Array,
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> Decision:
        """Plans for n environments.

        Args:
            observation: `(n, F)`, the columns of the layout.
            goal: `(n, G)`; G is 0 without goals.
            hidden_state: From the step before.
            is_first: Where an episode begins, `(n,)`: the hidden state is reset there.
            explore: Whether to act as in training; otherwise equal arguments give equal actions.

        Raises:
            ValueError: If there are goals, and no rule evaluates them.
        """
        if goal.shape[1] > 0 and self.rule is None:
            raise ValueError(
                "this agent needs the goal rule of an environment, and it has no environment; load "
                "it with one, load(path, env), or use set_env(env)"
            )
        c, first = self.config, torch.from_numpy(is_first)
        previous, age, planned, state = self._parts(hidden_state)
        age = torch.where(first, 0, age)
        x = torch.from_numpy(observation)[:, None]
        state = self.world.observe(x, previous[:, None], state, first[:, None])
        generator = self.generator
        if not explore:
            generator = torch.Generator().manual_seed(self.seed + int(age.max()))
        random = self.actions.random(len(age), generator)
        plan, predicted, fallback, action = None, None, torch.zeros_like(first), random
        if self.world.steps > 0:
            desired, weights = goal if goal.shape[1] > 0 else None, (c.gamma, c.shaping)
            objective = PlanningObjective(self.rule, desired, *weights, c.uncertainty_penalty)
            sampling = c.particles, generator, c.temperature
            problem = ImaginedProblem(self.world, state, objective, *sampling)
            plan = self.planner.plan(problem, planned, first, generator)
            planned, predicted = plan.state, problem.predicted
            fallback = plan.failed | ~plan.action.isfinite().all(1)
            action = torch.where(fallback[:, None], random, plan.action)
        if explore and c.exploration_noise > 0 and not self.actions.discrete:
            action = action + c.exploration_noise * torch.randn(action.shape, generator=generator)
        action = action.clamp(-1, 1)
        hidden_state = (action, age + 1, *planned, *state)
        taken = action.argmax(1) if self.actions.discrete else action
        return Decision(taken.numpy(), hidden_state, plan, predicted, fallback.numpy())

    def _parts(self, hidden_state: HiddenState) -> tuple[Tensor, Tensor, HiddenState, HiddenState]:
        """Last action, age of the episode, planner state, and hidden state of the world."""
        width = 2 + len(self.planner.initial(1))
        action, age, *planned = (part.cpu() for part in hidden_state[:width])
        return action, age, tuple(planned), tuple(x.to(self.device) for x in hidden_state[width:])

    def acted(self, hidden_state: HiddenState, action: Array) -> HiddenState:
        """The hidden state after other actions `(n, ...)` were taken."""
        taken = torch.from_numpy(np.asarray(action))
        if self.actions.discrete:
            taken = one_hot(taken.long(), self.actions.size)
        return (taken.reshape(len(taken), -1).float(), *hidden_state[1:])

    def to_store(self, hidden_state: HiddenState) -> None:
        """Nothing."""

    def observe(self, observation: Array, goals: Array) -> None:
        """Nothing: a fit includes the scaling."""

    def replay_options(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def learn(
        self,
        replay_buffer: ReplayBuffer,
        adapter: SpaceAdapter,
        gradient_steps: int,
        batch_size: int,
        metrics: TrainingMetrics,
    ) -> int:
        """Continues to fit the world to the whole replay buffer; see `Learner.learn`."""
        assert isinstance(metrics, PlanningMetrics)
        storage, space = replay_buffer.storage, self.columns.space
        choices = self.actions.size if self.actions.discrete else 0
        data = stored_episodes(storage, space, choices=choices)
        if gradient_steps == 0 or data is None or data.steps < 2:
            return 0
        before = self.updates
        new = stored_episodes(storage, space, choices=choices, since=metrics.fitted)
        if before > 0 and new is not None:
            metrics.add("world/error_ahead", self.world.evaluate(new, self.generator)["error"])
        if before == 0:
            gradient_steps += self.config.first_fit
        place = self.world.parameters, self.world.scaling
        fit = self.world.fit(
            data,
            steps=gradient_steps,
            records=batch_size,
            learning_rate=float(self.learning_rate),
            keep_scaling=bool(self.config.keep_scaling),
            generator=self.generator,
        )
        for step in fit:
            metrics.add_update(*metrics_of(step))
        self.world.move_to(*place)  # the policy shares these tensors
        metrics.fitted = storage.cursor.copy()
        return self.updates - before

    def weights(self) -> dict[str, Tensor]:
        """Parameters and scaling of the world by name; they share memory with it."""
        return handover.weights(self.world)

    def state_dict(self) -> dict[str, Any]:
        """Everything on which the next fit and plan depend."""
        return {**handover.world_parts(self.world), "generator": self.generator.get_state().numpy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Learner.load_state_dict`."""
        handover.load_world_parts(self.world, state)
        self.generator.set_state(torch.from_numpy(np.array(state["generator"], np.uint8)))


class MPC(Algorithm):
    """Model-predictive control for Box and Discrete actions, with Stable-Baselines3's interface.

    Options are `MPCConfig`'s fields and those of `Algorithm`. `train_freq` and `gradient_steps` (or
    `update_ratio`) set how often, and by how many steps, the world model is fitted to the whole
    replay buffer. Until `learning_starts` actions are random; then the first fit follows and every
    action is planned, in evaluation as well. With a fitted `world` and `learning_starts = 0` all
    actions are planned. Hindsight has no effect.

    Beside metrics of the fit, the log holds `world/error_ahead` (squared error one step ahead on
    data since the last fit), `world/nonfinite` (sequences dropped, whose roll-outs are not finite),
    `world/fallbacks` (random actions because all were), and those of `PlanningMetrics`.
    """

    learner_class = MPCLearner
    learner: MPCLearner
    metrics: PlanningMetrics
    _fitted: World | None = None
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
        self._fitted = handover.fitted_world(options.get("world"))
        if self._fitted is not None:
            options["world"] = self._fitted.model
            options.setdefault("keep_scaling", True)
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
        """See `rlkit.offpolicy.options.make_learner`."""
        columns = ObservationLayout.of(self.observation_encoder.space)
        require_known_goals(columns)
        if self.observation_encoder.latent_encoder is not None:
            raise ValueError(
                "pretraining.refresh_every > 0 does not go with MPC: latents of another version "
                "have other dynamics; leave it out, so that the latent model is frozen"
            )
        outcomes = () if columns.goal is not None else ("reward", "terminated")
        binary = outcomes[1:] if self.config.binary_termination else ()
        space, number = self.action_space, int(seed.generate_state(1)[0])
        layout = Layout.of_columns(columns, space, outcomes, binary)
        actions = Actions(vector_size(space), isinstance(space, spaces.Discrete))
        learner = MPCLearner(self.config, columns, layout, actions, number, self.device, self.rule)
        if self._fitted is not None:
            handover.take_over(learner.world, self._fitted, space)
        return learner

    def act(
        self,
        observation: Any,
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> tuple[NDArray[Any], HiddenState]:
        """Plans; see `Algorithm.act`. Plans of the training are logged."""
        columns, x = self.learner.columns, self.learner.columns.vector(observation)
        goal = x[:, :0] if columns.goal is None else columns.desired_goal(observation)
        made = self.learner.decide(x, goal, hidden_state, is_first, explore=explore)
        # `predict` passes a hidden state of its own; its decisions are no part of the training.
        if hidden_state is self.hidden_state:
            self.metrics.add_decision(made, np.asarray(is_first, np.bool_))
        return made.action, made.hidden_state

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        """See `Algorithm.train`; the policy gets new tensors for parameters that grow with data."""
        size = self.learner.world.size
        super().train(gradient_steps, batch_size)
        if self.learner.world.size != size:
            self.policy = policy_class(type(self))(self)
