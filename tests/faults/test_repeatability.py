"""The same bytes again: by seed, by processes, and resumed at every k-th step, for all agents.

Longer, and with kills: runs/bench/kill_resume.py. Windows, goals and encoders:
tests/offpolicy/test_resume.py and test_recurrent_resume.py.
"""

import dataclasses

import pytest

from rlkit.envs.make import make
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.stop_requests import StopRequest
from rlkit.experiment.train import resume, train
from rlkit.io.checkpoint import saved_steps

BASE = {
    "num_envs": 2,
    "device": "cpu",
    "check_env": False,
    "evaluation": {"every": 20, "episodes": 1, "final_episodes": 1},
    "checkpoint": {"every": 0},
    "pictures": {"video_episodes": 0},
}
SMALL = {"learning_starts": 8, "batch_size": 4}
PLANS = {
    "sac": {"env": "rlkit/PointMaze-Open-v0", "agent_options": {**SMALL, "net_arch": [4]}},
    "td3": {"env": "rlkit/PointMaze-Open-v0", "agent_options": {**SMALL, "net_arch": [4]}},
    "dqn": {"env": "rlkit/BitFlip-v0", "agent_options": {**SMALL, "net_arch": [4]}},
    "sac recurrent": {
        "env": "rlkit/PointMaze-Open-v0",
        "agent_options": {**SMALL, "net_arch": [4], "encoder": "gru", "window": 4},
    },
    "mpc": {
        "env": "rlkit/PointMaze-Open-v0",
        "agent_options": {
            **SMALL,
            "train_freq": 1,
            "gradient_steps": 2,
            "first_fit": 2,
            "world": {"name": "ensemble", "members": 2, "hidden": [4]},
            "planner": {"name": "shooting", "horizon": 2, "samples": 10, "elites": 5},
        },
    },
}


def recipe(name, steps=40, **settings):
    return make_recipe(
        {**BASE, **PLANS[name], "agent": name.split()[0], "steps": steps, **settings}
    )


def saved(path):
    """The bytes of the last checkpoint, less durations."""
    newest = path / "checkpoints" / f"step-{saved_steps(path / 'checkpoints')[-1]}"
    skipped = ("state.json", "manifest.json")
    return {file.name: file.read_bytes() for file in newest.iterdir() if file.name not in skipped}


def stopped_at(step, agent_class, monkeypatch):
    """Makes an agent's training stop at a step."""
    stop, iterate = StopRequest(), agent_class.iterate

    def stopping(self, *arguments, **options):
        for now in iterate(self, *arguments, **options):
            if now == step:
                stop.set("a test")
            yield now

    monkeypatch.setattr(agent_class, "iterate", stopping)
    return stop


SLOW = ("td3", "sac recurrent", "mpc")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PLANS]


@pytest.mark.parametrize("name", NAMES)
def test_resumed_at_every_k_th_step_the_run_ends_the_same(tmp_path, monkeypatch, name):
    from rlkit.plugins import AGENTS

    agent_class = AGENTS.load(name.split()[0])
    train(recipe(name), make, tmp_path / "whole")
    for step in (2, 10, 20, 38):  # before learning, in it, at an evaluation, at the end
        path = tmp_path / f"stopped-{step}"
        with monkeypatch.context() as patch:
            stop = stopped_at(step, agent_class, patch)
            assert train(recipe(name), make, path, stop)["steps"] == step
        assert resume(path, make)["steps"] == 40
        assert saved(path) == saved(tmp_path / "whole"), step


@pytest.mark.slow
def test_processes_give_the_same_bytes(tmp_path):
    plan = {"env": "Pendulum-v1", "goals": False, "agent_options": {**SMALL, "net_arch": [4]}}
    content = {**BASE, **plan, "agent": "sac", "steps": 40}
    for name, subprocess in (("one", False), ("two", True), ("again", False)):
        train(make_recipe({**content, "subprocess": subprocess}), make, tmp_path / name)
    weights = [saved(tmp_path / name)["weights.safetensors"] for name in ("one", "two", "again")]
    assert weights[0] == weights[1] == weights[2]


def test_the_seed_decides(tmp_path):
    for number, seed in enumerate((1, 1, 2)):
        train(dataclasses.replace(recipe("sac"), seed=seed), make, tmp_path / str(number))
    one, same, other = (saved(tmp_path / str(number)) for number in range(3))
    assert one == same != other
