"""A random walk of eight steps with a fault in its fifth, once or always.

A module of its own, so that workers need not import the tests.
"""

import os
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from rlkit.goals import DistanceRule, GoalWrapper
from rlkit.vec.env_state import Stateful

LENGTH, AT = 8, 5
RULE = DistanceRule(0.5)


class Walk(gym.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    label = "walk"

    def __init__(self, fault="none", marker="", render_mode=None):
        if fault == "unbuildable":
            raise OSError("no such simulator")
        self.fault, self.marker, self.render_mode = fault, marker, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fault == "raise in reset" and self.is_due():
            raise OSError("no start")
        self.steps, self.position = 0, self.np_random.normal(size=2)
        return self.position.astype(np.float32), {"options": options}

    def step(self, action):
        self.steps += 1
        first = self.fault == "raise at once"
        if self.steps == (1 if first else AT) and self.fault != "none" and self.is_due():
            self.fail()
        self.position += 0.1 * action + 0.1 * self.np_random.normal(size=2)
        reward = -float(np.linalg.norm(self.position))
        over = self.steps >= LENGTH
        return self.position.astype(np.float32), reward, False, over, {"steps": self.steps}

    def is_due(self):
        if not self.marker:
            return True
        try:
            Path(self.marker).touch(exist_ok=False)  # only one of several environments succeeds
        except FileExistsError:
            return False
        return True

    def fail(self):
        if self.fault == "exit":
            os._exit(3)
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault.startswith("raise"):
            raise OSError("the simulation blew up")

    def render(self):
        return np.full((4, 4, 3), 7, np.uint8)

    def refuse(self):
        raise OSError("not today")

    def get_state(self):
        rng = self.np_random.bit_generator.state
        return {"steps": self.steps, "position": self.position.copy(), "rng": rng}

    def set_state(self, state):
        self.steps, self.position = state["steps"], state["position"].copy()
        self.np_random.bit_generator.state = state["rng"]


def goal_walk(**kwargs):
    return GoalWrapper(Walk(**kwargs), lambda position: position, RULE, spaces.Box(-1, 1, (2,)))


def build(fault="none", marker="", kind=Walk, **kwargs):
    return Stateful(Monitor(kind(fault=fault, marker=str(marker), **kwargs)))


gym.register("FaultyWalk-v0", Walk)
