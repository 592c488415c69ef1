import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlkit.cli import main as cli
from rlkit.cli import world as cli_world
from rlkit.cli.words import one_setting_per_flag

HERE = Path(__file__).parent
QUICK = [
    *("--set", "num_envs=4", "check_env=false", "evaluation.every=100", "evaluation.episodes=4"),
    *("evaluation.final_episodes=5", "checkpoint.every=100", "pictures.video_episodes=0"),
]
TRAIN = ["train", "--env", "rlkit/PointMaze-Open-v0", "--agent", "tiny_agent:TinyAgent", *QUICK]


@pytest.fixture
def rlkit(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(HERE / "experiment")])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *(
            ["--help"],
            ["train", "--help"],
            ["latent", "train", "--help"],
            ["world", "score", "--help"],
        ),
        *(["list", "agents"], ["list", "recipes"], ["list", "worlds"]),
    ],
)
def test_help_and_lists_answer_at_once(words):
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "rlkit.cli", *words], check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5


def test_lists(rlkit):
    assert rlkit("list", "agents")[1].split() == ["dqn", "mpc", "sac", "td3", "tqc"]
    assert rlkit("list", "latents")[1].split() == ["autoencoder", "denoising", "pca", "vae"]
    assert rlkit("list", "planners")[1].split() == ["cem", "icem", "mppi", "shooting"]
    words = {line.split()[0] for line in rlkit("list", "worlds")[1].splitlines()}
    assert {"ensemble", "linear", *cli_world.BASELINES} <= words
    code, out, _ = rlkit("list", "recipes")
    assert code == 0
    assert "quickstart" in out
    assert "fetch-reach" in out
    assert "rlkit/PointMaze-U-v0" in rlkit("list", "envs")[1]


@pytest.mark.slow
def test_from_training_to_pictures(rlkit, tmp_path):
    code, out, _ = rlkit(*TRAIN, "--steps", 200, "--seed", 3, "--out", "run", "--json")
    assert code == 0
    outcome = json.loads(out)
    assert out.count("\n") == 1
    assert {"run": "run", "steps": 200, "episodes": 5, "stopped": None}.items() <= outcome.items()
    assert {"success_rate", "success_ci95", "return_mean", "wall_s"} <= outcome.keys()

    code, out, _ = rlkit("eval", "run", "--trust", "--json")
    evaluated = json.loads(out)
    assert (code, evaluated["episodes"], evaluated["step"]) == (0, 100, 200)
    five = json.loads(rlkit("eval", "run", "--trust", "--episodes", 5, "--json")[1])
    assert all(outcome[key] == five[key] for key in ("success_rate", "return_mean", "success_ci95"))

    code, out, _ = rlkit("resume", "run", "--trust", "--steps", 300, "--json")
    assert (code, json.loads(out)["steps"]) == (0, 300)
    assert (
        "over 100 held-out episodes" in rlkit("eval", "run", "--trust", "--checkpoint", "best")[1]
    )
    assert rlkit("plot", "run", "run", "--out", "curve.png") == (0, "curve.png\n", "")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert rlkit("record", "run", "--trust", "--episodes", 1)[1] == "run/videos/step-300.mp4\n"
    assert (tmp_path / "run" / "videos" / "step-300.mp4").stat().st_size > 1000


@pytest.mark.slow
def test_a_latent_is_trained_and_evaluated(rlkit, tmp_path):
    train = ["latent", "train", "vae", "--data", "rlkit/PointMaze-U-Pixels-v0", "--frames", 120]
    small = ["--steps", 20, "--batch-size", 4, "--set", "dims=2", "channels=[2,2,2]", "hidden=[8]"]
    code, out, err = rlkit(*train, *small, "--out", "maze", "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    found = json.loads(out)
    assert (found["folder"], found["model"]["dims"], found["training"]["steps"]) == ("maze", 2, 20)
    assert "step 20 of 20" in err
    assert (tmp_path / "maze" / "latent" / "weights.safetensors").is_file()
    again = ["latent", "report", "maze", "--data", "rlkit/PointMaze-U-Pixels-v0", "--frames", 110]
    assert json.loads(rlkit(*again, "--json")[1])["frames"] == 110
    code, out, _ = rlkit(*again, "--out", "there")
    assert code == 0
    assert out.startswith("held-out error")
    assert out.endswith("tensorboard --logdir there\n")
    assert (tmp_path / "there" / "traversals.png").is_file()


@pytest.mark.slow
def test_a_world_is_trained_and_scored(rlkit, tmp_path):
    data = ["--data", "tanks", "--gather", 800]
    small = ["--steps", 20, "--batch-size", 16, "--set", "members=2", "hidden=[8]"]
    code, out, err = rlkit("world", "train", "ensemble", *data, *small, "--out", "a", "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    found = json.loads(out)
    assert (found["folder"], found["model"]["members"], found["steps"]) == ("a", 2, 20)
    assert "step 20 of 20" in err
    short = ["--horizons", 1, 5, "--context", 4, "--windows", 30, "--samples", 19]
    code, out, err = rlkit("world", "score", "a", "trend", *data, *short, "--out", "b", "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    score = json.loads(out)
    assert list(score["models"]) == ["a", "trend", "persistence", "arx", "linear"]
    assert score["folder"] == "b"
    assert (tmp_path / "b" / "errors.png").is_file()
    code, out, _ = rlkit("world", "score", "arx", *data, *short, "--no-controls")
    assert code == 0
    assert out.splitlines()[0].startswith("tanks: 30 windows after 7 steps of context")
    assert out.endswith("tensorboard --logdir runs/out/worlds/tanks/score\n")


@pytest.mark.slow
def test_without_out_runs_get_folders_of_their_own(rlkit, tmp_path):
    for name in ("goal-seed0", "goal-seed0-2"):
        code, out, err = rlkit(*TRAIN, "--steps", 40)
        assert code == 0, err
        folder = Path("runs/out/rlkit-PointMaze-Open-v0/tiny_agent-TinyAgent") / name
        assert (tmp_path / folder / "recipe.toml").is_file()
        assert str(folder) in out


def test_several_settings_may_follow_one_flag():
    spread = one_setting_per_flag
    assert spread(["train", "x", "--set", "a=1", "b=2", "--json", "c=3"]) == [
        *("train", "x", "--set", "a=1", "--set", "b=2", "--json", "c=3")
    ]
    assert spread(["--set", "a=1", "--set", "b=2", "c=3"]) == [
        *("--set", "a=1", "--set", "b=2", "--set", "c=3")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "name a recipe"),
        (["train", "quikstart"], "Did you mean 'quickstart'?"),
        (["train", "missing.toml"], "no recipe file 'missing.toml'"),
        (["train", "--env", "rlkit/PointMaze-Opn-v0"], "rlkit/PointMaze-Open-v0"),
        (["train", "--env", "no_pkg:Me-v0"], "'no_pkg', which cannot be imported"),
        (["train", "quickstart", "--agent", "sca"], "Did you mean 'sac'?"),
        (["train", "quickstart", "--agent", "no_mod:Agent"], "cannot be imported"),
        (["train", "quickstart", "--set", "step=3"], "Did you mean 'steps'?"),
        (["train", "quickstart", "--set", "steps=many"], "steps = 'many' is a str; it must be int"),
        (["train", "quickstart", "--set", "agent_options.lerning_rate=1"], "'learning_rate'"),
        (["train", "quickstart", "--steps", "0"], "steps = 0 must be at least 1"),
        (["resume", "nowhere"], "'nowhere' is no run"),
        (["eval", "nowhere"], "'nowhere' is no run"),
        (["eval", "nowhere", "--episodes", "0"], "--episodes 0 must be at least 1"),
        (["record", "nowhere"], "'nowhere' is no run"),
        (["plot", "nowhere"], "'nowhere' is no run"),
        (["check-env", "rlkit/PointMaze-Opn-v0"], "rlkit/PointMaze-Open-v0"),
        (["latent", "train", "vea", "--data", "frames.npy"], "Did you mean 'vae'?"),
        (["latent", "train", "vae", "--data", "frames.npy"], "there is no file 'frames.npy'"),
        (["latent", "report", "nowhere", "--data", "frames.npy"], "nowhere holds no latent"),
        (["world", "train", "ensembel", "--data", "tanks"], "Did you mean 'ensemble'?"),
        (["world", "train", "ensemble", "--data", "Pendulum-v9"], "unknown environment"),
        (["world", "score", "nowhere", "--data", "tanks"], "there is none at 'nowhere'"),
        (["world", "score", "--data", "tanks"], "name one model or more"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(rlkit, tmp_path, words, message):
    code, out, err = rlkit(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["trian"], ["train", "--stpes", "3"], ["train", "--steps", "x"]])
def test_mistyped_words_end_with_code_2(rlkit, words):
    code, out, err = rlkit(*words)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err


def test_a_run_is_not_overwritten(rlkit, tmp_path):
    assert rlkit(*TRAIN, "--steps", 40, "--out", "run")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    code, _, err = rlkit(*TRAIN, "--steps", 40, "--out", "run")
    assert code == 2
    assert "rlkit resume run" in err
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_damaged_checkpoints_are_named(rlkit, tmp_path):
    rlkit(*TRAIN, "--steps", 100, "--out", "run")
    weights = tmp_path / "run" / "checkpoints" / "step-100" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, _, err = rlkit("eval", "run", "--trust")
    assert code == 2
    assert "weights.safetensors is truncated" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_check_env_tells_good_from_bad(rlkit, tmp_path):
    code, out, _ = rlkit("check-env", "rlkit/PointMaze-Open-v0", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    code, out, _ = rlkit("check-env", "rlkit/PointMaze-Open-v0", "--action-repeat", 3)
    assert code == 0
    assert out.endswith("rlkit train --env rlkit/PointMaze-Open-v0 --set action_repeat=3\n")
    code, out, err = rlkit("check-env", "Pendulum-v1")
    assert (code, err) == (0, "")
    assert "[no goals] it is trained without hindsight" in out
    assert "Next: rlkit train --env Pendulum-v1" in out
    (tmp_path / "my_broken.py").write_text(MY_ENV.replace("{name}", "broken"))
    code, out, _ = rlkit("check-env", "my_broken:Broken-v0", "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    (broken,) = [one for one in found["findings"] if one["level"] == "error"]
    assert (broken["law"], broken["where"][:21]) == ("finite", "Mine.step (my_broken.")
    code, out, _ = rlkit("check-env", "my_broken:Broken-v0")
    assert code == 1
    assert "1 error (training cannot work)" in out
    assert "rlkit train --env my_broken:Broken-v0 --set check_env=false" in out


MY_ENV = """
import gymnasium as gym
import numpy as np
from rlkit.envs.point_maze import PointMaze


class Mine(PointMaze):
    bad_after = None

    def __init__(self, **options):
        super().__init__(maze="Open", **options)
        self.steps = 0

    def step(self, action):
        self.steps += 1
        observation, reward, *rest = super().step(action)
        if self.bad_after is not None and self.steps > self.bad_after:
            reward = float("nan")
        return observation, reward, *rest


class Broken(Mine):
    bad_after = 60


gym.register("Mine-v0", "my_{name}:Mine", max_episode_steps=50)
gym.register("Broken-v0", "my_{name}:Broken", max_episode_steps=50)
"""


@pytest.mark.slow
def test_an_environment_and_an_agent_of_the_user(rlkit, tmp_path):
    (tmp_path / "my_envs.py").write_text(MY_ENV.replace("{name}", "envs"))
    tiny = (HERE / "experiment" / "tiny_agent.py").read_text()
    (tmp_path / "my_agents.py").write_text(tiny.replace("TinyAgent", "MyAgent"))
    words = ["train", "--env", "my_envs:Mine-v0", "--agent", "my_agents:MyAgent", *QUICK]
    code, out, err = rlkit(*words, "check_env=true", "--steps", 120, "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 120


@pytest.mark.slow
def test_a_bad_number_stops_the_run_and_keeps_the_last_good_checkpoint(rlkit, tmp_path):
    (tmp_path / "my_broken.py").write_text(MY_ENV.replace("{name}", "broken"))
    words = ["train", "--env", "my_broken:Broken-v0", "--agent", "tiny_agent:TinyAgent", *QUICK]
    code, out, err = rlkit(*words, "--steps", 1000, "--out", "run", "--json")
    assert code == 1
    assert out == ""
    assert "is not finite" in err
    assert "Traceback" not in err
    assert rlkit("record", "run", "--trust", "--episodes", 1)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_sets_the_exit_code(tmp_path, number):
    words = [*TRAIN, "agent_options.pause=0.01", "--steps", "100000", "--out", "run", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlkit.cli", *words],
        cwd=tmp_path,
        env={"PYTHONPATH": str(HERE / "experiment"), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("run/checkpoints/step-*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert json.loads(out)["stopped"] == signal.Signals(number).name
    assert "continue with: rlkit resume run" in err
    steps = json.loads(out)["steps"]
    assert (tmp_path / "run" / "checkpoints" / f"step-{steps}" / "weights.safetensors").is_file()


# Recurrent agents

RECURRENT = [
    *(*QUICK, "agent_options.net_arch=[8]", "agent_options.batch_size=4"),
    *(
        "agent_options.window=6",
        "agent_options.learning_starts=40",
        "agent_options.buffer_size=900",
    ),
]
GRU = '{name = "gru", hidden = 6}'


def python_in_docs(page, name):
    """The block of a page that begins with a file's name."""
    text = (HERE.parent / "docs" / page).read_text()
    return text.split(f"```python\n# {name}\n")[1].split("```")[0]


@pytest.mark.slow
def test_a_recurrent_agent_from_training_to_pictures(rlkit, tmp_path):
    words = ["train", "quickstart", "--encoder", GRU, *RECURRENT, "--out", "run", "--json"]
    code, out, err = rlkit(*words, "--steps", 600)
    assert code == 0, err
    assert json.loads(out)["steps"] == 600
    code, out, err = rlkit("resume", "run", "--steps", 700, "--json")
    assert (code, json.loads(out)["steps"]) == (0, 700), err
    five = [json.loads(rlkit("eval", "run", "--episodes", 5, "--json")[1]) for _ in range(2)]
    assert five[0] == five[1]
    assert rlkit("record", "run", "--episodes", 1)[0] == 0
    assert (tmp_path / "run" / "videos" / "step-700.mp4").stat().st_size > 1000

    recipe = tmp_path / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("hidden = 6", "hidden = 7"))
    for words in (["resume", "run", "--steps", 800], ["eval", "run"], ["record", "run"]):
        code, _, err = rlkit(*words)
        assert code == 2
        assert "the spaces, encoder or net_arch differ" in err
        assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "env_id"), [("harbour.py", "harbour:Boat-v0"), ("swing.py", "swing:Swing-v0")]
)
def test_a_recurrent_agent_in_an_environment_of_the_user(
    rlkit, tmp_path, monkeypatch, name, env_id
):
    (tmp_path / name).write_text(python_in_docs("custom_env.md", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    early = ("agent_options.previous_reward=true", "check_env=true")
    words = ["train", "--env", env_id, "--encoder", GRU, *RECURRENT, *early, "--out", "run"]
    code, _, err = rlkit(*words, "--steps", 200)
    assert code == 0, err
    assert rlkit("resume", "run", "--trust", "--steps", 240)[0] == 0
    assert rlkit("eval", "run", "--trust", "--episodes", 3)[0] == 0


@pytest.mark.parametrize(
    ("encoder", "setting", "message"),
    [
        ("gruu", "seed=1", "unknown encoder 'gruu'. Did you mean 'gru'?"),
        ('{name = "gru", hiden = 8}', "seed=1", "no option 'hiden'. Did you mean 'hidden'?"),
        ('{name = "gru", hidden = 0}', "seed=1", "hidden must be a whole number >= 1, got 0"),
        ("bidirectional", "seed=1", "reads the future, so it cannot act"),
        ("7", "seed=1", "7 is no encoder"),
        ("no_mod:Encoder", "seed=1", "'no_mod:Encoder' cannot be imported"),
        ("my_encoders:Missing", "seed=1", "it lacks step, scan"),
        ("my_encoders:Missin", "seed=1", "Did you mean 'Missing'?"),
        ("my_encoders:Nothing", "seed=1", "encoder Nothing breaks the contract: AttributeError"),
        ("my_encoders:Wide", "seed=1", "features of a step (2, 4) are not (2, 5)"),
        ("gru", "agent_options.compile=true", "compile = True does not go with an encoder"),
        ("gru", "agent_options.window=-1", "window = -1 must be >= 0"),
        ("gru", "agent_options.window=2.5", "window = 2.5 must be a whole number"),
        ("gru", "agent_options.previous_action=no", "must be true or false"),
        ("gru", "agent_options.encoder_lr=slow", "encoder_lr = 'slow' must be a number"),
        ("gru", "agent_options.windw=3", "Did you mean 'window'?"),
    ],
)
def test_mistakes_about_encoders_are_one_message(rlkit, tmp_path, encoder, setting, message):
    (tmp_path / "my_encoders.py").write_text(BROKEN)
    code, out, err = rlkit("train", "quickstart", "--encoder", encoder, "--set", setting)
    sys.modules.pop("my_encoders", None)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} <= {"my_encoders.py", "__pycache__"}


BROKEN = """
import torch


class Missing:
    inputs, features, size = 0, 4, 4
    def with_inputs(self, inputs):
        self.inputs = inputs
        return self
    def views(self, vector): return {"all": vector}
    def initial_parameters(self, generator): return torch.zeros(4)
    def initial(self, count, device="cpu"): return (torch.zeros(count, 4, device=device),)


class Wide(Missing):
    features = 5
    def step(self, vector, x, hidden_state, is_first): return hidden_state[0], hidden_state
    def scan(self, vector, x, hidden_state, is_first, generator=None):
        return x[..., :5], hidden_state


class Nothing(Wide):
    def with_inputs(self, inputs): return None
"""


@pytest.mark.slow
def test_previous_rewards_need_an_environment_with_goals(rlkit):
    words = [
        "train",
        "plain",
        "--env",
        "MountainCarContinuous-v0",
        "--encoder",
        "gru",
        "--steps",
        9,
    ]
    code, _, err = rlkit(*words, "--set", "agent_options.previous_reward=true")
    assert code == 2
    assert "needs an environment with goals" in err


@pytest.mark.slow
def test_a_bad_number_stops_a_recurrent_agent(rlkit, tmp_path):
    (tmp_path / "my_failing.py").write_text(MY_ENV.replace("{name}", "failing"))
    words = ["train", "--env", "my_failing:Broken-v0", "--encoder", GRU, *RECURRENT]
    words += ["checkpoint.every=40", "--out", "run", "--steps", 1000]
    code, _, err = rlkit(*words)
    assert code == 1
    assert "is not finite" in err
    assert "Traceback" not in err
    assert rlkit("eval", "run", "--trust", "--episodes", 2)[0] == 0
