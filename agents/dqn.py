"""Deep Q-learning.

Source: Mnih et al. 2015, with double Q-learning (van Hasselt et al. 2016, section 4) unless
switched off. Deviations, each an option: several critics with the minimum as target, layer norm,
targets bounded to reachable returns.

An action of K components has a head for each, and its value is the mean of the values that the
heads give to their components (Seyde et al. 2023, "Solving Continuous Control via Q-Learning",
decoupled Q-networks): the best action is then the best component of every head. One component is
plain DQN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rlkit.networks import with_target
from rlkit.networks.gradient import Metrics, State
from rlkit.offpolicy.algorithm import Algorithm
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.settings import LearnerConfig
from rlkit.offpolicy.transitions import Inputs, Transitions


@dataclass(frozen=True)
class DQNConfig(LearnerConfig):
    """Settings of DQN."""

    learning_rate: float = 1e-3
    """Adam's step size, > 0."""
    default_batch_size: ClassVar[int] = 128
    net_arch: tuple[int, ...] | Mapping[str, Sequence[int]] = (64, 64)
    """Widths of the hidden layers."""
    critics: int = 1
    """Networks in the ensemble; the target takes their minimum, for each head alone, >= 1."""
    double: bool = True
    """Whether the online network chooses the action that the target network values."""
    exploration_fraction: float = 0.1
    """Share of training over which random actions become rarer, in [0, 1]; all components of an
    action are random together."""
    exploration_initial_eps: float = 1.0
    """Share of random actions at the start, in [0, 1]."""
    exploration_final_eps: float = 0.05
    """Share of random actions afterwards, in [0, 1]."""
    imitation_margin: float = 0.8
    """By how much `imitation` wants an imitated action's value above the others' (Hester et al.
    2018), >= 0."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {"imitation_margin": (">= 0", self.imitation_margin >= 0)}


class DQNLearner(GradientLearner):
    """An ensemble of action-value networks and its target."""

    config_class = DQNConfig
    config: DQNConfig
    acting = "critic"
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic"}

    def initial_state(self, generator: torch.Generator) -> State:
        """The network and its target."""
        c, s = self.config, self.sizes
        self.choices = s.choices or (s.action,)
        starts = torch.tensor([0, *self.choices[:-1]]).cumsum(0)
        self.starts = starts.to(self.device)
        inputs = (s.observation, s.goal)
        self.critic = self.network("critic", inputs, s.action, c.critics, c.layer_norm)
        self.networks = {"critic": self.critic, "critic_target": self.critic}
        return with_target("critic", self.critic.initial_parameters(generator))

    def policy(self, inputs: Inputs, explore: bool) -> Tensor:
        """The action of highest mean value, `(n,)` or `(n, K)`; others mix in random ones."""
        best = self.best(self.critic(self.state["critic"], inputs).mean(0))
        return best if self.sizes.choices else best.squeeze(-1)

    def values(self, batch: State) -> Tensor:
        """The best action's value at every step of a prepared batch, mean over critics, `(R,)`."""
        rows = self.transitions(self.state, batch, "critic")
        found = self.critic(self.state["critic"], rows.critic.current).mean(0)
        return self.value_of(self.best(found), found)

    def best(self, values: Tensor) -> Tensor:
        """The components of highest value, `(R, K)`, by the values of all choices `(R, A)`."""
        heads = torch.split(values, list(self.choices), dim=-1)
        return torch.stack([head.argmax(-1) for head in heads], dim=-1)

    def value_of(self, action: Tensor, values: Tensor) -> Tensor:
        """Values of actions, the mean over their components.

        Args:
            action: `(R, K)`.
            values: Of all choices, `(..., R, A)`.

        Returns:
            `(..., R)`.
        """
        index = (action + self.starts).expand(*values.shape[:-1], -1)
        return values.gather(-1, index).mean(-1)

    def update_function(
        self, state: State, batch: State, noise: Tensor, target_rate: Tensor, step: int
    ) -> tuple[State, Metrics]:
        """The network, then its target."""
        rows = self.transitions(state, batch, "critic", "critic_target")
        target = self._target(state, rows)
        grad, metrics, changes = self.critic_gradient(
            lambda critic: self.critic_loss(critic, rows, target),
            rows.critic.parameters,
            state,
            batch,
        )
        metrics |= self.encoder_grad_norm("critic", grad)
        changes |= self.descend(state, "critic", grad, batch)
        old = state["critic_target"]
        changes["critic_target"] = torch.lerp(old, changes["critic"], target_rate)
        return changes, metrics

    def critic_loss(
        self, critic: Tensor, rows: Transitions, target: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Huber error of the actions taken."""
        values = self.critic(critic, rows.critic.current)
        action = rows.action.reshape(len(rows.reward), -1)
        q = self.value_of(action, values)
        error = F.smooth_l1_loss(q, target.expand_as(q), reduction="none")
        loss = rows.mean(error).sum()
        mean = rows.mean(q).mean()
        metrics = {"critic_loss": loss, "q_mean": mean, "q_max": q.max(), "q_min": q.min()}
        if self.config.imitation > 0:
            excess = self.margin_excess(values, action, q)
            metrics["imitation_loss"] = rows.imitation_loss(excess, self.config.gamma).sum()
            loss = loss + self.config.imitation * metrics["imitation_loss"]
        return loss, metrics | rows.td_errors(q, target)

    def margin_excess(self, values: Tensor, action: Tensor, q: Tensor) -> Tensor:
        """How far the best other action comes within the margin of the one taken, `(N, R)`.

        Source: Hester et al. 2018, "Deep Q-learning from Demonstrations", section on the supervised
        loss: max_a [Q(s, a) + l(a_E, a)] - Q(s, a_E). With several components the maximum over
        actions is the mean of the heads' own, like their values.

        Args:
            values: Of all choices, `(N, R, A)`.
            action: The actions taken, `(R, K)`.
            q: Their values `(N, R)`.
        """
        raised = values + self.config.imitation_margin
        taken = (action + self.starts).expand(*values.shape[:-1], -1)
        raised = raised.scatter(-1, taken, values.gather(-1, taken))
        heads = torch.split(raised, list(self.choices), dim=-1)
        return torch.stack([head.amax(-1) for head in heads]).mean(0) - q

    def _target(self, state: State, rows: Transitions) -> Tensor:
        values = self.critic(state["critic_target"], rows["critic_target"].next).amin(0)
        judged = values
        if self.config.double:
            judged = self.critic(state["critic"], rows.critic.next).mean(0)
        next_value = self.value_of(self.best(judged), values)
        return self.bound(rows.reward + rows.discount * next_value)


class DQN(Algorithm):
    """DQN for Discrete, MultiDiscrete and MultiBinary actions, with Stable-Baselines3's interface.

    Options are `DQNConfig`'s fields and those of `Algorithm`.
    """

    learner_class = DQNLearner
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
    )

    evolving = ("exploration_rate",)
    exploration_rate: float = 1.0

    @property
    def q_net(self) -> Any:
        """The network as a policy of its own, under SB3's name."""
        return self.policy.critic

    @property
    def q_net_target(self) -> Any:
        """The target network, under SB3's name."""
        return self.policy.critic_target

    def random_fraction(self) -> float:
        """Share of random actions now: a line down to its final value, then constant."""
        return self.exploration_rate

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        c = self.config
        done = 1.0 - self._current_progress_remaining
        share = 1.0 if c.exploration_fraction == 0 else min(1.0, done / c.exploration_fraction)
        start, end = c.exploration_initial_eps, c.exploration_final_eps
        self.exploration_rate = start + share * (end - start)
