"""Twin delayed deep deterministic policy gradient.

Source: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods",
algorithm 1. Deviations, each an option: layer norm in the critics, targets bounded to reachable
returns, a penalty on large actions as in the HER baselines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from rlkit.networks import gradient, with_target
from rlkit.networks.gradient import Metrics, State
from rlkit.offpolicy.algorithm import Algorithm
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.settings import ActorCriticConfig, ActorCritics
from rlkit.offpolicy.transitions import Inputs, Transitions


@dataclass(frozen=True)
class TD3Config(ActorCriticConfig):
    """Settings of TD3."""

    policy_delay: int = 2
    """Critic updates per update of policy and targets, >= 1."""
    target_policy_noise: float = 0.2
    """Deviation of the noise on target actions, >= 0."""
    target_noise_clip: float = 0.5
    """Largest such noise, >= 0."""
    exploration_noise: float = 0.1
    """Deviation of the Gaussian noise on training actions, whose range is [-1, 1]; >= 0."""
    action_penalty: float = 0.03
    """Weight of the mean squared pre-activation of the policy, >= 0. The paper has none (0), and in
    sparse tasks tanh then saturates on some seeds and learning stops."""
    actor_critics: ActorCritics = "first"
    """Which value of its actions the actor maximises: the first critic's, or the minimum or the
    mean of all critics."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        super().__post_init__()
        if self.policy_delay < 1:
            raise ValueError(f"policy_delay must be >= 1, got {self.policy_delay}")
        for name in (
            "target_policy_noise",
            "target_noise_clip",
            "exploration_noise",
            "action_penalty",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


class TD3Learner(GradientLearner):
    """A deterministic policy and an ensemble of critics, each with a target."""

    config_class = TD3Config
    config: TD3Config
    targets: ClassVar[dict[str, str]] = {"actor_target": "actor", "critic_target": "critic"}
    borrows: ClassVar[dict[str, str]] = {"actor": "critic"}

    def initial_state(self, generator: torch.Generator) -> State:
        """Actor and critics with their targets."""
        c, s = self.config, self.sizes
        inputs = (s.observation, s.goal)
        self.actor = self.network("actor", inputs, s.action)
        self.critic = self.network("critic", (*inputs, s.action), 1, c.critics, c.layer_norm)
        self.networks = {
            "actor": self.actor,
            "critic": self.critic,
            "actor_target": self.actor,
            "critic_target": self.critic,
        }
        return {
            **with_target("actor", self.actor.initial_parameters(generator)),
            **with_target("critic", self.critic.initial_parameters(generator)),
        }

    def draw_noise(self, rows: int) -> Tensor:
        """Standard normal numbers `(rows, A)` for the target actions."""
        shape = (rows, self.sizes.action)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def phase(self) -> int:
        """1 where the policy is updated, else 0."""
        return int((self.updates + 1) % self.config.policy_delay == 0)

    def policy(self, inputs: Inputs, explore: bool) -> Tensor:
        """The policy's action, with Gaussian noise in training."""
        action = self.actor(self.state["actor"], inputs)[0].tanh()
        if explore:
            noise = self.config.exploration_noise * self.exploration_noise(action)
            action = (action + noise).clamp(-1, 1)
        return action

    def values(self, batch: State) -> Tensor:
        """The lowest critic's value of the policy at every step of a prepared batch, `(R,)`."""
        rows = self.transitions(self.state, batch, "actor", "critic")
        action = self.policy(rows.actor.current, explore=False)
        return self.critic(self.state["critic"], (*rows.critic.current, action))[..., 0].amin(0)

    def update_function(
        self, state: State, batch: State, noise: Tensor, target_rate: Tensor, step: int
    ) -> tuple[State, Metrics]:
        """Critics; with `step` 1 also the actor and the targets."""
        trained = ("critic", "actor") if step == 1 else ("critic",)
        rows = self.transitions(state, batch, *trained, "actor_target", "critic_target")
        target = self._target(state, rows, noise)
        grad, metrics, changes = self.critic_gradient(
            lambda critic: self.critic_loss(critic, rows, target),
            rows.critic.parameters,
            state,
            batch,
        )
        if step == 1:
            loss = partial(self.actor_loss, state["actor"], state["critic"], rows)
            grad = self.with_actor_gradient(grad, loss, rows.critic.parameters)
        metrics |= self.encoder_grad_norm("critic", grad)
        changes |= self.descend(state, "critic", grad, batch)
        if step == 1:
            critic = changes["critic"]
            grad, more = gradient(
                lambda actor: self.actor_loss(actor, critic, rows), rows.actor.parameters
            )
            metrics |= more | self.encoder_grad_norm("actor", grad)
            changes |= self.descend(state, "actor", grad, batch)
            for name in ("actor", "critic"):
                old = state[f"{name}_target"]
                changes[f"{name}_target"] = torch.lerp(old, changes[name], target_rate)
        return changes, metrics

    def critic_loss(
        self, critic: Tensor, rows: Transitions, target: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Squared error of every critic."""
        q = self.critic(critic, (*rows.critic.current, rows.action)).squeeze(-1)
        loss = rows.mean((q - target) ** 2).sum()
        mean = rows.mean(q).mean()
        metrics = {"critic_loss": loss, "q_mean": mean, "q_max": q.max(), "q_min": q.min()}
        return loss, metrics | rows.td_errors(q, target)

    def actor_loss(
        self, actor: Tensor, critic: Tensor, rows: Transitions
    ) -> tuple[Tensor, Metrics]:
        """The critics' value of the policy's action; of the first one in section 4.2."""
        raw = self.actor(actor, rows.actor.current)[0]
        action = raw.tanh()
        q = self.critic(critic, (*rows.critic.detached(), action)).squeeze(-1)
        loss = -rows.mean(rows.for_actor(q, self.config.actor_critics))
        metrics = {"actor_loss": loss}
        total = loss + self.config.action_penalty * rows.mean((raw**2).mean(-1))
        if self.config.imitation > 0:
            error = (action - rows.action).square().sum(-1)
            metrics["imitation_loss"] = rows.imitation_loss(error, self.config.gamma)
            total = total + self.config.imitation * metrics["imitation_loss"]
        return total, metrics

    def _target(self, state: State, rows: Transitions, noise: Tensor) -> Tensor:
        c = self.config
        smoothing = (c.target_policy_noise * noise).clamp(-c.target_noise_clip, c.target_noise_clip)
        raw = self.actor(state["actor_target"], rows["actor_target"].next)[0]
        action = (raw.tanh() + smoothing).clamp(-1, 1)
        inputs = (*rows["critic_target"].next, action)
        q = rows.for_target(self.critic(state["critic_target"], inputs)).squeeze(-1).amin(0)
        return self.bound(rows.reward + rows.discount * q)


class TD3(Algorithm):
    """TD3 for Box actions, with Stable-Baselines3's interface.

    Options are `TD3Config`'s fields and those of `Algorithm`.
    """

    learner_class = TD3Learner
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box,)
