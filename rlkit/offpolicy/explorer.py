"""A second policy that seeks changes of the achieved goal, and begins training episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals.rule import GoalRule
from rlkit.names import require_known
from rlkit.networks.gradient import SKIPPED
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.metrics import EXPLORER
from rlkit.replay.batch import Batch, sum_steps
from rlkit.replay.goal_weights import GoalWeights

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

Array = NDArray[Any]
_SUCCESS_RATE = 0.03  # of the running mean of success, per episode
_ACHIEVED, _DESIRED = "achieved_goal", "desired_goal"


@dataclass(frozen=True)
class ExplorerSettings:
    """Settings of the explorer.

    Attributes:
        share: Share of training episodes that it begins while no goal is reached, in (0, 1]. The
            share falls with the success rate, to 0 where every goal is reached.
        net_arch: Widths of its hidden layers.
        gamma: Discount of its rewards per environment step, in [0, 1).
        update_every: Updates of the agent per update of the explorer, >= 1, while no goal is
            reached; the explorer learns less as its share falls.
    """

    share: float = 0.5
    net_arch: tuple[int, ...] = (64, 64)
    gamma: float = 0.975
    update_every: int = 2

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name, condition, holds in (
            ("share", "lie in (0, 1]", 0 < self.share <= 1),
            ("gamma", "lie in [0, 1)", 0 <= self.gamma < 1),
            ("update_every", "be at least 1", self.update_every >= 1),
        ):
            if not holds:
                raise ValueError(f"explorer.{name} must {condition}, got {getattr(self, name)}")


def explorer_settings(given: float | str | Mapping[str, Any] | None) -> ExplorerSettings | None:
    """The settings of an option `explorer`: a share, a table of settings, or None (also "none").

    Raises:
        ValueError: If a setting is unknown or out of range.
    """
    if given is None or given == "none":
        return None
    if isinstance(given, str) or not isinstance(given, Mapping | Real):
        raise ValueError(f'explorer = {given!r} must be a share, a table of settings, or "none"')
    if not isinstance(given, Mapping):
        return ExplorerSettings(share=float(given))
    require_known("explorer", given, tuple(ExplorerSettings.__dataclass_fields__))
    settings: dict[str, Any] = dict(given)
    if "net_arch" in settings:
        settings["net_arch"] = tuple(settings["net_arch"])
    return ExplorerSettings(**settings)


class Explorer:
    """Learns to change the achieved goal, and begins a share of the training episodes.

    Where chance hardly ever changes what is achieved, hindsight has nothing to learn from. This
    policy knows no goal. Its reward is how far a step moves the achieved goal, over the running
    root mean square of all moves, at most 1, and 0 outside the range of goals that were asked for.
    It acts for the first steps of an episode, their number drawn uniformly from 1 to the longest
    episode's, and the agent goes on from there. Both learn from the same replay buffer.

    Source: rewards for changes that an action makes, as Raileanu and Rocktaeschel 2020 (RIDE,
    equation 1) give them. Deviations: the achieved goal takes the place of a learned embedding,
    rewards are not divided by counts, and they train a policy of their own.

    Args:
        settings: The settings.
        agent: Whose episodes it begins; its kind of learner is the explorer's, too.
        seed: Of its generators.

    Raises:
        ValueError: If goals are not vectors, or networks read images.
    """

    def __init__(
        self, settings: ExplorerSettings, agent: Algorithm, seed: np.random.SeedSequence
    ) -> None:
        self.settings, adapter = settings, agent.adapter
        space = agent.observation_encoder.space
        goal = space.spaces.get(_DESIRED) if isinstance(space, spaces.Dict) else None
        reads_images = agent.observation_encoder.joint is not None or getattr(
            agent.config, "features_extractor", None
        )
        if (
            not (isinstance(goal, spaces.Box) and len(goal.shape) == 1)
            or not issubclass(agent.learner_class, GradientLearner)
            or reads_images
        ):
            raise ValueError(
                f"explorer = {agent.options['explorer']!r} needs goals that are vectors of a Box, "
                f"and an agent whose networks read vectors; the observation space is {space}: "
                f"leave it out"
            )
        learner_seed, actions = seed.spawn(2)
        self.rng = np.random.default_rng(actions)
        self.gamma = settings.gamma**agent.action_repeat
        self.batch_size = agent.config.default_batch_size
        self.learner: GradientLearner = agent.learner_class(
            _config(agent.config, settings, self.gamma),
            adapter.sizes.of(adapter.sizes.observation, 0),
            seed=int(learner_seed.generate_state(1)[0]),
            device=agent.device,
        )
        self.learner.bounds = (0.0, 1 / (1 - self.gamma))
        count = getattr(agent, "n_envs", 1)
        self._steps = np.zeros(count, np.int64)  # of the running episodes
        self._until = np.zeros(count, np.int64)  # steps for which it acts in them
        self._longest = 1
        self._success = 0.0
        self._moves = np.zeros(2)  # sum of squared moves, and their number
        self._range = GoalWeights(out_of_range=0.5, space=goal)  # any weight below 1 tells
        self._due = 0.0

    def act(
        self, agent: Algorithm, observation: Any, action: Array, is_first: NDArray[np.bool_]
    ) -> Array:
        """The agent's actions `(n, *action)`, replaced where the explorer acts.

        Args:
            agent: Whose adapter makes vectors of observations.
            observation: As the agent works with it.
            action: The agent's actions.
            is_first: Where an episode begins, `(n,)`.
        """
        count = len(action)
        share = self.settings.share * (1 - self._success)
        begins = is_first & (self.rng.random(count) < share)
        drawn = self.rng.integers(1, self._longest + 1, count)
        self._until = np.where(is_first, np.where(begins, drawn, 0), self._until)
        self._steps[is_first] = 0
        acts = self._steps < self._until
        if not acts.any():
            return action
        x, goal = agent.adapter.vectors(observation)
        own, _ = self.learner.act(x, goal[:, :0], (), is_first, explore=True)
        return np.where(acts.reshape(-1, *[1] * (action.ndim - 1)), own, action)

    def observe(
        self,
        observation: Mapping[str, Array],
        after: Mapping[str, Array],
        rows: Array,
        ended: NDArray[np.bool_],
        rule: GoalRule,
    ) -> None:
        """Takes in a step of every environment.

        Args:
            observation: Observations before it.
            after: Those after it; where an episode ended, its last.
            rows: Those as vectors, `(n, F)`.
            ended: Where an episode ended, `(n,)`.
            rule: The goal rule.
        """
        self.learner.observe(rows, rows[:, :0])
        achieved, asked = after[_ACHIEVED], observation[_DESIRED]
        move = achieved.astype(np.float64) - observation[_ACHIEVED]
        self._moves += [(move**2).sum(), len(move)]
        self._range.observe(asked)
        self._steps += 1
        over = np.flatnonzero(ended)
        if len(over) == 0:
            return
        self._longest = max(self._longest, int(self._steps[over].max()))
        self._steps[over] = 0
        own = over[self._until[over] == 0]
        for reached in rule.success(achieved[own], asked[own]) if len(own) else ():
            self._success += _SUCCESS_RATE * (float(reached) - self._success)

    def learn(self, agent: Algorithm, updates: int) -> None:
        """Makes its share of updates for a number of the agent's."""
        self._due += updates * (1 - self._success) / self.settings.update_every
        count = int(self._due)
        self._due -= count
        self.learner.learning_rate.copy_(agent.learner.learning_rate)
        storage = agent.replay_buffer.storage
        for _ in range(count):
            batch = storage.window(*storage.sample_steps(self.batch_size, self.rng), 1)
            arrays = agent.adapter.batch(self._rewarded(batch, agent.rule))
            names, values = self.learner.update({**arrays, "goal": arrays["goal"][..., :0]})
            own = [name if name == SKIPPED else f"{EXPLORER}{name}" for name in names]
            agent.metrics.add_update(own, values)

    def _rewarded(self, batch: Batch, rule: GoalRule) -> Batch:
        """Steps with the explorer's rewards."""
        achieved = batch.observation[_ACHIEVED].astype(np.float64)
        move = np.linalg.norm(achieved[:, 1:] - achieved[:, :-1], axis=-1)
        scale = np.sqrt(self._moves[0] / max(self._moves[1], 1)) + 1e-9
        after = achieved[:, 1:].reshape(-1, achieved.shape[-1]).astype(np.float32)
        inside = (self._range.weigh(rule, after, after) == 1).reshape(move.shape)
        reward = (np.minimum(move / scale, 1.0) * inside).astype(np.float32)
        return sum_steps(batch.replace(reward=reward), self.gamma, 1)

    def state_dict(self) -> dict[str, Any]:
        """Everything that it does next depends on."""
        return {
            "learner": self.learner.state_dict(),
            "rng": self.rng.bit_generator.state,
            "steps": self._steps.copy(),
            "until": self._until.copy(),
            "moves": self._moves.copy(),
            "range": self._range.state_dict(),
            "longest": self._longest,
            "success": self._success,
            "due": self._due,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it belongs to another explorer.
        """
        self.learner.load_state_dict(state["learner"])
        self.rng.bit_generator.state = state["rng"]
        self._steps, self._until = np.array(state["steps"]), np.array(state["until"])
        self._moves = np.array(state["moves"])
        self._range.load_state_dict(state["range"], np.zeros(0))
        self._longest, self._due = int(state["longest"]), float(state["due"])
        self._success = float(state["success"])


def _config(config: Any, settings: ExplorerSettings, gamma: float) -> Any:
    """The agent's configuration with what an explorer has of its own."""
    own = {
        "net_arch": settings.net_arch,
        "gamma": gamma,
        "network": None,
        "encoder": None,
        "imitation": 0.0,
        "goal_input": "absolute",
        "input_features": "none",
        "use_sde": False,
        "policy_ema": 0.0,
        "compile": False,  # a graph takes longer to build than these small networks save
    }
    names = {field.name for field in fields(config)}
    return replace(config, **{name: value for name, value in own.items() if name in names})


def make_explorer(agent: Algorithm, seed: np.random.SeedSequence) -> Explorer | None:
    """The explorer of an agent; None without one."""
    settings = explorer_settings(agent.options["explorer"])
    return None if settings is None else Explorer(settings, agent, seed)
