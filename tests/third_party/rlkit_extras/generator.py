"""A goal generator: episodes pursue goals again that were missed by little."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class NearMisses:
    """Keeps the failed goals of recent episodes that were missed by the shortest distances."""

    share: float = 0.5
    """Share of training episodes that pursue such a goal, in [0, 1]."""
    keep: int = 32
    """Goals that are kept, of the last `2 * keep` failures, >= 1."""
    _missed: list = field(default_factory=list, init=False, repr=False, compare=False)

    def attach(self, context):
        """Takes the agent's context; refuses goals that are no vectors."""
        if len(context.space.shape or ()) != 1:
            raise ValueError(f"near_misses needs goals that are vectors, not {context.space}")

    def propose(self, desired, rng):
        """Kept goals `(n, *goal)`; the given ones while there are none."""
        if not self._missed:
            return desired
        kept = sorted(self._missed, key=lambda missed: missed[0])[: self.keep]
        goals = np.stack([goal for _, goal in kept]).astype(desired.dtype)
        return goals[rng.integers(len(goals), size=len(desired))]

    def observe(self, goals, achieved, success):
        """Adds the failures among n finished episodes."""
        distances = np.linalg.norm(achieved - goals, axis=1)
        for i in np.flatnonzero(~np.asarray(success)):
            self._missed.append((float(distances[i]), goals[i].copy()))
        self._missed = self._missed[-2 * self.keep :]

    def state_dict(self):
        """The failures."""
        return {"missed": [[distance, goal] for distance, goal in self._missed]}

    def load_state_dict(self, state):
        """Restores what `state_dict` gave."""
        self._missed = [(float(distance), np.array(goal)) for distance, goal in state["missed"]]
