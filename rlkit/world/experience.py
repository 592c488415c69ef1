"""Synthetic experience and a world model, on which the laws of world models are checked."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.networks.encoders import HiddenState
from rlkit.world.contract import (
    Imagined,
    Metrics,
    OpenLoop,
    Parameters,
    Policy,
    Widths,
    Windows,
    WorldModel,
)

LATE = 10**9  # a step at which every schedule is over
HORIZON = 4


class Experience:
    """A world model with parameters and synthetic experience.

    Args:
        model: Configured; its widths are set here.
        rows: B, >= 2.
        steps: T, >= 6.
        widths: Of the experience.
        seed: Of parameters and experience.
    """

    def __init__(
        self,
        model: WorldModel,
        rows: int = 4,
        steps: int = 10,
        widths: Widths | None = None,
        seed: int = 0,
    ) -> None:
        self.widths = Widths(3, 2, 1) if widths is None else widths
        self.model = model.with_widths(self.widths)
        self.generator = torch.Generator().manual_seed(seed)
        parameters: Parameters = self.model.initial_parameters(self.generator)
        if isinstance(parameters, Tensor):
            # Fresh biases are zero, which would hide mistakes in them.
            parameters = parameters + 0.01 * self.normal(*parameters.shape)
        self.windows = self.generated(rows, steps)
        if not isinstance(parameters, Tensor):
            parameters = self.model.solve(iter([self.windows]))  # type: ignore[attr-defined]
        self.parameters = parameters
        self.actions = self.normal(rows, HORIZON, self.widths.action)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def generated(self, rows: int, steps: int) -> Windows:
        """Windows of a smooth, noisy system that actions drive."""
        w = self.widths
        action = self.normal(rows, steps, w.action)
        x = [self.normal(rows, w.observation)]
        for t in range(steps):
            drive = action[:, t].sum(1, keepdim=True).sin()
            turned = 0.9 * x[-1] + 0.3 * x[-1].roll(1, 1).tanh()
            x.append(turned + 0.3 * drive + 0.05 * self.normal(rows, w.observation))
        observation = torch.stack(x, 1)
        outcome = observation[:, 1:, :1].square().expand(-1, -1, w.outcome).clone()
        outcome[:, :, list(w.binary)] = (outcome[:, :, list(w.binary)] > 1).float()
        is_first = torch.zeros(rows, steps + 1, dtype=torch.bool)
        is_first[:, 0] = True
        position = torch.arange(rows * steps).view(rows, steps)
        mask = torch.ones(rows, steps, dtype=torch.bool)
        return Windows(observation, action, outcome, is_first, mask, position)

    def observe(
        self, windows: Windows, start: int, stop: int, hidden_state: HiddenState
    ) -> HiddenState:
        """Hidden state after observations `start` to `stop - 1` of windows."""
        part = slice(start, stop)
        with torch.no_grad():
            return self.model.observe(
                self.parameters,
                windows.observation[:, part],
                windows.previous_action[:, part],
                hidden_state,
                windows.is_first[:, part],
            )

    def observed(self, windows: Windows, stop: int) -> HiddenState:
        """Hidden state of fresh episodes after the first `stop` observations."""
        return self.observe(windows, 0, stop, self.model.initial(len(windows)))

    def imagine(
        self,
        hidden_state: HiddenState,
        actions: Tensor | Policy,
        seed: int = 0,
        temperature: float = 1.0,
        gradients: bool = False,
    ) -> Imagined:
        """What the model imagines."""
        policy = OpenLoop(actions) if isinstance(actions, Tensor) else actions
        generator = torch.Generator().manual_seed(seed)
        with torch.set_grad_enabled(gradients):
            return self.model.imagine(
                self.parameters, hidden_state, policy, HORIZON, generator, temperature
            )

    def loss(
        self, parameters: Parameters, windows: Windows, seed: int = 0
    ) -> tuple[Tensor, Metrics]:
        """The loss when all schedules are over."""
        return self.model.loss(parameters, windows, torch.Generator().manual_seed(seed), LATE)
