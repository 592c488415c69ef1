"""An encoder: exponential moving averages of projected inputs over several horizons."""

from dataclasses import dataclass, replace

import torch

from rlkit.networks import Parametric


@dataclass(frozen=True)
class Averages(Parametric):
    """Features are averages of tanh(x W) over each of the horizons."""

    width: int = 16
    """Columns of W."""
    horizons: tuple[float, ...] = (2.0, 8.0, 32.0)
    """Steps over which the weights of past inputs fall by a factor e."""
    inputs: int = 0

    @property
    def features(self):
        """D, the width of one output."""
        return self.width * len(self.horizons)

    def with_inputs(self, inputs):
        """The same encoder for inputs of a width."""
        return replace(self, inputs=inputs)

    def shapes(self):
        """Name and shape of every parameter."""
        return {"project": (self.inputs, self.width)}

    def fill(self, views, generator):
        """Fresh parameters."""
        views["project"].normal_(0.0, max(self.inputs, 1) ** -0.5, generator=generator)

    def initial(self, count, device="cpu"):
        """Hidden state of `count` fresh episodes: averages of zeros."""
        return (torch.zeros(count, self.features, device=device),)

    def step(self, vector, x, hidden_state, is_first):
        """One step: `(B, I) -> (B, D)`."""
        keep = torch.exp(-1 / torch.tensor(self.horizons, device=x.device))
        projected = (x @ self.views(vector)["project"]).tanh().repeat(1, len(self.horizons))
        before = hidden_state[0].masked_fill(is_first.unsqueeze(1), 0.0)
        after = torch.lerp(projected, before, keep.repeat_interleave(self.width))
        return after, (after,)

    def scan(self, vector, x, hidden_state, is_first, generator=None):
        """A window of steps: `(B, T, I) -> (B, T, D)`."""
        hidden_state, features = (hidden_state[0].detach(),), []
        for t in range(x.shape[1]):
            y, hidden_state = self.step(vector, x[:, t], hidden_state, is_first[:, t])
            features.append(y)
        return torch.stack(features, 1), (hidden_state[0].detach(),)
