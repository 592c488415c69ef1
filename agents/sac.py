"""Soft actor-critic.

Source: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", with the entropy
weight learned (section 5). Deviations, each an option: layer norm in the critics, targets bounded
to reachable returns, no entropy bonus in the target, any number of critics, of which targets take
the minimum of a random few (Chen et al. 2021, REDQ), and critics that learn quantiles (Kuznetsov et
al. 2020, TQC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rlkit.networks import ADAM, adam_state, gradient, with_target
from rlkit.networks.gradient import Metrics, State
from rlkit.networks.quantiles import lowest_quantiles, quantile_huber
from rlkit.networks.state_dependent import StateDependentHead
from rlkit.offpolicy.algorithm import Algorithm
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.network_settings import StateDependent
from rlkit.offpolicy.settings import ActorCriticConfig, ActorCritics
from rlkit.offpolicy.transitions import Inputs, Transitions

LOG_STD_RANGE = (-20.0, 2.0)


@dataclass(frozen=True)
class SACConfig(ActorCriticConfig, StateDependent):
    """Settings of soft actor-critic."""

    ent_coef: float | str = "auto"
    """Entropy weight: "auto" learns it ("auto_0.1": from 0.1 on), a number >= 0 fixes it."""
    initial_ent_coef: float = 1.0
    """Entropy weight to start from when it is learned, > 0."""
    target_entropy: float | str = "auto"
    """Entropy that the learned weight aims at, in nats; "auto" is minus the action's width."""
    entropy_in_target: bool = True
    """Whether values count future entropy. Without it values are plain returns, so that targets
    can be bounded; with it no bound is applied."""
    policy_delay: int = 1
    """Critic updates per update of policy and entropy weight, >= 1; many of the former need few of
    the latter (Chen et al. 2021, algorithm 1)."""
    quantiles: int = 0
    """Quantiles of the return that each critic learns, >= 0, in place of its mean (Kuznetsov et al.
    2020, TQC); 0 learns the mean."""
    top_quantiles_to_drop_per_net: int = 2
    """How many of the highest quantiles per critic targets leave out, >= 0, less than `quantiles`,
    where there are any. Dropping more lowers values."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        dropped = self.top_quantiles_to_drop_per_net
        return super().ranges() | {
            "policy_delay": (">= 1", self.policy_delay >= 1),
            "quantiles": (">= 0", self.quantiles >= 0),
            "top_quantiles_to_drop_per_net": (
                f">= 0 and less than quantiles = {self.quantiles}",
                dropped >= 0 and (self.quantiles == 0 or dropped < self.quantiles),
            ),
        }

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        super().__post_init__()
        if self.use_sde and self.coloured_noise > 0:
            raise ValueError(
                f"coloured_noise = {self.coloured_noise} does not go with use_sde = True, whose "
                f"noise is correlated already; leave one of them out"
            )
        if self.learns_ent_coef:
            _ = self.first_ent_coef
        elif not _is_number(self.ent_coef) or not 0 <= float(self.ent_coef) < math.inf:
            raise ValueError(
                f'ent_coef = {self.ent_coef!r} must be "auto", "auto_" and the weight to start '
                f"from, or a number >= 0"
            )
        if self.target_entropy != "auto" and not _is_number(self.target_entropy):
            raise ValueError(f'target_entropy = {self.target_entropy!r} must be "auto" or a number')
        if not self.initial_ent_coef > 0:
            raise ValueError(f"initial_ent_coef must be > 0, got {self.initial_ent_coef}")

    @property
    def learns_ent_coef(self) -> bool:
        """Whether the entropy weight is learned."""
        return isinstance(self.ent_coef, str) and self.ent_coef.partition("_")[0] == "auto"

    @property
    def first_ent_coef(self) -> float:
        """The entropy weight to start from."""
        if not self.learns_ent_coef:
            return float(self.ent_coef)
        _, joined, start = str(self.ent_coef).partition("_")
        if not joined:
            return self.initial_ent_coef
        try:
            value = float(start)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise ValueError(
                f"ent_coef = {self.ent_coef!r} must have a number > 0 after auto_, the weight to "
                f"start from: auto_0.1"
            )
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class SACLearner(GradientLearner):
    """A squashed Gaussian policy, an ensemble of critics, and the entropy weight."""

    config_class = SACConfig
    config: SACConfig
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic"}
    borrows: ClassVar[dict[str, str]] = {"actor": "critic"}

    def initial_state(self, generator: torch.Generator) -> State:
        """Actor, critics with their target, and the logarithm of the entropy weight."""
        c, s = self.config, self.sizes
        inputs = (s.observation, s.goal)
        self.actor = self.network("actor", inputs, s.action if c.use_sde else 2 * s.action)
        outputs = c.quantiles or 1
        self.critic = self.network("critic", (*inputs, s.action), outputs, c.critics, c.layer_norm)
        self.networks = {
            "actor": self.actor,
            "critic": self.critic,
            "critic_target": self.critic,
        }
        self.learned, start = c.learns_ent_coef, c.first_ent_coef
        self.target_entropy = (
            -float(s.action) if c.target_entropy == "auto" else float(c.target_entropy)
        )
        return {
            **adam_state("actor", self.actor.initial_parameters(generator)),
            **with_target("critic", self.critic.initial_parameters(generator)),
            **adam_state("log_ent_coef", torch.tensor([math.log(max(start, 1e-30))])),
        }

    def draw_noise(self, rows: int) -> Tensor:
        """Standard normal numbers `(2, rows, A)`: for the next actions and the current ones."""
        if self.state_dependent is not None:  # one matrix for all rows
            shape = (1, *self.state_dependent.shapes()["log_std"])
            matrix = torch.randn(shape, generator=self.generator, device=self.device)
            return matrix.expand(2, -1, -1)
        shape = (2, rows, self.sizes.action)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def phase(self) -> int:
        """1 where the policy waits for another update of the critics, else 0."""
        return int((self.updates + 1) % self.config.policy_delay != 0)

    @property
    def state_dependent(self) -> StateDependentHead | None:
        """The actor's head with gSDE; None without."""
        head = getattr(self.actor, "head", self.actor)
        return head if isinstance(head, StateDependentHead) else None

    def reset_noise(self, count: int = 1) -> None:
        """Draws new noise matrices of gSDE for a number of environments.

        Raises:
            ValueError: Without `use_sde`.
        """
        if self.state_dependent is None:
            raise ValueError("there is noise to reset with use_sde = True alone")
        shape = (count, *self.state_dependent.shapes()["log_std"])
        self._noise = torch.randn(shape, generator=self.generator, device=self.device)

    def _state_dependent_policy(
        self, head: StateDependentHead, inputs: Inputs, explore: bool
    ) -> Tensor:
        deviations = head.deviations(self.state["actor"])
        outputs = self.actor(self.state["actor"], inputs)[0]
        mean, _, features = head.distribution(outputs, deviations)
        if explore:
            if len(self._noise) == 0:
                self.reset_noise(len(mean))
            # Where there are more observations than environments, all have the first one's noise.
            own = self._noise if len(self._noise) == len(mean) else self._noise[:1]
            mean = mean + torch.einsum(
                "nh,nha->na", features, (deviations * own).expand(len(mean), -1, -1)
            )
        return mean.tanh()

    def policy(self, inputs: Inputs, explore: bool) -> Tensor:
        """The mode of the policy, or a sample of it."""
        if self.state_dependent is not None:
            return self._state_dependent_policy(self.state_dependent, inputs, explore)
        mean, log_std = self._gaussian(self.state["actor"], inputs)
        if explore:
            mean = mean + log_std.exp() * self.exploration_noise(mean)
        return mean.tanh()

    def values(self, batch: State) -> Tensor:
        """The critics' value of the policy at every step of a prepared batch, `(R,)`."""
        rows = self.transitions(self.state, batch, "actor", "critic")
        action = self.policy(rows.actor.current, explore=False)
        inputs = (*rows.critic.current, action)
        q = self._means(self.critic(self.state["critic"], inputs))
        return rows.for_actor(q, self.config.actor_critics)

    def update_function(
        self, state: State, batch: State, noise: Tensor, target_rate: Tensor, step: int
    ) -> tuple[State, Metrics]:
        """Critics, actor and entropy weight unless `step` is 1, target, in this order."""
        rows = self.transitions(state, batch, "actor", "critic", "critic_target")
        ent_coef = state["log_ent_coef"].exp()

        target = self._target(state, rows, ent_coef, noise[0])
        grad, metrics, changes = self.critic_gradient(
            lambda critic: self.critic_loss(critic, rows, target),
            rows.critic.parameters,
            state,
            batch,
        )

        def loss(actor: Tensor, critic: Tensor) -> tuple[Tensor, Metrics]:
            return self.actor_loss(actor, critic, rows, ent_coef, noise[1])

        if step == 0:
            both = partial(loss, state["actor"], state["critic"])
            grad = self.with_actor_gradient(grad, both, rows.critic.parameters)
        metrics |= self.encoder_grad_norm("critic", grad)
        changes |= self.descend(state, "critic", grad, batch)

        # The critic's features are from before its step: another scan would change little.
        critic = changes["critic"]
        if step == 0:
            grad, more = gradient(lambda actor: loss(actor, critic), rows.actor.parameters)
            metrics |= more | self.encoder_grad_norm("actor", grad)
            changes |= self.descend(state, "actor", grad, batch)
        if step == 0 and self.learned:
            # Equation 18 has the weight itself; implementations descend its logarithm.
            surplus = metrics["entropy"] - self.target_entropy
            changes |= ADAM.step(state, "log_ent_coef", surplus.reshape(1), batch["learning_rate"])
        metrics["ent_coef"] = ent_coef[0]
        changes["critic_target"] = torch.lerp(state["critic_target"], critic, target_rate)
        return changes, metrics

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `GradientLearner.load_state_dict`."""
        own = self.state["log_ent_coef"].clone()
        super().load_state_dict(state)
        if not self.learned:  # a setting, which may have changed since
            self.state["log_ent_coef"].copy_(own)

    def critic_loss(
        self, critic: Tensor, rows: Transitions, target: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Squared error of every critic (equation 5), or that of its quantiles."""
        found = self.critic(critic, (*rows.critic.current, rows.action))
        q = self._means(found)
        if self.config.quantiles > 0:
            loss = rows.mean(quantile_huber(found, target)).sum()
            target = target.mean(-1)
        else:
            loss = 0.5 * rows.mean((q - target) ** 2).sum()
        mean = rows.mean(q).mean()
        metrics = {"critic_loss": loss, "q_mean": mean, "q_max": q.max(), "q_min": q.min()}
        return loss, metrics | rows.td_errors(q, target)

    def actor_loss(
        self, actor: Tensor, critic: Tensor, rows: Transitions, ent_coef: Tensor, noise: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Expected value and entropy of the policy's own actions (equation 9)."""
        action, log_prob, mode = self._draw(actor, rows.actor.current, noise)
        q = self._means(self.critic(critic, (*rows.critic.detached(), action)))
        loss = rows.mean(ent_coef * log_prob - rows.for_actor(q, self.config.actor_critics))
        metrics = {"actor_loss": loss, "entropy": -rows.mean(log_prob)}
        if self.config.imitation > 0:
            error = (mode.tanh() - rows.action).square().sum(-1)
            metrics["imitation_loss"] = rows.imitation_loss(error, self.config.gamma)
            loss = loss + self.config.imitation * metrics["imitation_loss"]
        return loss, metrics

    def _target(self, state: State, rows: Transitions, ent_coef: Tensor, noise: Tensor) -> Tensor:
        action, log_prob = self._sample(state["actor"], rows.actor.next, noise)
        inputs = (*rows["critic_target"].next, action)
        q = rows.for_target(self.critic(state["critic_target"], inputs))
        reward, discount = rows.reward, rows.discount
        if self.config.quantiles > 0:
            q = lowest_quantiles(q, self.config.top_quantiles_to_drop_per_net)
            reward, discount, log_prob = (
                part.unsqueeze(-1) for part in (reward, discount, log_prob)
            )
        else:
            q = q.squeeze(-1).amin(0)
        if self.config.entropy_in_target:
            return reward + discount * (q - ent_coef * log_prob)
        return self.bound(reward + discount * q)

    def _means(self, found: Tensor) -> Tensor:
        """Values `(N, R)` of what the critics give, `(N, R, 1)` or quantiles `(N, R, M)`."""
        return found.mean(-1) if self.config.quantiles > 0 else found.squeeze(-1)

    def _gaussian(self, actor: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(actor, inputs)[0].chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def _sample(self, actor: Tensor, inputs: Inputs, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised actions and their log-probability (appendix C)."""
        return self._draw(actor, inputs, noise)[:2]

    def _draw(self, actor: Tensor, inputs: Inputs, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `_sample` gives, and the policy's mode before it is squashed."""
        if self.state_dependent is not None:
            head = self.state_dependent
            deviations = head.deviations(actor)
            outputs = self.actor(actor, inputs)[0]
            mean, std, features = head.distribution(outputs, deviations)
            added = features @ (deviations * noise)
            raw, log_std, noise = mean + added, std.log(), added / std
        else:
            mean, log_std = self._gaussian(actor, inputs)
            raw = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2) in a form that does not underflow.
        squash = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
        normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        return raw.tanh(), (normal - squash).sum(-1), mean


class SAC(Algorithm):
    """Soft actor-critic for Box actions, with Stable-Baselines3's interface.

    Options are `SACConfig`'s fields and those of `Algorithm`.
    """

    learner_class = SACLearner
    learner: SACLearner
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box,)

    def before_step(self, steps: int) -> None:
        """Draws new noise of gSDE where a rollout begins, and in its course."""
        every = self.config.sde_sample_freq
        if self.config.use_sde and (steps == 0 or (every > 0 and steps % every == 0)):
            self.learner.reset_noise(self.n_envs)

    @property
    def log_ent_coef(self) -> Tensor | None:
        """Logarithm of the learned entropy weight, None where it is fixed."""
        return self.learner.state["log_ent_coef"].clone() if self.learner.learned else None

    @property
    def ent_coef_tensor(self) -> Tensor:
        """The current entropy weight."""
        return self.learner.state["log_ent_coef"].exp()


@dataclass(frozen=True)
class TQCConfig(SACConfig):
    """Settings of TQC, with the defaults of SB3-Contrib."""

    quantiles: int = 25
    """Quantiles of the return that each critic learns, >= 1."""
    actor_critics: ActorCritics = "mean"
    """Which value of its actions the actor maximises: the mean of all quantiles of all critics, or
    the mean of the lowest or the first critic."""

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """See `Settings.ranges`."""
        return super().ranges() | {"quantiles": (">= 1", self.quantiles >= 1)}


class TQCLearner(SACLearner):
    """A squashed Gaussian policy, critics that learn quantiles, and the entropy weight."""

    config_class = TQCConfig


class TQC(SAC):
    """Truncated quantile critics: SAC whose critics learn quantiles, without the highest ones.

    Source: Kuznetsov et al. 2020, "Controlling Overestimation Bias with Truncated Mixture of
    Continuous Distributional Quantile Critics"; it has 5 critics, of which SB3-Contrib makes 2.
    """

    learner_class = TQCLearner
