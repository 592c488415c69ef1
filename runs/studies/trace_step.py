"""Lists the files of the suite that run during one collected step and one update.

    python runs/studies/trace_step.py
    python runs/studies/trace_step.py --agents recurrent

Files are listed in the order in which they are first entered, with their number of lines. Files of
environments (`envs/`) are not counted: each task brings its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium as gym

import rlkit.agents
import rlkit.envs
from rlkit.agents import SAC

ROOTS = {
    "rlkit": Path(rlkit.__path__[0]).resolve(),
    "agents": Path(rlkit.agents.__path__[0]).resolve(),
    "envs": Path(rlkit.envs.__path__[0]).resolve(),
}
STARTS, BEFORE = 50, 60  # steps of random actions, steps before the traced one
OPTIONS: dict[str, Any] = {"learning_starts": STARTS, "net_arch": [32, 32], "seed": 0}


def feed_forward() -> SAC:
    """SAC with hindsight on vectors."""
    return SAC("MultiInputPolicy", gym.make("rlkit/PointMaze-U-v0"), **OPTIONS)


def recurrent() -> SAC:
    """SAC with a GRU, a VAE and hindsight on images."""
    return SAC(
        "MultiInputPolicy",
        gym.make("rlkit/PlanarReach-Pixels-v0"),
        encoder="gru",
        window=8,
        batch_size=4,
        latent="vae",
        pretraining={"frames": BEFORE, "steps": 3},
        **OPTIONS,
    )


AGENTS: dict[str, Callable[[], SAC]] = {"feed-forward": feed_forward, "recurrent": recurrent}


def files_of_a_step(agent: SAC) -> dict[str, int]:
    """Lines of each file that one step with one update enters, by name, in order of entry."""
    agent.learn(BEFORE)
    entered: dict[str, None] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            entered.setdefault(frame.f_code.co_filename)

    sys.setprofile(profile)
    try:
        agent.learn(1, reset_num_timesteps=False)
    finally:
        sys.setprofile(None)
    named = ((_name(Path(path)), path) for path in entered)
    return {name: len(Path(path).read_text().splitlines()) for name, path in named if name}


def counted(files: dict[str, int]) -> dict[str, int]:
    """The files without those of environments."""
    return {name: lines for name, lines in files.items() if not name.startswith("envs/")}


def _name(path: Path) -> str | None:
    for name, root in ROOTS.items():
        if path.is_relative_to(root):
            return str(name / path.relative_to(root))
    return None


def main() -> None:
    """Prints the files and their number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    for name in parser.parse_args().agents:
        files = files_of_a_step(AGENTS[name]())
        print(f"{name}:")
        for file, lines in files.items():
            print(f"  {lines:4} {file}{' (not counted)' if file not in counted(files) else ''}")
        print(f"  {len(counted(files))} files, {sum(counted(files).values()):,} lines")


if __name__ == "__main__":
    main()
