"""Failures of environments."""

from __future__ import annotations


class EnvironmentFailed(RuntimeError):
    """An environment raised an exception, or broke what its training relies on.

    Attributes:
        trail: What it was given since its last reset with a seed (`rlkit.vec.trail.Trail`); None
            where that is unknown.
    """

    trail: object = None


class NonFiniteError(EnvironmentFailed, ValueError):
    """An environment returned NaN or infinity."""
