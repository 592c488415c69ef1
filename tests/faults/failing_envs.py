"""Environments that fail at a step of an episode; `failing_envs:Raises-v0` and others."""

import os
import signal
import time
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Failing(gym.Env):
    """Episodes of ten steps; `fail` happens in the given step, counted since the beginning.

    Args:
        at: The step.
        exact: Whether it gives its state, so that checkpoints continue its episodes.
        endless: Whether episodes never end.
    """

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"]}

    def __init__(self, at=None, endless=False, render_mode=None):
        self.at, self.endless, self.render_mode = at, endless, render_mode
        self.total = self.time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        assert np.isfinite(action).all()
        self.total, self.time = self.total + 1, self.time + 1
        reward = 1.0
        if self.total == self.at:
            reward = self.fail()
        return self.observe(), reward, False, self.time >= 10 and not self.endless, {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def fail(self):
        return 1.0

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


class Raises(Failing):
    """Raises an exception."""

    def fail(self):
        return {}["no such key"]


class RaisesLate(Raises):
    """Raises in the seventh step of every episode in which a random number says so."""

    def step(self, action):
        found = super().step(action)
        if self.time == 7 and self.np_random.random() < 0.3:
            raise ArithmeticError("the seventh step failed")
        return found


class GivesNan(Failing):
    """Gives a NaN reward in a step of its episode, always, and its exact state in checkpoints."""

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        reward = np.nan if self.time == 5 and self.odd else 1.0
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed=None, options=None):
        found = super().reset(seed=seed, options=options)
        self.odd = self.np_random.random() < 0.2
        return found

    def get_state(self):
        rng = self.np_random.bit_generator.state
        return {"time": self.time, "total": self.total, "odd": self.odd, "rng": rng}

    def set_state(self, state):
        self.time, self.total, self.odd = state["time"], state["total"], state["odd"]
        if self._np_random is None:
            self.reset(seed=0)
            self.time, self.odd = state["time"], state["odd"]
        self.np_random.bit_generator.state = state["rng"]


class CrashesDrawing(Failing):
    """Ends its process when it is drawn."""

    def render(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class DrawsSlowly(Failing):
    """Takes its time to be drawn."""

    def render(self):
        time.sleep(0.2)
        return super().render()


class Hangs(Failing):
    """Sleeps for minutes in one step."""

    def fail(self):
        time.sleep(300)
        return 1.0


class ClosesBadly(Failing):
    """Cannot be closed."""

    def close(self):
        raise RuntimeError("the socket is gone")


for kind in (
    Raises,
    RaisesLate,
    GivesNan,
    CrashesDrawing,
    DrawsSlowly,
    Hangs,
    ClosesBadly,
    Failing,
):
    gym.register(f"{kind.__name__}-v0", kind, disable_env_checker=True)
