"""The tasks of panda-gym with a goal rule.

`rlkit.envs.make.make("panda_gym:PandaPush-v3")` uses this module, which imports no panda-gym.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from rlkit.goals import DistanceRule

ENTRY_POINTS = tuple(
    f"panda_gym.envs:Panda{task}Env" for task in ("Reach", "Push", "PickAndPlace", "Slide", "Stack")
)
"""What can be given a `DistanceRule`: goals are positions. PandaFlip's are rotations."""


class PandaTask(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Gives a task of panda-gym a goal rule, and seeds to all its episodes.

    Without the rule, hindsight would not know that success ends an episode, nor which returns are
    possible. The package seeds each episode anew, from the operating system unless told otherwise;
    here the seeds of later episodes follow from that of the first.

    Args:
        env: The environment.

    Attributes:
        rule: Its goal rule.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        task: Any = env.get_wrapper_attr("task")
        is_sparse = task.reward_type == "sparse"
        self.rule = DistanceRule(float(task.distance_threshold), is_sparse, terminates=True)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; without `seed`, with a number drawn after the last one."""
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        generator = self.np_random
        found = self.env.reset(seed=drawn, options=options)
        if seed is None:
            self.np_random = generator  # which the reset has replaced
        return found
