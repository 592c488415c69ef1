"""PettingZoo's tic-tac-toe against an opponent with random legal moves."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from pettingzoo.classic import tictactoe_v3
from pettingzoo.utils.env_logger import EnvLogger

from rlkit.envs.wrappers.single_agent import SingleAgent

EnvLogger.suppress_output()  # else every illegal move, which ends the game, prints two lines


def make(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The first player's view of the game; reward 1 for a win, -1 for a loss or an illegal move."""
    return SingleAgent(tictactoe_v3.env(render_mode=render_mode))


gym.register("TicTacToe-v0", "tic_tac_toe:make")
