"""World models for tests: with a known imagination, a broken one, and one without a vector."""

from dataclasses import dataclass, replace

import torch

from rlkit.world import Ensemble, Widths
from rlkit.world.models.parametric import Markov, Step, unroll


@dataclass(frozen=True)
class Drift(Markov):
    """The first columns move by a tenth of the action; the reward is minus the first column.

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
            x = hidden_state[0].clone()
            x[:, : action.shape[1]] += 0.1 * action
            values = torch.zeros(len(x), outcome)
            if outcome:
                values[:, 0] = -x[:, 0] + self.noise * torch.randn(len(x), generator=generator)
                values[:, 1] = (x[:, 0] > 0.35).float()  # terminated
            return Step(torch.cat([x, values], 1), None, None, (x,))

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


@dataclass(frozen=True)
class Records:
    """Predicts the mean change of the nearest records; these are its parameters, no flat vector."""

    count: int = 3
    window: int = 1
    widths: Widths | None = None
    differentiable = False

    def with_widths(self, widths):
        return replace(self, widths=widths)

    def initial_parameters(self, generator):
        w = self.widths
        return {
            "inputs": torch.zeros(1, w.observation + w.action),
            "targets": torch.zeros(1, w.target),
        }

    def views(self, parameters):
        return parameters

    def from_views(self, views):
        if views.keys() != {"inputs", "targets"}:
            raise ValueError(f"these are no records, but {sorted(views)}")
        return dict(views)

    def solve(self, batches):
        inputs, targets = [], []
        for windows in batches:
            counted = windows.counted > 0
            x = torch.cat([windows.observation[:, :-1], windows.action], 2)[counted]
            y = windows.target[counted]
            y[:, : self.widths.observation] -= x[:, : self.widths.observation]
            inputs.append(x), targets.append(y)
        return {"inputs": torch.cat(inputs), "targets": torch.cat(targets)}

    def initial(self, count, device="cpu"):
        return (torch.zeros(count, self.widths.observation, device=device),)

    def observe(self, parameters, x, previous_action, hidden_state, is_first, generator=None):
        return (x[:, -1].clone(),)

    def imagine(self, parameters, hidden_state, policy, horizon, generator, temperature=1.0):
        width = self.widths.observation

        def step(hidden_state, action):
            mean, scale = self.predict(parameters, torch.cat([hidden_state[0], action], 1))
            sample = mean + temperature * scale * torch.randn(mean.shape, generator=generator)
            return Step(sample, mean, scale, (sample[:, :width],))

        return unroll(step, hidden_state, policy, horizon)

    def loss(self, parameters, windows, generator, step):
        x = torch.cat([windows.observation[:, :-1], windows.action], 2)
        mean, _ = self.predict(parameters, x.flatten(0, 1))
        errors = (mean.view(windows.target.shape) - windows.target).square().mean(2)
        error = windows.mean(errors)
        return error, {"error": error}

    def predict(self, parameters, x):
        near = torch.cdist(x, parameters["inputs"])
        nearest = near.topk(min(self.count, near.shape[1]), largest=False).indices
        found = parameters["targets"][nearest]
        mean = found.mean(1)
        mean[:, : self.widths.observation] += x[:, : self.widths.observation]
        return mean, found.std(1, correction=0) + 0.05
