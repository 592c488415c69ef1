"""Pendulum without velocity: steps and seconds to RL Zoo's return, ours and RecurrentPPO's.

The peer is sb3-contrib's RecurrentPPO with RL Zoo's settings for PendulumNoVel-v1, whose published
return after 100,000 steps is -217.9; ours is the shipped recipe `pendulum-hidden-velocity`. See
`time_to_score.py` for the method.

    python runs/bench/pendulum_recurrent.py --out pendulum_recurrent.json
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sb3_contrib import RecurrentPPO
from time_to_score import Target, compare, run_ours, run_peer, write

from rlkit.envs.make import make
from rlkit.vec.vec_env import make_vec_env

ENV, RETURN = "rlkit/Pendulum-HiddenVelocity-v0", -217.9


def train_peer(seed: int, steps: int, target: Target) -> dict[str, Any]:
    """RecurrentPPO with RL Zoo's `ppo_lstm.yml` entry for PendulumNoVel-v1."""
    agent = RecurrentPPO(
        "MlpLstmPolicy",
        make_vec_env(make, ENV, 4, seed),
        n_steps=1024,
        gae_lambda=0.95,
        gamma=0.9,
        n_epochs=10,
        ent_coef=0.0,
        learning_rate=1e-3,
        clip_range=0.2,
        use_sde=True,
        sde_sample_freq=4,
        seed=seed,
        device="cpu",
    )
    return run_peer("recurrent_ppo", agent, steps, target, seed)


def main() -> None:
    """Trains both and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peer-seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=2_000, help="steps between evaluations")
    parser.add_argument("--peer-steps", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = Target(ENV, "return_mean", RETURN, args.every, episodes=50)
    peer = partial(train_peer, steps=args.peer_steps, target=target)
    outcome = compare(
        (
            ("ours", args.seeds, partial(run_ours, "pendulum-hidden-velocity", target)),
            ("recurrent_ppo", args.peer_seeds, peer),
        )
    )
    task = {"task": f"{ENV}, mean return {RETURN} of {target.episodes} episodes"}
    write(task | outcome, ("torch", "sb3-contrib", "stable-baselines3", "numpy"), args.out)


if __name__ == "__main__":
    main()
