"""What other packages print at their start is left out; what a user's code prints is kept."""

import os
import subprocess
import sys

import pytest

NOISY = """
import ctypes, sys, warnings
import gymnasium as gym
import numpy as np
from gymnasium import spaces

libc = ctypes.CDLL(None)
libc.printf(b"banner of a library\\n")
libc.dprintf(2, b"banner on standard error\\n")


class Noisy(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        libc.printf(b"argv of a library\\n")
        libc.dprintf(2, b"started a library\\n")
        warnings.warn("a warning of somebody else", DeprecationWarning)
        gym.logger.warn("a warning of gymnasium")
        print("the user's own print", file=sys.stderr)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 0.0, False, False, {}


gym.register("Noisy-v0", "my_noisy:Noisy", max_episode_steps=5)
"""
WORDS = [
    *("train", "--env", "my_noisy:Noisy-v0", "--steps", "20", "--out", "run", "--json", "--set"),
    *("check_env=false", "evaluation.final_episodes=1", "agent_options.learning_starts=30"),
]


@pytest.mark.slow
def test_only_our_lines_and_those_of_the_user_are_shown(tmp_path):
    (tmp_path / "my_noisy.py").write_text(NOISY)
    done = subprocess.run(
        [sys.executable, "-m", "rlkit", *WORDS, "subprocess=true"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('{"')
    assert done.stdout.count("\n") == 1
    assert "the user's own print" in done.stderr
    for noise in ("banner", "library", "somebody else", "of gymnasium"):
        assert noise not in done.stderr
    assert "cannot be drawn: its __init__ takes no render_mode. Give it" in done.stderr


@pytest.mark.slow
def test_an_environment_that_fails_while_muted_is_reported(tmp_path):
    (tmp_path / "my_noisy.py").write_text(NOISY.replace("self):", "self):\n        1 / 0", 1))
    done = subprocess.run(
        [sys.executable, "-m", "rlkit", *WORDS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "ZeroDivisionError" in done.stderr
