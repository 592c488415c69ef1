"""Environments of a few lines, each with one property that agents must get right."""

import copy

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Recorder(gym.Env):
    """Records every action that it is given; episodes last five steps.

    Args:
        action_space: Space of the actions; any other raises.
        observation_space: Space that observations are sampled from.
        broken_at: Step, counted over everything, that gives `broken`.
        broken: "observation", "reward" or "restart": where NaN appears then.
    """

    def __init__(self, action_space=None, observation_space=None, broken_at=None, broken="reward"):
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = box if action_space is None else action_space  # some spaces are falsy
        box = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.observation_space = box if observation_space is None else observation_space
        self.broken_at, self.broken = broken_at, broken
        self.actions, self.total = [], 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        is_bad = self.broken == "restart" and self.total == self.broken_at
        return self._observe(is_bad), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(copy.deepcopy(action))
        self.time += 1
        self.total += 1
        is_bad = self.total == self.broken_at
        reward = np.nan if is_bad and self.broken == "reward" else 1.0
        observation = self._observe(is_bad and self.broken == "observation")
        return observation, reward, False, self.time == 5, {}

    def _observe(self, is_bad):
        observation = self.observation_space.sample()
        if is_bad:
            observation[0] = np.nan
        return observation


class Bandit(gym.Env):
    """A contextual bandit of one step: the observation determines the rewarded action."""

    def __init__(self, discrete=False):
        self.observation_space = spaces.Discrete(2)
        self.action_space = (
            spaces.Discrete(2, start=5) if discrete else spaces.Box(0.0, 10.0, (1,), np.float32)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.context = int(self.np_random.integers(2))
        return self.context, {}

    def step(self, action):
        wanted = (
            self.context if isinstance(self.action_space, spaces.Discrete) else 2 + 6 * self.context
        )
        given = action - 5 if isinstance(self.action_space, spaces.Discrete) else float(action[0])
        return self.context, -abs(float(given - wanted)), True, False, {}


class Clock(gym.Env):
    """Observes the number of steps since its reset, in every entry; the reward is that number.

    Args:
        observation_space: Space of the observations.
        action_space: Space of the actions, which have no effect.
        length: Steps until truncation; None for never.
        start: Number after the reset.
    """

    def __init__(self, observation_space=None, action_space=None, length=None, start=1):
        self.observation_space = observation_space or spaces.Box(1, 1000, (3,), np.float32)
        self.action_space = action_space or spaces.Discrete(3, start=1)
        self.last = None if length is None else start + length
        self.start = self.clock = start

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = self.start
        return self._observe(), {}

    def step(self, action):
        self.clock += 1
        is_over = self.clock == self.last
        return self._observe(), float(self.clock), False, is_over, {}

    def get_state(self):
        return {"clock": self.clock}

    def set_state(self, state):
        self.clock = state["clock"]

    def _observe(self):
        space = self.observation_space
        return np.full(space.shape, self.clock, space.dtype)
