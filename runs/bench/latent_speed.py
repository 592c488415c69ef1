"""Cost of encoding images, and the time saved by storing latents in the replay buffer.

    python runs/bench/latent_speed.py
    python runs/bench/latent_speed.py --size 84 --window 32 --out latent_speed.json

One thread, float32; candidates alternate and the best round counts. Two parts:

`update`: an update of a recurrent pixel agent, sampling included. `cached` is the agent as it is,
with latents in its replay buffer. `uncached` also encodes what its batch would contain as images:
the observations of each window, T + 1 each, and the goal of each step.
`encoding`: frames per second of `FittedLatent.encode`, and of `torch.nn` layers with the
same convolutions and widths on float images with channels first: the bare forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import torch
from recurrent_speed import fastest
from torch import nn

import rlkit.envs  # noqa: F401  registers them
from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.vec.vec_env import make_vec_env

ENV = "rlkit/PointMaze-U-Pixels-v0"
CHUNK = 256  # frames at a time, as `FittedLatent.encode` takes them


def trained(args: argparse.Namespace) -> SAC:
    """A recurrent pixel agent with some hundred steps in its replay buffer."""
    return SAC(
        "MultiInputPolicy",
        make_vec_env(make, ENV, 8, 0, size=args.size),
        seed=0,
        device="cpu",
        net_arch=(64, 64),
        encoder={"name": "gru", "hidden": 64},
        window=args.window,
        batch_size=args.batch,
        learning_starts=10**9,
        latent={"name": "vae", "dims": 16},
        pretraining={"frames": 200, "steps": 2},
    ).learn(1_600)


def bare_network(agent: SAC) -> nn.Sequential:
    """The latent model's encoder as plain layers."""
    latent = agent.observation_encoder.latent
    assert latent is not None
    shapes = latent.model.shapes()  # type: ignore[attr-defined]
    layers: list[nn.Module] = []
    for i, stride in enumerate(latent.model.encoder.strides):  # type: ignore[attr-defined]
        width, before, kernel, _ = shapes[f"encoder.convolution.{i}.weight"]
        padding = (kernel - stride) // 2
        layers += [nn.Conv2d(before, width, kernel, stride, padding), nn.ReLU()]
    inner = latent.model.encoder.innermost  # type: ignore[attr-defined]
    widths = [int(np.prod(inner)), *latent.model.hidden]  # type: ignore[attr-defined]
    layers.append(nn.Flatten())
    for before, width in pairwise(widths):
        layers += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2 * latent.dims))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both parts as one object."""
    torch.set_num_threads(1)
    agent = trained(args)
    latent = agent.observation_encoder.latent
    assert latent is not None
    rng = np.random.default_rng(0)
    count = args.batch * (2 * args.window + 1)
    frames = rng.integers(0, 256, (count, args.size, args.size, 3), np.uint8)

    def update() -> None:
        agent.learner.update(agent.adapter.batch(agent.replay_buffer.sample(args.batch)))

    def update_uncached() -> None:
        latent.encode(frames)
        update()

    spent = fastest({"cached": update, "uncached": update_uncached}, args.rounds, args.seconds)
    network, few = bare_network(agent), frames[:CHUNK]
    floats = torch.from_numpy(few).permute(0, 3, 1, 2).float() / 255

    @torch.no_grad()
    def bare() -> None:
        network(floats)

    encoding = fastest(
        {"ours": lambda: latent.encode(few), "bare": bare}, args.rounds, args.seconds
    )
    fps = {name: len(few) / seconds for name, seconds in encoding.items()}
    return {
        "size": args.size,
        "window": args.window,
        "batch": args.batch,
        "update_ms": {name: 1e3 * seconds for name, seconds in spent.items()},
        "cached_is_faster": spent["uncached"] / spent["cached"],
        "frames_per_s": fps,
        "share_of_bare": fps["ours"] / fps["bare"],
        "torch": torch.__version__,
    }


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=48, help="pixels")
    parser.add_argument("--window", type=int, default=32, help="steps")
    parser.add_argument("--batch", type=int, default=32, help="windows")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="per candidate and round")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    args = parser.parse_args()
    found = json.dumps(measure(args), indent=1)
    print(found)
    if args.out:
        args.out.write_text(f"{found}\n")


if __name__ == "__main__":
    main()
