"""Evaluates uniformly random actions on the held-out episodes of a run, as `rlkit eval` does.

    python runs/studies/random_policy.py runs/out/my-run --episodes 100

Prints one JSON object with the keys of `rlkit eval --json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.make import make, prefer_egl
from rlkit.experiment.evaluate import TEST_SEED
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.session import Session
from rlkit.trust import trusted_files


class RandomPolicy:
    """Draws each action uniformly from the action space.

    Args:
        space: The action space of one environment.
        seed: Seed of the actions.
    """

    def __init__(self, space: spaces.Space[Any], seed: int = 0) -> None:
        self._space = space
        self._space.seed(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """One action per environment, `(N, *action)`; observations are not read."""
        return np.array([self._space.sample() for _ in range(len(episode_start))]), None


def main() -> None:
    """Evaluates random actions and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, for its environment and seeds")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--trust", action="store_true", help="let the run name any module")
    args = parser.parse_args()
    prefer_egl()
    with trusted_files(args.trust):
        session = Session.build(RunFolder.open(args.run).recipe(), make)
        try:
            session.agent = RandomPolicy(session.venv.action_space)
            summary = session.evaluate(args.episodes, TEST_SEED).summary()
        finally:
            session.close()
    print(json.dumps({"run": str(args.run), **summary}))


if __name__ == "__main__":
    main()
