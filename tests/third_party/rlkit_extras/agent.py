"""An agent: goal-conditioned supervised learning."""

from dataclasses import dataclass

from gymnasium import spaces

from rlkit.agents import Algorithm, GradientLearner, LearnerConfig
from rlkit.networks import adam_state, gradient


@dataclass(frozen=True)
class GCSLConfig(LearnerConfig):
    """Settings of GCSL."""

    exploration_noise: float = 0.3
    """Standard deviation of the Gaussian noise on training actions, >= 0."""


class GCSLLearner(GradientLearner):
    """Imitates the agent's own actions, given the goals that they led to."""

    config_class = GCSLConfig

    def initial_state(self, generator):
        """The actor's parameters and the state of their optimiser."""
        sizes = self.sizes
        self.actor = self.network("actor", (sizes.observation, sizes.goal), sizes.action)
        self.networks = {"actor": self.actor}
        return adam_state("actor", self.actor.initial_parameters(generator))

    def policy(self, inputs, explore):
        """Actions `(n, A)`."""
        action = self.actor(self.state["actor"], inputs)[0].tanh()
        if explore:
            noise = self.config.exploration_noise * self.exploration_noise(action)
            action = (action + noise).clamp(-1, 1)
        return action

    def update_function(self, state, batch, noise, target_rate, step):
        """One step of the optimiser."""
        rows = self.transitions(state, batch, "actor")
        grad, metrics = gradient(
            lambda actor: self.imitation_loss(actor, rows), rows.actor.parameters
        )
        return self.descend(state, "actor", grad, batch), metrics

    def imitation_loss(self, actor, rows):
        """Mean squared error of the actions taken."""
        action = self.actor(actor, rows.actor.current)[0].tanh()
        loss = rows.mean(((action - rows.action) ** 2).mean(-1))
        return loss, {"imitation_loss": loss}


class GCSL(Algorithm):
    """Goal-conditioned supervised learning (Ghosh et al. 2021) for Box actions."""

    learner_class = GCSLLearner
    action_spaces = (spaces.Box,)
