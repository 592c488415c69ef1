"""What an environment was given, so that an exception of it can be repeated."""

from __future__ import annotations

import inspect
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.goals.failure import EnvironmentFailed

_MOST_BYTES = 8_000_000  # kept per environment; a small array takes some 110 bytes
_PACKAGES = ("gymnasium.", "stable_baselines3.", "rlkit.vec.", "rlkit.goals.")


@dataclass
class Trail:
    """Actions since the last reset with a seed, or since a state was restored.

    Attributes:
        seed: That reset's seed; None after a restored state.
        is_complete: Whether all since then is kept: it is not in very long episodes, nor before
            the first reset with a seed.
        actions: One array per step.
        resets: Numbers of actions before each reset without a seed.
    """

    seed: int | None = None
    is_complete: bool = False
    actions: list[Any] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    _bytes: int = 0

    def begin(self, seed: int | None) -> None:
        """Begins anew: at a reset with a seed, or with None at a restored state."""
        self.seed, self.is_complete, self._bytes = seed, True, 0
        self.actions, self.resets = [], []

    def reset(self, seed: int | None) -> None:
        """Takes in a reset."""
        if seed is not None:
            self.begin(seed)
        else:
            self.resets.append(len(self.actions))

    def step(self, action: Any) -> None:
        """Takes in an action."""
        kept = np.array(action)
        if self._bytes > _MOST_BYTES:
            self.begin(self.seed)
            self.is_complete = False
        self._bytes += sys.getsizeof(kept)
        self.actions.append(kept)

    @property
    def episode(self) -> int:
        """Number of the running episode since the beginning, from 1."""
        return len(self.resets) + 1

    @property
    def steps(self) -> int:
        """Steps of the running episode, with the one that failed."""
        return len(self.actions) - (self.resets[-1] if self.resets else 0)

    def __str__(self) -> str:
        began = "a restored state" if self.seed is None else f"reset(seed={self.seed})"
        if not self.is_complete:
            return f"step {self.steps} of what is known of its episode"
        return f"step {self.steps} of episode {self.episode} since {began}"


def failed(error: Exception, env: gym.Env[Any, Any], trail: Trail) -> EnvironmentFailed:
    """The error to raise in place of one that an environment raised."""
    place = own_frame(error, env)
    found = EnvironmentFailed(
        f"the environment raised {type(error).__name__}: {error} ({place}), at {trail}"
    )
    found.trail = trail
    return found


def own_frame(error: BaseException, env: gym.Env[Any, Any] | None) -> str:
    """The last frame of an exception that is the environment's own, `file:line in function`."""
    frames = traceback.extract_tb(error.__traceback__)
    own = _files(env)
    chosen = [frame for frame in frames if frame.filename in own]
    if not chosen:
        chosen = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    if not chosen:
        return "no place known"
    frame = chosen[-1]
    path = Path(frame.filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{frame.lineno} in {frame.name}"


def _files(env: gym.Env[Any, Any] | None) -> set[str]:
    """Files of the classes of an environment and its wrappers, those of libraries left out."""
    classes: list[type] = []
    while env is not None:
        classes += type(env).__mro__
        env = env.env if isinstance(env, gym.Wrapper) else None
    found = set()
    for one in classes:
        if f"{one.__module__}.".startswith(_PACKAGES) or one in (object,):
            continue
        try:
            found.add(inspect.getfile(one))
        except (TypeError, OSError):
            continue
    return found
