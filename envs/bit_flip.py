"""BitFlip: a bit pattern has to become another one, one flip per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering.drawing import AGENT, FLOOR, GOAL, OBJECT, Canvas
from rlkit.envs.simulation import State, is_sparse
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.goals import ExactRule, GoalRule


@dataclass(frozen=True)
class HammingRule(ExactRule):
    """Success at equality, as in `ExactRule`; the reward is minus the number of wrong bits.

    Attributes:
        bits: Length of the pattern.
    """

    bits: int = 10

    @property
    def reward_range(self) -> tuple[float, float]:
        """`(-bits, 0)`."""
        return (-float(self.bits), 0.0)

    def reward(self, achieved: NDArray[Any], desired: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Minus the number of differing bits, `(N, bits), (N, bits) -> (N,)`."""
        return np.asarray(-np.sum(achieved != desired, axis=1, dtype=np.float64))


class BitFlipSimulation:
    """Dynamics of `BitFlip`, with its arguments.

    Raises:
        ValueError: If `bits` is below 1 or the reward is unknown.
    """

    frames_per_second = 5

    def __init__(self, bits: int, reward: str, terminates: bool) -> None:
        if bits < 1:
            raise ValueError(f"bits must be at least 1, got {bits}")
        self.bits = bits
        self.draws = 2 * bits + 1
        self.rule: GoalRule = (
            ExactRule(terminates) if is_sparse(reward) else HammingRule(terminates, bits)
        )
        pattern = spaces.MultiBinary(bits)
        self.observation_space = spaces.Dict(
            observation=pattern, achieved_goal=pattern, desired_goal=pattern
        )
        self.action_space: spaces.Space[Any] = spaces.Discrete(bits)

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Draws both patterns uniformly; if they are equal, one bit of the goal is flipped."""
        pattern = (uniforms[:, : self.bits] < 0.5).astype(np.int8)
        goal = (uniforms[:, self.bits : -1] < 0.5).astype(np.int8)
        equal = np.flatnonzero((pattern == goal).all(axis=1))
        goal[equal, (uniforms[equal, -1] * self.bits).astype(np.intp)] ^= 1
        return {"pattern": pattern, "goal": goal}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """Flips bit `action` `(N,)` of each row."""
        pattern = state["pattern"].copy()
        pattern[np.arange(len(pattern)), action] ^= 1
        return {"pattern": pattern, "goal": state["goal"]}

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """The pattern, twice, and the goal, each `(N, bits)`."""
        return {
            "observation": state["pattern"],
            "achieved_goal": state["pattern"],
            "desired_goal": state["goal"],
        }

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The pattern above the goal in rows of squares; dots mark bits that differ."""
        pattern, goal = state["pattern"][0], state["goal"][0]
        columns = math.ceil(math.sqrt(2 * self.bits))
        rows = math.ceil(self.bits / columns)
        canvas = Canvas(size, (-0.5, -rows - 1.0, columns + 0.5, rows + 1.0))
        for bits, colour, top in ((pattern, AGENT, rows + 0.25), (goal, GOAL, -0.25)):
            for i in range(self.bits):
                centre = (i % columns + 0.5, top - i // columns - 0.5)
                canvas.rectangle(centre, (0.88, 0.88), colour if bits[i] else FLOOR, 0.14)
                if pattern[i] != goal[i]:
                    canvas.circle(centre, 0.12, OBJECT)
        return canvas.image()


class BitFlip(SimulationEnv):
    """A bit pattern has to become another pattern; each step flips one bit.

    ## Description
    The first benchmark of hindsight experience replay: with a sparse reward only one of 2^n
    patterns is rewarded, which exploration alone does not find for long patterns.

    Source: Andrychowicz et al. 2017, "Hindsight Experience Replay", section 3.1. There, episodes
    go on after success; here success ends them unless `terminates=False`.

    ## Action Space
    `Discrete(bits)`

    | Num        | Action                     | Unit |
    |------------|----------------------------|------|
    | i          | flip bit i, 0 to bits - 1  | -    |

    ## Observation Space
    A `Dict` of `MultiBinary(bits)`.

    | Key             | Num           | Observation         | Min | Max | Unit |
    |-----------------|---------------|---------------------|-----|-----|------|
    | `observation`   | 0 to bits - 1 | the pattern         | 0   | 1   | -    |
    | `achieved_goal` | 0 to bits - 1 | the pattern         | 0   | 1   | -    |
    | `desired_goal`  | 0 to bits - 1 | the desired pattern | 0   | 1   | -    |

    ## Rewards
    `sparse`: 0 if the patterns are equal, else -1. `dense`: minus the number of bits in which they
    differ.

    ## Starting State
    Pattern and goal are drawn uniformly and differ in at least one bit.

    ## Episode End
    Terminates at success, unless `terminates=False`. Truncates after `bits` steps; the environment
    counts them itself, because the limit depends on `bits`. `max_episode_steps` may shorten it.

    ## Arguments
    - `bits`: length of the pattern; default 10.
    - `reward`: "sparse" or "dense".
    - `terminates`: whether success ends the episode; default True.
    - `render_mode`: "rgb_array" or None.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        bits: int = 10,
        reward: str = "sparse",
        terminates: bool = True,
    ) -> None:
        super().__init__(BitFlipSimulation(bits, reward, terminates), render_mode, bits)


vector = BitFlip.vector
