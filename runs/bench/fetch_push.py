"""FetchPush-v4 with sparse reward: steps and seconds to 95 % success, ours and SB3's.

The peers are SB3's SAC with HerReplayBuffer, and TQC of sb3-contrib with RL Zoo's `tqc.yml` entry
for this task, whose networks and batches SAC gets as well; ours is the shipped recipe `fetch-push`.
See `time_to_score.py` for the method. A peer that is not done after `--minutes` of collecting and
learning is stopped; its success then is what the file shows.

    pip install sb3-contrib
    python runs/bench/fetch_push.py --seeds 0 --minutes 120 --out fetch_push.json
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import SAC, HerReplayBuffer
from time_to_score import Target, compare, run_ours, run_peer, write

from rlkit.envs.make import make
from rlkit.vec.vec_env import make_vec_env

ENV, SUCCESS = "FetchPush-v4", 0.95


def train_peer(seed: int, kind: type[Any], steps: int, target: Target) -> dict[str, Any]:
    """SB3 with RL Zoo's settings for the task."""
    agent = kind(
        "MultiInputPolicy",
        make_vec_env(make, ENV, 1, seed),
        buffer_size=1_000_000,
        batch_size=2048,
        gamma=0.95,
        learning_rate=0.001,
        tau=0.05,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"goal_selection_strategy": "future", "n_sampled_goal": 4},
        policy_kwargs={"net_arch": [512, 512, 512], "n_critics": 2},
        seed=seed,
    )
    return run_peer(f"sb3 {kind.__name__.lower()}", agent, steps, target, seed)


def main() -> None:
    """Trains all candidates and prints one JSON object."""
    from sb3_contrib import TQC  # not among the extras of this suite

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sac-seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--tqc-seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--every", type=int, default=5_000, help="steps between evaluations")
    parser.add_argument("--peer-every", type=int, default=1_000)
    parser.add_argument("--peer-steps", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=60.0, help="time of each peer")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = Target(ENV, "success_rate", SUCCESS, args.every)
    slow = replace(target, every=args.peer_every, minutes=args.minutes)
    peer = partial(train_peer, steps=args.peer_steps, target=slow)
    outcome = compare(
        (
            ("ours", args.seeds, partial(run_ours, "fetch-push", target)),
            ("sb3 sac", args.sac_seeds, partial(peer, kind=SAC)),
            ("sb3 tqc", args.tqc_seeds, partial(peer, kind=TQC)),
        )
    )
    task = {"task": f"{ENV}, {SUCCESS:.0%} of {target.episodes} episodes"}
    packages = ("torch", "stable-baselines3", "sb3-contrib", "gymnasium-robotics", "mujoco")
    write(task | outcome, packages, args.out)


if __name__ == "__main__":
    main()
