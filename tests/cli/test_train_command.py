import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlkit.io.checkpoint import load_latest

TINY = Path(__file__).parents[1] / "experiment" / "tiny_agent.py"
QUICK = [
    *("--set", "num_envs=4", "check_env=false", "evaluation.every=100", "evaluation.episodes=4"),
    *("evaluation.final_episodes=5", "pictures.video_episodes=0"),
]
SHORT = ["--set", "evaluation.final_episodes=2", "pictures.video_episodes=0", "evaluation.every=0"]
TRAIN = ["train", "--env", "rlkit/PointMaze-Open-v0", "--agent", "my_tiny:TinyAgent", *QUICK]


@pytest.fixture
def rlkit(rlkit, tmp_path):
    """The command, with a small agent in its folder."""
    shutil.copy(TINY, tmp_path / "my_tiny.py")
    return rlkit


def weights(run):
    _, state = load_latest(run / "checkpoints")
    return {name: value.tobytes() for name, value in flat(state, "") if "wall" not in name}


def flat(node, name):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{name}.{key}")
    elif hasattr(node, "numpy"):
        yield name, node.numpy()
    elif isinstance(node, np.ndarray):
        yield name, node


@pytest.mark.slow
def test_several_seeds_equal_single_trainings_and_are_plotted_together(rlkit, tmp_path):
    words = [*TRAIN, "--steps", "1e2"]
    code, out, err = rlkit(*words, "--seeds", 0, 2, "--out", "many")
    assert code == 0, err
    first, second, mean, after = out.splitlines()
    assert first.startswith("seed-0: success")
    assert second.startswith("seed-2: success")
    assert mean.startswith("2 seeds: mean success")
    assert after == "rlkit plot many"
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["seed-0", "seed-2"]
    assert rlkit(*words, "--seed", 2, "--out", "one")[0] == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "many" / "seed-2")
    assert weights(tmp_path / "one") != weights(tmp_path / "many" / "seed-0")
    assert rlkit("plot", "many", "--out", "curve.png")[0] == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    code, _, err = rlkit(*words, "--seeds", 1, 2, "--out", "many")
    assert code == 2
    assert "many/seed-2' already holds a run" in err
    assert not (tmp_path / "many" / "seed-1").exists()


@pytest.mark.slow
def test_seeds_are_one_json_object(rlkit):
    code, out, _ = rlkit(*TRAIN, "--steps", 40, "--seeds", 3, 4, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["seeds"], found["stopped"]) == ([3, 4], None)
    assert [Path(row["run"]).name for row in found["runs"]] == ["seed-3", "seed-4"]
    assert found["folder"].endswith("/goal-seeds")


@pytest.mark.slow
def test_an_agent_drops_the_options_of_another_and_says_so(rlkit, tmp_path):
    words = ["train", "quickstart", "--steps", 80, *SHORT, "agent_options.learning_starts=40"]
    code, _, err = rlkit(*words, "--agent", "td3", "--out", "run")
    assert code == 0, err
    (line,) = (line for line in err.splitlines() if "left out" in line)
    assert line.startswith("options that td3 lacks are left out: ")
    assert "initial_ent_coef" in line
    assert "net_arch = [64, 64]" in (tmp_path / "run" / "recipe.toml").read_text()
    code, _, err = rlkit(*words, "agent_options.initial_ent_coef=0.1", "--agent", "td3")
    assert code == 2  # what was asked for is never dropped
    assert "agent 'td3' has no option 'initial_ent_coef'" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "agent", "recipe"),
    [
        ("CartPole-v1", "dqn", "plain-discrete"),
        ("Pendulum-v1", "sac", "plain"),
        ("rlkit/BitFlip-v0", "dqn", "goal-discrete"),
        ("rlkit/PlanarReach-v0", "sac", "goal"),
    ],
)
def test_goals_and_actions_choose_the_settings(rlkit, tmp_path, env, agent, recipe):
    code, out, err = rlkit("train", "--env", env, "--steps", 40, "--out", "run", *SHORT)
    assert code == 0, err
    assert f"hindsight; settings of {recipe}" in err.splitlines()[0]
    assert f"{agent} on {env}: 40 steps" in err
    assert "return" in out


@pytest.mark.slow
def test_a_training_says_what_it_does_and_what_comes_next(rlkit, tmp_path):
    code, out, err = rlkit(*TRAIN, "--steps", 100, "--out", "my run")
    assert code == 0
    assert err.splitlines()[:5] == [
        "Goals found, so with hindsight; settings of goal",
        "my_tiny:TinyAgent on rlkit/PointMaze-Open-v0: 100 steps, 4 environments, seed 0, auto",
        "run folder: my run",
        "curves: tensorboard --logdir 'my run'",
        "Ctrl-C saves and stops.",
    ]
    _, success, _, *following = out.splitlines()
    assert success.startswith("success")
    assert following == [
        "next:",
        "  rlkit eval 'my run' --trust",
        "  rlkit record 'my run' --trust --out video.gif",
        "  rlkit plot 'my run' --out success.png",
        "  rlkit resume 'my run' --trust --steps 200",
    ]
    assert rlkit("eval", "my run", "--trust", "--episodes", 3)[0] == 0
    code, out, _ = rlkit("resume", "my run", "--trust", "--steps", 140)
    assert code == 0
    assert "  rlkit eval 'my run' --trust" in out


@pytest.mark.slow
def test_a_video_is_an_mp4_or_a_gif(rlkit, tmp_path):
    short = "env_options.max_episode_steps=5"
    assert rlkit(*TRAIN, short, "--steps", 40, "--out", "run")[0] == 0
    words = ["record", "run", "--trust", "--episodes", 1, "--out"]
    assert rlkit(*words, "pictures/small.gif")[1] == "pictures/small.gif\n"
    assert (tmp_path / "pictures" / "small.gif").read_bytes().startswith(b"GIF89a")
    assert rlkit(*words, "a.mp4")[0] == 0
    assert b"ftyp" in (tmp_path / "a.mp4").read_bytes()[:16]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["small.gif"]
