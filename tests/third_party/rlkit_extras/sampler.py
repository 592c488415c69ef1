"""A replay sampler: prefers recent steps, more so the later a batch comes in a cycle."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class RecentSteps:
    """Draws from all steps, then about the newest half, a third and so on, and starts again.

    Source of the idea: Wang and Ross 2019 (emphasizing recent experience).
    """

    cycle: int = 4
    """Draws until all steps are equally likely again, >= 1."""
    _place: int = field(default=0, init=False, repr=False, compare=False)

    def draw(self, storage, count, rng):
        """Environments and positions of stored steps, `(count,)` each."""
        env, position = storage.sample_steps(count * (1 + self._place), rng)
        self._place = (self._place + 1) % self.cycle
        age = storage.cursor[env] - position
        newest = np.sort(np.argsort(age, kind="stable")[:count])  # in the order of the draw
        return env[newest], position[newest]

    def update(self, env, position, value):
        """Does nothing: priorities are not used."""

    def state_dict(self):
        """The place in the cycle."""
        return {"place": self._place}

    def load_state_dict(self, state):
        """Restores what `state_dict` gave."""
        self._place = int(state["place"])
