"""iCEM: the cross-entropy method for few samples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from rlkit.planning.budget import populations
from rlkit.planning.contract import Actions, PlannerState
from rlkit.planning.search import Proposal, Search


@dataclass(frozen=True)
class ICEM(Search):
    """CEM with coloured noise, kept elites and shrinking populations; the best is executed.

    Source: Pinneri et al. 2020, algorithm 1: noise of a power spectrum 1 / f^colour along time,
    elites that stay for the next iteration and, shifted, for the next decision, populations that
    shrink by `decay` down to twice the elites, and the mean among the samples. Deviations: the mean
    is among those of every iteration but the first (with a budget in time the last one is not
    known), and shifted elites repeat their last action where the paper draws a new one.

    Attributes:
        colour: Exponent of the noise, >= 0: 0 is white, 2 a random walk; the paper takes 2 to 4 for
            slow tasks.
        decay: Factor by which populations shrink, >= 1.
        kept: Share of the elites that stay, in [0, 1].
    """

    colour: float = 2.0
    decay: float = 1.25
    kept: float = 0.3

    executes_best: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: If a setting is out of range.
        """
        within = {
            "colour": (">= 0", self.colour >= 0),
            "decay": (">= 1", self.decay >= 1),
            "kept": ("in [0, 1]", 0 <= self.kept <= 1),
        }
        for name, (allowed, fine) in within.items():
            if not fine:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
        super().__post_init__()

    @property
    def stay(self) -> int:
        """How many elites are kept."""
        return int(self.kept * self.elites)

    def sizes(self) -> list[int]:
        """Sizes of the populations of one decision."""
        return populations(self.samples, self.iterations, self.decay, least=2 * self.elites)

    def with_actions(self, actions: Actions) -> ICEM:
        """The same planner for these actions.

        Raises:
            ValueError: If they are choices, for which coloured noise is not defined.
        """
        if actions.discrete:
            raise ValueError("icem plans with actions in [-1, 1]; for choices take cem or mppi")
        return dataclasses.replace(self, actions=actions)

    def initial(self, count: int, device: torch.device | str = "cpu") -> PlannerState:
        """Mean `(E, K, A)`, elites `(E, stay, K, A)`, and where there are any `(E,)`."""
        (mean,) = super().initial(count, device)
        elites = mean[:, None].repeat(1, self.stay, 1, 1)
        return mean, elites, torch.zeros(count, dtype=torch.bool, device=device)

    def _begin(self, state: PlannerState, is_first: Tensor) -> Proposal:
        return dataclasses.replace(
            super()._begin(state, is_first),
            elites=self._shifted(state[1]),
            has_elites=state[2] & ~is_first,
        )

    def _keep(self, current: Proposal, best: Tensor) -> PlannerState:
        return current.mean, current.elites[:, : self.stay], current.has_elites

    def _draw(self, current: Proposal, size: int, step: int, generator: Generator) -> Tensor:
        count, knots, width = current.mean.shape
        noise = coloured_noise((count, size, width, knots), self.colour, generator).mT
        drawn = current.mean[:, None] + current.deviation[:, None] * noise
        has_elites = current.has_elites[:, None, None, None]
        stay = self.stay
        drawn[:, :stay] = torch.where(has_elites, current.elites[:, :stay], drawn[:, :stay])
        if step > 0:
            drawn[:, -1] = current.mean
        return drawn.clamp(-1, 1)


def coloured_noise(shape: tuple[int, ...], exponent: float, generator: Generator) -> Tensor:
    """Gaussian noise whose power along the last axis falls as 1 / f^exponent, of variance 1.

    The lowest frequency stands in for frequency 0, so that noise of all colours also has a mean.

    Source: Timmer and König 1995: independent Fourier coefficients, transformed back.

    Args:
        shape: Of the result, float32.
        exponent: 0 for white noise, 1 for pink, 2 for red.
        generator: Source of the numbers; its device is the result's.
    """
    *lead, length = shape
    device = generator.device
    frequency = torch.fft.rfftfreq(length, device=device)
    frequency[0] = 1 / length
    amplitude = frequency ** (-exponent / 2)
    # Coefficients of frequency 0 and, for even lengths, of the highest are real: all their power is
    # in one part. The others count twice, with their conjugates.
    real = torch.zeros(len(frequency), dtype=torch.bool, device=device)
    real[0] = True
    real[-1] |= length % 2 == 0
    parts = torch.randn((2, *lead, len(frequency)), generator=generator, device=device)
    across = torch.where(real, 2**0.5 * parts[0], parts[0])
    along = torch.where(real, 0.0, parts[1])
    variance = (torch.where(real, 2.0, 4.0) * amplitude**2).sum() / length**2
    spectrum = torch.complex(across, along) * (amplitude / variance.sqrt())
    noise: Tensor = torch.fft.irfft(spectrum, n=length)
    return noise
