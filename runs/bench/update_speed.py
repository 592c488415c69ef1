"""Updates per second of SAC, compared with Stable-Baselines3 and, if installed, SBX.

The work is the same: batch 256, observation 31, action 4, two critics, learned entropy weight, one
thread, float32, batches sampled from a filled replay buffer. Each candidate runs in its own
process; candidates alternate and the best round counts, which limits the effect of other load.

    python runs/bench/update_speed.py --widths 64 256 --out update_speed.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

OBSERVATION, ACTION, BATCH, FILL = 31, 4, 256, 10_000


def measure(name: str, width: int, seconds: float) -> dict[str, float]:
    """Updates per second of one candidate in this process, and seconds until the first one."""
    import gymnasium as gym
    import numpy as np
    import torch
    from gymnasium import spaces

    torch.set_num_threads(1)

    class Noise(gym.Env[Any, Any]):
        observation_space = spaces.Box(-1, 1, (OBSERVATION,), np.float32)
        action_space = spaces.Box(-1, 1, (ACTION,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
            return self.observation_space.sample(), 0.0, False, False, {}

    common: dict[str, Any] = {"learning_starts": 10**9, "buffer_size": FILL, "batch_size": BATCH}
    arch = [width, width]
    model: Any
    if name == "sb3":
        from stable_baselines3 import SAC

        model = SAC("MlpPolicy", Noise(), policy_kwargs={"net_arch": arch}, **common)
    elif name == "sbx":
        from sbx import SAC as SBX

        model = SBX("MlpPolicy", Noise(), policy_kwargs={"net_arch": arch}, **common)
    else:
        from rlkit.agents import SAC as Ours

        compiled = name == "ours compiled"
        # SB3 does not scale observations, so this is switched off.
        options = {"net_arch": arch, "compile": compiled, "normalise": False}
        model = Ours("MlpPolicy", Noise(), **options, **common)
    model.learn(FILL)
    began = time.perf_counter()
    model.train(1, BATCH)
    first = time.perf_counter() - began
    # SBX compiles one graph per number of updates, so this number is constant.
    chunk = 20
    model.train(chunk, BATCH)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        model.train(chunk, BATCH)
        done += chunk
    return {"updates_per_s": done / (time.perf_counter() - began), "first_update_s": first}


def main() -> None:
    """Runs the candidates in turns and prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--seconds", type=float, default=3.0, help="per candidate and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "WIDTH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.seconds)))
        return
    names = ["sb3", "ours eager", "ours compiled"]
    if importlib.util.find_spec("sbx"):
        names.append("sbx")
    results: dict[str, Any] = {}
    for width in args.widths:
        best: dict[str, dict[str, float]] = {}
        for _ in range(args.rounds):
            for name in names:
                found = _in_process(name, width, args.seconds)
                if (
                    found["updates_per_s"] > best.get(name, found)["updates_per_s"]
                    or name not in best
                ):
                    best[name] = found
        peer = best["sb3"]["updates_per_s"]
        for found in best.values():
            found["times_sb3"] = found["updates_per_s"] / peer
        results[f"2x{width}"] = best
        for name, found in best.items():
            print(
                f"2x{width} {name:14} {found['updates_per_s']:8.0f} updates/s "
                f"{found['times_sb3']:5.2f} x SB3",
                file=sys.stderr,
            )
    results["machine"] = {"python": platform.python_version(), **_versions()}
    text = json.dumps(results, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def _in_process(name: str, width: int, seconds: float) -> dict[str, float]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    command = [sys.executable, __file__, "--one", name, str(width), "--seconds", str(seconds)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "stable-baselines3", "numpy", "sbx-rl", "jax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
