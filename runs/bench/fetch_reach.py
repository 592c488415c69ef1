"""FetchReach-v4 with sparse reward: steps and seconds to 95 % success, ours and SB3's.

The peer is SB3's SAC with HerReplayBuffer and RL Zoo's settings for this task; ours is the shipped
recipe `fetch-reach`. See `time_to_score.py` for the method.

    python runs/bench/fetch_reach.py --seeds 0 1 2 3 4 --out fetch_reach.json
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from time_to_score import Target, compare, run_ours, run_peer, write

from rlkit.envs.make import make
from rlkit.vec.vec_env import make_vec_env

ENV, SUCCESS = "FetchReach-v4", 0.95


def train_peer(seed: int, steps: int, target: Target, scaled: bool) -> dict[str, Any]:
    """SB3 with RL Zoo's `sac.yml` entry for FetchReach; that entry scales observations."""
    env: VecEnv = make_vec_env(make, ENV, 1, seed)
    scale = VecNormalize(env) if scaled else None
    agent = SAC(
        "MultiInputPolicy",
        env if scale is None else scale,
        buffer_size=1_000_000,
        ent_coef="auto",
        batch_size=256,
        gamma=0.95,
        learning_rate=0.001,
        learning_starts=1000,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"goal_selection_strategy": "future", "n_sampled_goal": 4},
        policy_kwargs={"net_arch": [64, 64]},
        seed=seed,
    )
    return run_peer("sb3" if scaled else "sb3 unscaled", agent, steps, target, seed, scale)


def main() -> None:
    """Trains all candidates and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--peer-seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--unscaled-seeds", type=int, nargs="*", default=[])
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations")
    parser.add_argument("--peer-steps", type=int, default=25_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = Target(ENV, "success_rate", SUCCESS, args.every)
    peer = partial(train_peer, steps=args.peer_steps, target=target)
    outcome = compare(
        (
            ("ours", args.seeds, partial(run_ours, "fetch-reach", target)),
            ("sb3", args.peer_seeds, partial(peer, scaled=True)),
            ("sb3 unscaled", args.unscaled_seeds, partial(peer, scaled=False)),
        )
    )
    task = {"task": f"{ENV}, {SUCCESS:.0%} of {target.episodes} episodes"}
    packages = ("torch", "stable-baselines3", "gymnasium-robotics", "mujoco", "numpy")
    write(task | outcome, packages, args.out)


if __name__ == "__main__":
    main()
