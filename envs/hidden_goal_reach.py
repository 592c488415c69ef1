"""HiddenGoalReach: PlanarReach with a goal that is visible only at the start of an episode."""

from __future__ import annotations

from rlkit.envs.planar_reach import PlanarReachSimulation
from rlkit.envs.simulation import Simulation
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.envs.wrappers.partial_simulation import HiddenGoal


def _simulation(links: int, reward: str, visible_steps: int | None) -> Simulation:
    arm = PlanarReachSimulation(links, reward)
    return arm if visible_steps is None else HiddenGoal(arm, visible_steps)


class HiddenGoalReach(SimulationEnv):
    """`PlanarReach` with a goal that is visible only at the start of an episode.

    ## Description
    The task is that of `PlanarReach`. The goal is visible in the first `visible_steps`
    observations, too few to reach it, so that the agent has to remember a position in the plane.

    ## Action Space
    `Box(-1, 1, (links,), float32)`: torques of the joints in units of 2 N m.

    ## Observation Space
    That of `PlanarReach`, and the key `goal_visible`, `Box(0, 1, (1,), float32)`: 1 while an agent
    may read `desired_goal`, else 0. `desired_goal` is always the true goal, because rewards and
    hindsight need it.

    ## Rewards, Starting State
    Those of `PlanarReach`, `sparse` or `dense`.

    ## Episode End
    Never terminates. The registered ids truncate after 50 steps (2.5 s).

    ## Arguments
    - `visible_steps`: number of observations with a visible goal, the first included (default 5).
      With None the goal is always visible, and there is no key `goal_visible`, as in
      `PlanarReach`.
    - `links`: number of links, at least 2 (default 2).
    - `reward`: `"sparse"` (default) or `"dense"` (the `-Dense-v0` id).
    - `render_mode`: `"rgb_array"` or None; images have a green border while the goal is visible.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self,
        *,
        visible_steps: int | None = 5,
        links: int = 2,
        reward: str = "sparse",
        render_mode: str | None = None,
    ) -> None:
        super().__init__(_simulation(links, reward, visible_steps), render_mode)


vector = HiddenGoalReach.vector
