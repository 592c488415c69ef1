"""The heart of model-predictive control: a world model and a planner, without an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.planning_metrics import PlanningMetrics, metrics_of
from rlkit.offpolicy.settings import check_types
from rlkit.planning import PLANNERS, Actions, Plan, Planner
from rlkit.planning.rollouts import PlanningObjective, PredictedOutcome, Rollouts
from rlkit.world import (
    WORLDS,
    Episodes,
    Layout,
    Metrics,
    World,
    WorldModel,
    stored_episodes,
)
from rlkit.world.scaling import Scaling

if TYPE_CHECKING:
    from rlkit.offpolicy.metrics import TrainingMetrics
    from rlkit.offpolicy.spaces import SpaceAdapter
    from rlkit.replay import ReplayBuffer

Array = NDArray[Any]
BUDGET = {"name": "icem", "horizon": 20, "samples": 150, "iterations": 3}


@dataclass(frozen=True)
class MPCConfig:
    """Settings of model-predictive control."""

    world: str | Mapping[str, Any] | WorldModel = "ensemble"
    """World model: a name, a table `{name = "ensemble", members = 3}`, "my_pkg.mod:Class", or a
    model."""
    planner: str | Mapping[str, Any] | Planner = field(default_factory=lambda: dict(BUDGET))
    """Planner, likewise; its horizon, samples and budget in time are settings of its own. "icem"
    plans Box actions, "cem", "mppi" and "shooting" Discrete ones as well."""
    particles: int = 5
    """Futures that are imagined of each sequence of actions, >= 1; as many as an ensemble has
    members: one of each (TS infinity)."""
    temperature: float = 1.0
    """How much chance there is within a forecast, >= 0: 1 as it was learned, 0 none, which spares a
    search of few samples their noise; an ensemble's members differ at 0 as well."""
    shaping: float = 1.0
    """Weight of the distance to the goal beside the rule's reward, per step and in the goal's own
    units, >= 0. 0 plans for the reward alone, which where distances mislead (walls) is right, if
    the horizon reaches the goal."""
    uncertainty_penalty: float = 0.0
    """Weight of the standard deviation of a sequence's return over its futures; below 0 it is a
    bonus for what is not known yet."""
    gamma: float = 0.99
    """Discount of one imagined step, in [0, 1]."""
    first_fit: int = 500
    """Gradient steps of the world model in addition, before the first plan, >= 0."""
    learning_rate: float = 1e-3
    """Adam's step size for the world model, > 0."""
    batch_size: int = 256
    """Records per gradient step, >= 1."""
    exploration_noise: float = 0.0
    """Deviation of Gaussian noise on training actions, >= 0; without effect on Discrete ones."""
    random_fraction: float = 0.0
    """Share of training actions drawn uniformly at random, in [0, 1]."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        check_types(self)
        checks = {
            "particles": (">= 1", self.particles >= 1),
            "temperature": (">= 0", self.temperature >= 0),
            "shaping": (">= 0", self.shaping >= 0),
            "gamma": ("in [0, 1]", 0 <= self.gamma <= 1),
            "first_fit": (">= 0", self.first_fit >= 0),
            "learning_rate": ("> 0", callable(self.learning_rate) or self.learning_rate > 0),
            "batch_size": (">= 1", self.batch_size >= 1),
            "exploration_noise": (">= 0", self.exploration_noise >= 0),
            "random_fraction": ("in [0, 1]", 0 <= self.random_fraction <= 1),
        }
        for name, (allowed, fine) in checks.items():
            if not fine:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be {allowed}")
        WORLDS.make(self.world), PLANNERS.make(self.planner)

    @property
    def windows(self) -> int:
        """`batch_size`, as the algorithm calls it."""
        return self.batch_size

    @property
    def schedule(self) -> Any:
        """`learning_rate`, as the algorithm calls it."""
        return self.learning_rate


@dataclass(frozen=True)
class Decision:
    """What to do in n environments.

    Attributes:
        action: `(n, A)` in [-1, 1], or integers `(n,)`.
        hidden_state: Memory after it.
        plan: What the planner found; None before the world was ever fitted.
        predicted: What was imagined of the plan; None likewise.
        fallback: `(n,)`, where nothing finite was imagined and the action is a random one.
    """

    action: Array
    hidden_state: HiddenState
    plan: Plan | None
    predicted: PredictedOutcome | None
    fallback: NDArray[np.bool_]


class MPCLearner:
    """A world and a planner. In the place of a `Learner`'s `act` and updates: `decide` and `fit`.

    A carry is the action taken last `(n, A)`, the steps since the episode began `(n,)`, the
    planner's memory, and the world's.

    Args:
        config: The settings.
        layout: The columns of observations and actions.
        actions: What can be done.
        seed: Of the world's parameters and of everything random.
        device: Where the world lives; plans are made on the CPU.
        rule: Evaluates imagined goals; None without goals.
    """

    config_class: ClassVar[type[MPCConfig]] = MPCConfig
    acting: ClassVar[str | None] = None  # no network acts, but a planner

    def __init__(
        self,
        config: MPCConfig,
        layout: Layout,
        actions: Actions,
        seed: int,
        device: torch.device | str = "cpu",
        rule: GoalRule | None = None,
    ) -> None:
        self.config, self.actions, self.seed = config, actions, seed
        self.rule = rule
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        fresh = torch.Generator().manual_seed(seed)
        self.world = World(WORLDS.make(config.world), layout, fresh, device)
        self.planner = PLANNERS.make(config.planner).with_actions(actions)
        rate = config.learning_rate
        self.learning_rate = torch.tensor(1.0 if callable(rate) else rate)
        # Weights that the policy shares have one place for good; a world makes new ones.
        self._kept = {name: tensor.clone() for name, tensor in self._tensors().items()}
        self._settle()

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return self.world.steps

    # Acting

    def set_rule(self, rule: GoalRule | None) -> None:
        """Takes over an environment's goal rule."""
        self.rule = rule

    def initial(self, count: int) -> HiddenState:
        """Memory of `count` fresh episodes."""
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
        """See `rlkit.offpolicy.contract.Learner.act`, and `decide`."""
        decision = self.decide(observation, goal, hidden_state, is_first, explore=explore)
        return decision.action, decision.hidden_state

    @torch.no_grad()
    def decide(
        self,
        observation: NDArray[np.float32],
        goal: NDArray[np.float32],
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> Decision:
        """Plans, for a batch of environments.

        Args:
            observation: `(n, F)`, the columns of the layout.
            goal: `(n, G)`; G is 0 without goals.
            hidden_state: Memory from the step before.
            is_first: Where an episode begins, `(n,)`: memory is fresh there.
            explore: Whether to act as in training. Otherwise the same arguments always give the
                same action, and no generator advances.

        Raises:
            ValueError: If there are goals, and no rule evaluates them.
        """
        if goal.shape[1] > 0 and self.rule is None:
            raise ValueError(
                "this agent plans towards goals, which the environment's goal rule evaluates, and "
                "it has no environment; load it with one, load(path, env), or give it one with "
                "set_env(env)"
            )
        first = torch.from_numpy(is_first)
        previous, age, planned, remembered = self._parts(hidden_state)
        age = torch.where(first, 0, age)
        x = torch.from_numpy(observation)[:, None]
        remembered = self.world.observe(x, previous[:, None], remembered, first[:, None])
        generator = self.generator
        if not explore:
            generator = torch.Generator().manual_seed(self.seed + int(age.max()))
        random = self._random(len(age), generator)
        plan, predicted, fallback, action = None, None, torch.zeros_like(first), random
        if self.world.steps > 0:
            c = self.config
            desired = goal if goal.shape[1] > 0 else None
            weights = (c.gamma, c.shaping, c.uncertainty_penalty)
            objective = PlanningObjective(self.rule, desired, *weights)
            rollouts = Rollouts(
                self.world, remembered, objective, c.particles, generator, c.temperature
            )
            plan = self.planner.plan(rollouts, planned, first, generator)
            planned, predicted = plan.state, rollouts.predicted
            fallback = plan.failed | ~plan.action.isfinite().all(1)
            action = torch.where(fallback[:, None], random, plan.action)
        if explore and self.config.exploration_noise > 0 and not self.actions.discrete:
            noise = torch.randn(action.shape, generator=generator)
            action = action + self.config.exploration_noise * noise
        action = action.clamp(-1, 1)
        hidden_state = (action, age + 1, *planned, *remembered)
        done = action.argmax(1) if self.actions.discrete else action
        return Decision(done.numpy(), hidden_state, plan, predicted, fallback.numpy())

    def _random(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform actions `(n, A)`, one-hot where they are choices."""
        uniform = torch.rand(count, self.actions.size, generator=generator)
        if not self.actions.discrete:
            return 2 * uniform - 1
        return torch.nn.functional.one_hot(uniform.argmax(1), self.actions.size).float()

    def _parts(self, hidden_state: HiddenState) -> tuple[Tensor, Tensor, HiddenState, HiddenState]:
        """The last action, the age of the episode, and the memories of planner and world."""
        width = len(self.planner.initial(1))
        planned = tuple(part.cpu() for part in hidden_state[2 : 2 + width])
        remembered = tuple(part.to(self.device) for part in hidden_state[2 + width :])
        return hidden_state[0].cpu(), hidden_state[1].cpu(), planned, remembered

    def acted(self, hidden_state: HiddenState, action: Array) -> HiddenState:
        """The memory after actions `(n, ...)` that were taken instead of those it had chosen."""
        taken = torch.from_numpy(np.asarray(action))
        if self.actions.discrete:
            taken = torch.nn.functional.one_hot(taken.long(), self.actions.size)
        return (taken.reshape(len(taken), -1).float(), *hidden_state[1:])

    def to_store(self, hidden_state: HiddenState) -> None:
        """Nothing: what the replay keeps is read by the world, which remembers by itself."""

    # Learning

    def replay_options(self) -> dict[str, Any]:
        """Nothing: worlds are fitted to whole episodes."""
        return {}

    def learn(
        self,
        replay_buffer: ReplayBuffer,
        adapter: SpaceAdapter,
        gradient_steps: int,
        batch_size: int,
        metrics: TrainingMetrics,
    ) -> int:
        """Fits the world further to everything in the replay buffer."""
        assert isinstance(metrics, PlanningMetrics)
        storage, space = replay_buffer.storage, adapter.layout.space
        choices = self.actions.size if self.actions.discrete else 0
        data = stored_episodes(storage, space, choices=choices)
        if gradient_steps == 0 or data is None or data.steps < 2:
            return 0
        before = self.updates
        new = stored_episodes(storage, space, choices=choices, since=metrics.fitted)
        if before > 0 and new is not None:
            metrics.add("world/error_ahead", self.error(new))
        if before == 0:
            gradient_steps += self.config.first_fit
        for step in self.fit(data, gradient_steps, batch_size):
            metrics.add_update(*metrics_of(step))
        metrics.fitted = storage.cursor.copy()
        return self.updates - before

    def observe(self, observation: Array, goals: Array) -> None:
        """Nothing: a world's scaling is fitted with it."""

    def fit(self, data: Episodes, steps: int, records: int) -> list[Metrics]:
        """Fits the world further, or a closed form anew; the metrics of every step."""
        metrics = list(
            self.world.fit(
                data,
                steps=steps,
                records=records,
                learning_rate=float(self.learning_rate),
                generator=self.generator,
            )
        )
        self._settle()
        return metrics

    def error(self, data: Episodes) -> float:
        """Squared error one step ahead on data, a mean over standardised columns."""
        return self.world.evaluate(data, self.generator)["error"]

    # As plain data

    def _tensors(self) -> dict[str, Tensor]:
        """What forecasts depend on."""
        return {"vector": self.world.vector, **self.world.scaling.tensors()}

    def _settle(self) -> None:
        """Moves the world's weights to their place."""
        for name, tensor in self._tensors().items():
            self._kept[name].copy_(tensor)
        self.world.vector = self._kept["vector"]
        self.world.scaling = Scaling.of_tensors(self._kept)

    def weights(self) -> dict[str, Tensor]:
        """The world's parameters by name, and its scaling; they share memory."""
        views = self.world.model.views(self._kept["vector"])
        named = {f"world.{name}": view for name, view in views.items()}
        scaling = {f"scaling.{k}": v for k, v in self._kept.items() if k != "vector" and len(v)}
        return named | scaling

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next fit and plan depend on."""
        state = self.world.state_dict()
        facts = {name: state.pop(name) for name in ("model", "layout", "steps")}
        return {
            "weights": self.weights(),
            "optimiser": {k: v for k, v in state.items() if k not in self._kept},
            "world": facts,
            "generator": self.generator.get_state().numpy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it belongs to another agent, world model or environment.
        """
        mine, saved = self.weights(), state["weights"]
        shapes = [{name: tuple(x.shape) for name, x in part.items()} for part in (mine, saved)]
        if shapes[0] != shapes[1]:
            model = state["world"]["model"] if "world" in state else "none at all"
            raise ValueError(
                f"the saved parameters belong to another agent: its world is {model}, this one's "
                f"is {WORLDS.describe(self.world.model)}; use the settings it was trained with"
            )
        kept = {name: torch.empty_like(tensor) for name, tensor in self._kept.items()}
        views = {f"world.{k}": v for k, v in self.world.model.views(kept["vector"]).items()}
        views |= {f"scaling.{name}": tensor for name, tensor in kept.items()}
        for name, tensor in saved.items():
            views[name].copy_(tensor)
        self.world.load_state_dict({**state["world"], **state["optimiser"], **kept})
        self._settle()
        self.generator.set_state(torch.from_numpy(np.array(state["generator"], np.uint8)))
