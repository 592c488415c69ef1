"""FetchReach-v4 with sparse reward: steps and seconds to 95 % success, beside Stable-Baselines3.

The peer is SB3's SAC with HerReplayBuffer and RL Zoo's settings for this task; ours is the shipped
recipe `fetch-reach`. Both are examined on the same 100 held-out episodes at the same rhythm; the
clock counts collecting and learning, not examining. One thread each, one after the other.

    python runs/bench/fetch_reach.py --seeds 0 1 2 3 4 --out fetch_reach.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC as PeerSAC
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rlkit.envs.construct import make
from rlkit.experiment.evaluate import TEST_SEED, evaluate
from rlkit.experiment.plugins import load_agent
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.vec_env import make_vec_env
from rlkit.goals import goal_rule

ENV, EPISODES, SUCCESS = "FetchReach-v4", 100, 0.95


class SolvedError(Exception):
    """Training may end."""


class Examiner:
    """Counts training time only, and keeps the curve."""

    def __init__(self, seed: int, every: int) -> None:
        self.seed, self.every, self.next = seed, every, every
        self.spent, self.curve = 0.0, []
        self.rule = goal_rule(make(ENV))
        self.envs = make_vec_env(make, ENV, 4)
        self.began = time.perf_counter()

    def look(self, step: int, agent: Any, scale: VecNormalize | None = None) -> None:
        """Examines the agent if it is time to.

        Raises:
            SolvedError: If it reaches the success rate.
        """
        if step < self.next:
            return
        self.next += self.every
        self.spent += time.perf_counter() - self.began
        policy = agent if scale is None else Scaled(agent, scale)
        result = evaluate(policy, self.envs, EPISODES, TEST_SEED + self.seed, self.rule)
        success = float(result.success_rate or 0.0)
        self.curve.append({"step": step, "success": success, "seconds": round(self.spent, 3)})
        print(f"  step {step:6,} {success:6.1%} {self.spent:7.2f} s", file=sys.stderr)
        if success >= SUCCESS:
            raise SolvedError
        self.began = time.perf_counter()


class Scaled:
    """The peer's policy behind its own observation scaling, so that both see raw observations."""

    def __init__(self, agent: Any, scale: VecNormalize) -> None:
        self.agent, self.scale = agent, scale

    def predict(self, observation: Any, *arguments: Any, **named: Any) -> Any:
        """The peer's actions for raw observations."""
        return self.agent.predict(self.scale.normalize_obs(observation), *arguments, **named)


class Look(BaseCallback):
    """Lets the examiner look after every step."""

    def __init__(self, examiner: Examiner, scale: VecNormalize | None) -> None:
        super().__init__()
        self.examiner, self.scale = examiner, scale

    def _on_step(self) -> bool:
        self.examiner.look(self.num_timesteps, self.model, self.scale)
        return True


def train_peer(seed: int, steps: int, every: int, scaled: bool) -> dict[str, Any]:
    """SB3 with RL Zoo's `sac.yml` entry for FetchReach; that entry scales observations."""
    env: VecEnv = make_vec_env(make, ENV, 1, seed)
    scale = VecNormalize(env) if scaled else None
    agent = PeerSAC(
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
    examiner = Examiner(seed, every)
    with contextlib.suppress(SolvedError):
        agent.learn(steps, callback=Look(examiner, scale))
    return _summary("sb3" if scaled else "sb3 unscaled", seed, examiner)


def train_ours(seed: int, every: int) -> dict[str, Any]:
    """The shipped recipe, by the same interface that the peer is used through."""
    recipe = load_recipe("fetch-reach")
    env = make_vec_env(make, ENV, recipe.num_envs, seed)
    agent = load_agent(recipe.agent)("MultiInputPolicy", env, seed=seed, **recipe.agent_options)
    examiner = Examiner(seed, every)
    rounds: Iterator[int] = agent.iterate(recipe.steps)
    with contextlib.suppress(SolvedError):
        for step in rounds:
            examiner.look(step, agent)
    return _summary("ours", seed, examiner)


def _summary(name: str, seed: int, examiner: Examiner) -> dict[str, Any]:
    last = examiner.curve[-1]
    solved = last["success"] >= SUCCESS
    return {
        "name": name,
        "seed": seed,
        "solved": solved,
        "steps": last["step"] if solved else None,
        "seconds": last["seconds"] if solved else None,
        "curve": examiner.curve,
    }


def main() -> None:
    """Trains both and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--peer-seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--unscaled-seeds", type=int, nargs="*", default=[])
    parser.add_argument("--every", type=int, default=500, help="steps between examinations")
    parser.add_argument("--peer-steps", type=int, default=25_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in args.seeds:
        print(f"ours, seed {seed}", file=sys.stderr)
        runs.append(train_ours(seed, args.every))
    for scaled, seeds in ((True, args.peer_seeds), (False, args.unscaled_seeds)):
        for seed in seeds:
            print(f"SB3 {'' if scaled else 'unscaled'}, seed {seed}", file=sys.stderr)
            runs.append(train_peer(seed, args.peer_steps, args.every, scaled))
    outcome: dict[str, Any] = {"task": f"{ENV}, {SUCCESS:.0%} of {EPISODES} episodes"}
    times = {
        name: [run["seconds"] for run in runs if run["name"] == name and run["solved"]]
        for name in ("ours", "sb3", "sb3 unscaled")
    }
    medians = {name: float(np.median(found)) for name, found in times.items() if found}
    outcome["median_seconds"] = medians
    for name, key in (("sb3", "times_faster"), ("sb3 unscaled", "times_faster_than_unscaled")):
        if {"ours", name} <= medians.keys():
            outcome[key] = medians[name] / medians["ours"]
    packages = ("torch", "stable-baselines3", "gymnasium-robotics", "mujoco", "numpy")
    outcome["versions"] = {name: version(name) for name in packages}
    outcome["versions"]["python"] = platform.python_version()
    outcome["runs"] = runs
    text = json.dumps(outcome, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
