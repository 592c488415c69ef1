"""The cross-entropy method: repeatedly fit a distribution to the best of its samples."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.planning.search import Search


@dataclass(frozen=True)
class CEM(Search):
    """A Gaussian per action, fitted to the elites; its mean is executed.

    For choices it fits the probabilities of each step.

    Source: Rubinstein 1999; as a planner with a warm start and momentum, Chua et al. 2018 (PETS),
    appendix on optimisation. Deviations: actions beyond the range are clipped where PETS truncates
    the distribution, and the standard deviation has a floor in place of a stopping rule.
    """
