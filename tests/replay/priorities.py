"""A sampler with state: steps are drawn by a priority that is set for them."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Prioritised:
    """Draws in proportion to priorities; new steps have the largest one so far."""

    power: float = 1.0
    slots: np.ndarray = field(init=False, default_factory=lambda: np.zeros(0, np.int64))
    priority: np.ndarray = field(init=False, default_factory=lambda: np.zeros(0))
    width: int = field(init=False, default=0)

    def draw(self, storage, count, rng):
        env, position = stored_steps(storage)
        self.grow(storage)
        flat = storage.flat(env, position)
        known = self.slots[flat] == position
        weight = np.where(known, self.priority[flat], max(1.0, self.priority.max())) ** self.power
        drawn = rng.choice(len(env), count, p=weight / weight.sum())
        return env[drawn], position[drawn]

    def grow(self, storage):
        size = len(storage.has_action)
        if len(self.slots) < size:
            self.width = storage.slots
            self.slots = np.full(size, -1)
            self.priority = np.zeros(size)

    def update(self, env, position, value):
        flat = env * self.width + position % self.width
        self.slots[flat], self.priority[flat] = position, value

    def state_dict(self):
        return {"slots": self.slots, "priority": self.priority, "width": self.width}

    def load_state_dict(self, state):
        self.slots, self.priority = np.array(state["slots"]), np.array(state["priority"])
        self.width = int(state["width"])


def stored_steps(storage):
    """Environments and positions of all stored steps."""
    slots = np.flatnonzero(storage.has_action)
    if len(slots) == 0:
        raise ValueError("nothing is stored")
    env = slots // storage.slots
    cursor = storage.cursor[env]
    return env, cursor - (cursor - slots % storage.slots) % storage.slots
