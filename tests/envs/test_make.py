from __future__ import annotations

import sys
import warnings
from pathlib import Path

import gymnasium as gym
import pytest

from rlkit.envs.make import find_spec, make


def test_ids_of_the_suite_and_of_gymnasium_are_built() -> None:
    for env_id in ("rlkit/BitFlip-v0", "CartPole-v1"):
        env = make(env_id)
        assert env.spec is not None
        assert env.spec.id == env_id
        env.reset(seed=0)


def test_arguments_reach_the_environment() -> None:
    env = make("Pendulum-v1", max_episode_steps=3, g=1.0)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[3] for _ in range(3)]
    assert ends == [False, False, True]
    assert env.unwrapped.g == 1.0  # type: ignore[attr-defined]


def test_a_module_registers_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_in.py").write_text(
        "import gymnasium\n"
        'gymnasium.register("Plugged-v0", "gymnasium.envs.classic_control:CartPoleEnv",\n'
        "                   max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    assert find_spec("plugged_in:Plugged-v0").max_episode_steps == 7
    assert make("plugged_in:Plugged-v0").spec is not None
    sys.modules.pop("plugged_in")


def test_a_module_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"'no_such_module'.*ModuleNotFound"):
        make("no_such_module:My-v0")
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"'broken_plugin'.*ZeroDivisionError: division by zero"):
        make("broken_plugin:My-v0")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("rlkit/PointMaze-U-v9", "rlkit/PointMaze-U-v0"),
        ("rlkit/bitflip-v0", "rlkit/BitFlip-v0"),
        ("CartPol-v1", "CartPole-v1"),
    ],
)
def test_an_unknown_id_gets_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown environment '{wrong}'.*{near}"):
        make(wrong)


def test_robotics_ids_are_among_the_nearest() -> None:
    pytest.importorskip("gymnasium_robotics")
    with pytest.raises(ValueError, match="FetchReach-v4"):
        make("FetchRech-v4")


def test_old_versions_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("CartPole-v0")
