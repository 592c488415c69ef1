"""HiddenGoalReach: an arm reaches for a point that it was shown only briefly."""

from __future__ import annotations

from rlkit.envs.planar_reach import PlanarReachSimulation
from rlkit.envs.simulation import Simulation
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.envs.wrappers.partial_simulation import HiddenGoal


def _simulation(links: int, reward: str, visible_steps: int | None) -> Simulation:
    arm = PlanarReachSimulation(links, reward)
    return arm if visible_steps is None else HiddenGoal(arm, visible_steps)


class HiddenGoalReach(SimulationEnv):
    """`PlanarReach` whose goal is visible at the beginning only.

    ## Description
    The arm of `PlanarReach` has to bring its tip within 0.05 m of a goal and keep it there. The
    goal is visible in the first `visible_steps` observations, which are too few to get there: the
    arm has to remember a place in the plane, not only one of two. `PlanarReach` itself is the
    same task without the need of memory.

    ## Action Space
    `Box(-1, 1, (links,), float32)`: the joints' torques in units of 2 N m.

    ## Observation Space
    That of `PlanarReach`, float32, and one key more. `desired_goal` is always the true one, as
    rewards and hindsight need it; an agent may look at it only while `goal_visible` is 1.

    | Key | Content | Min | Max | Unit |
    |---|---|---|---|---|
    | `observation` | cosines of the joint angles (`links`) | -1 | 1 | |
    | | sines of the joint angles (`links`) | -1 | 1 | |
    | | joint velocities (`links`) | -4 | 4 | rad/s |
    | | tip x, y | -1 | 1 | m |
    | `achieved_goal` | tip x, y | -1 | 1 | m |
    | `desired_goal` | goal x, y | -0.95 | 0.95 | m |
    | `goal_visible` | whether the agent sees the goal | 0 | 1 | |

    ## Rewards
    `sparse`: 0 where the tip is within 0.05 m of the goal after the action, else -1. `dense`:
    minus their distance in metres.

    ## Starting State
    That of `PlanarReach`: the arm rests in any pose, the goal is uniform by area over its annulus.

    ## Episode End
    Never terminates. The registered ids truncate after 50 steps (2.5 s).

    ## Arguments
    - `visible_steps`: in how many observations the goal is visible, the first included; default 5.
      None shows it always and leaves the key `goal_visible` out: plain `PlanarReach`.
    - `links`: number of links, at least 2; default 2.
    - `reward`: `"sparse"` (default) or `"dense"` (the `-Dense-v0` id).
    - `render_mode`: `"rgb_array"` or None; pictures have a green frame while the goal is visible.

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
