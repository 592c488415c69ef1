"""World models with one fault each, for the scorecard to find."""

from dataclasses import dataclass, replace

import torch

from rlkit.world import LinearDynamics


@dataclass(frozen=True)
class Breaks(LinearDynamics):
    """Says infinity of every row that begins high in its first column."""

    above: float = 0.5

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        made = super().imagine(vector, hidden_state, policy, horizon, generator, temperature)
        high = (hidden_state[0][:, 0] > self.above).view(-1, 1, 1)
        return replace(made, observation=made.observation.masked_fill(high, torch.inf))


@dataclass(frozen=True)
class TooSure(LinearDynamics):
    """Samples of a tenth of the spread that they should have."""

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        return super().imagine(vector, hidden_state, policy, horizon, generator, 0.1)


@dataclass(frozen=True)
class WithCore(LinearDynamics):
    """Has a switch that freezes a core."""

    frozen: bool = False
