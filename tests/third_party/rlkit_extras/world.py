"""A world model: a network with one hidden layer predicts the change of the observation."""

from dataclasses import dataclass

import torch

from rlkit.networks import Mlp
from rlkit.world import Markov, Step, Widths, unroll


@dataclass(frozen=True)
class Residual(Markov):
    """Deterministic dynamics: the next observation is the last one plus a network's output."""

    hidden: int = 64
    """Width of the hidden layer."""
    widths: Widths | None = None

    @property
    def network(self):
        """From observation and action to change and outcome."""
        w = self.known
        return Mlp((w.observation, w.action), (self.hidden,), w.target)

    def shapes(self):
        """Name and shape of every parameter."""
        return self.network.shapes()

    def fill(self, views, generator):
        """Fresh parameters."""
        self.network.fill(views, generator)

    def with_widths(self, widths):
        """The same model for other columns; binary outcomes are refused."""
        if widths.binary:
            raise ValueError("residual predicts numbers, no binary outcomes; use ensemble")
        return super().with_widths(widths)

    def predict(self, vector, x, action):
        """Next observation and outcome `(n, F + K)`."""
        y = self.network(vector, [x, action])[0]
        return y + torch.nn.functional.pad(x, (0, self.known.outcome))

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        """A trajectory per row; there is no randomness in it."""

        def step(hidden_state, action):
            y = self.predict(vector, hidden_state[0], action)
            return Step(y, None, None, (y[:, : self.known.observation],))

        return unroll(step, hidden_state, policy, horizon)

    def loss(self, vector, windows, generator, step):
        """Squared error of predicting one step ahead."""
        x, action = windows.observation[:, :-1], windows.action
        y = self.predict(vector, x.flatten(0, 1), action.flatten(0, 1)).view(windows.target.shape)
        squared = (y - windows.target).square()
        return windows.mean(squared.sum(2)), {"error": windows.mean(squared.mean(2)).detach()}
