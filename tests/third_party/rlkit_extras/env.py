"""An environment: a dot is moved to a goal on a square."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlkit.goals import DistanceRule, GoalEnv

SIDE = 12  # pixels


class Dot(GoalEnv):
    """A dot on the square [-1, 1] x [-1, 1]; an action moves it by up to 0.2 in both directions.

    With `pixels`, the observation is a grey image of the dot instead of its position.
    """

    def __init__(self, pixels=False):
        self.pixels, self.rule = pixels, DistanceRule(threshold=0.2)
        square = spaces.Box(-1.0, 1.0, (2,), np.float32)
        image = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
        self.observation_space = spaces.Dict(
            observation=image if pixels else square, achieved_goal=square, desired_goal=square
        )
        self.action_space = square

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.dot, self.goal = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        return self.observe(), {"is_success": self.is_success()}

    def step(self, action):
        self.dot = np.clip(self.dot + 0.2 * np.asarray(action, np.float32), -1, 1)
        reward = self.compute_reward(self.dot, self.goal)
        return self.observe(), reward, False, False, {"is_success": self.is_success()}

    def is_success(self):
        return bool(self.rule.success(self.dot[None], self.goal[None])[0])

    def observe(self):
        goals = {"achieved_goal": self.dot.copy(), "desired_goal": self.goal.copy()}
        return {"observation": self.image() if self.pixels else self.dot.copy(), **goals}

    def image(self):
        centres = np.linspace(-1, 1, SIDE)
        column, row = (np.exp(-(((centres - place) / 0.4) ** 2)) for place in self.dot)
        return (255 * np.outer(row, column)).astype(np.uint8)[:, :, None]

    def get_state(self):
        return {"dot": self.dot, "goal": self.goal, "rng": self.np_random.bit_generator.state}

    def set_state(self, state):
        self.dot, self.goal = np.array(state["dot"]), np.array(state["goal"])
        self.np_random.bit_generator.state = state["rng"]


gym.register("extras/Dot-v0", "rlkit_extras.env:Dot", max_episode_steps=20)
