"""World models whose imagination is known, or broken."""

from dataclasses import dataclass

import torch

from rlkit.world import Ensemble, Widths
from rlkit.world.models.parametric import Markov, Step, unroll


@dataclass(frozen=True)
class Drift(Markov):
    """The last columns move by a tenth of the action; the reward is minus the first column.

    Exact in raw units as long as nothing was fitted. Futures differ by `noise` in the reward.
    """

    noise: float = 0.0
    widths: Widths | None = None

    def shapes(self):
        return {"unused": (1,)}

    def fill(self, views, generator):
        views["unused"].zero_()

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        outcome = self.known.outcome

        def step(hidden_state, action):
            x = hidden_state[0] + torch.nn.functional.pad(
                0.1 * action, (len(hidden_state[0][0]) - 2, 0)
            )
            told = torch.zeros(len(x), outcome)
            if outcome:
                told[:, 0] = -x[:, 0] + self.noise * torch.randn(len(x), generator=generator)
                told[:, 1] = (x[:, 0] > 0.35).float()  # terminated
            return Step(torch.cat([x, told], 1), None, None, (x,))

        return unroll(step, hidden_state, policy, horizon)

    def loss(self, vector, windows, generator, step):
        loss = vector.square().sum()
        return loss, {"error": loss.detach()}


@dataclass(frozen=True)
class Broken(Ensemble):
    """Forecasts are no numbers: all of them, or those after a first action below 0."""

    everywhere: bool = True

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        first = policy(hidden_state[0], hidden_state, 0)
        made = super().imagine(vector, hidden_state, policy, horizon, generator, temperature)
        where = (first[:, 0] < 0) | self.everywhere
        made.observation[where, -1] = torch.nan
        return made
