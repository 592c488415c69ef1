import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_agent import TinyAgent

from rlkit.envs.make import make
from rlkit.experiment.recipe import Recipe, make_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import read_metrics
from rlkit.experiment.session import Session
from rlkit.experiment.train import resume, train
from rlkit.experiment.training_loop import Period
from rlkit.io.checkpoint import CheckpointError, read_checkpoint, saved_steps
from rlkit.trust import trusted_files

CONTENT = {
    "env": "rlkit/PointMaze-Open-v0",
    "agent": "tiny_agent:TinyAgent",
    "steps": 400,
    "num_envs": 4,
    "check_env": False,
    "evaluation": {"every": 100, "episodes": 4, "final_episodes": 6},
    "checkpoint": {"every": 100},
    "pictures": {"video_episodes": 0},
}


def recipe(*settings, **flags):
    return make_recipe(CONTENT, settings, **flags)


def weights(path):
    newest = saved_steps(path / "checkpoints")[-1]
    return (path / "checkpoints" / f"step-{newest}" / "weights.safetensors").read_bytes()


def curves(path):
    """Everything in the metrics but the time."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(path)
    ]


def event_steps(path, tag):
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0}).Reload()
    return [event.step for event in accumulator.Scalars(tag)]


@pytest.fixture(scope="module", autouse=True)
def own_agent():
    """Runs may name the agent of these tests."""
    with trusted_files():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without interruption."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    return path, train(recipe(), make, path)


@pytest.mark.slow
def test_a_run_writes_all_its_files(whole):
    path, outcome = whole
    assert {"run": str(path), "steps": 400, "stopped": None}.items() <= outcome.items()
    assert outcome["episodes"] == 6
    assert outcome["wall_s"] > 0
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome
    run = RunFolder.open(path)
    assert [(row["step"], row["final"]) for row in run.evaluations()] == [
        (100, False),
        (200, False),
        (300, False),
        (400, True),
    ]
    assert run.recipe() == recipe()
    assert len(saved_steps(run.checkpoints)) in (2, 3)
    assert event_steps(path, "eval/success_rate") == [100, 200, 300, 400]
    images = EventAccumulator(str(path)).Reload().Tags()["images"]
    assert images == ["eval/goal_heat_map"]


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_weights_and_curves(whole, tmp_path):
    path, _ = whole
    train(RunFolder.open(path).recipe(), make, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(path)
    assert curves(tmp_path / "again") == curves(path)


def test_a_finished_run_has_nothing_to_resume(whole):
    path, outcome = whole
    before = weights(path)
    again = resume(path, make)
    assert {**again, "wall_s": 0} == {**outcome, "wall_s": 0}
    assert weights(path) == before


@pytest.mark.slow
def test_a_longer_run_is_the_run_that_was_longer(tmp_path):
    settings = ["evaluation.every=0"]
    train(recipe(*settings, "steps=200"), make, tmp_path / "a")
    resume(tmp_path / "a", make, steps=400)
    train(recipe(*settings), make, tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert RunFolder.open(tmp_path / "a").recipe().steps == 400
    with pytest.raises(ValueError, match="has 400 steps already"):
        resume(tmp_path / "a", make, steps=300)


class Raised(BaseException):
    """Stands for the kill of a process."""


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [4, 96, 100, 152, 204, 396])
def test_a_killed_run_resumes_to_the_same_end(whole, tmp_path, monkeypatch, killed_at):
    iterate = TinyAgent.iterate

    def killed(self, *arguments, **options):
        for step in iterate(self, *arguments, **options):
            if step == killed_at:
                raise Raised
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(TinyAgent, "iterate", killed)
        with pytest.raises(Raised):
            train(recipe(), make, tmp_path / "run")
    outcome = resume(tmp_path / "run", make)
    assert outcome["steps"] == 400
    assert weights(tmp_path / "run") == weights(whole[0])
    assert curves(tmp_path / "run") == curves(whole[0])
    for tag in ("eval/success_rate", "rollout/ep_rew_mean"):
        assert event_steps(tmp_path / "run", tag) == event_steps(whole[0], tag)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_signal_ends_the_round_and_saves(whole, tmp_path, monkeypatch, number, name):
    iterate = TinyAgent.iterate

    def interrupted(self, *arguments, **options):
        for step in iterate(self, *arguments, **options):
            if step == 152:
                os.kill(os.getpid(), number)
            yield step

    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(TinyAgent, "iterate", interrupted)
        outcome = train(recipe(), make, tmp_path / "run")
    assert (outcome["stopped"], outcome["steps"]) == (name, 152)
    assert signal.getsignal(number) is handler
    assert saved_steps(tmp_path / "run" / "checkpoints") == [100, 152]
    resume(tmp_path / "run", make)
    assert weights(tmp_path / "run") == weights(whole[0])
    assert curves(tmp_path / "run") == curves(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("target", ["success=0.5", "return=-30"])
def test_training_stops_when_solved_and_can_continue(target, tmp_path, monkeypatch):
    def homing(self, observation, state=None, episode_start=None, deterministic=True):
        gap = observation["desired_goal"] - observation["achieved_goal"]
        velocity = np.asarray(observation["observation"])[..., -2:]
        return np.clip(6 * gap - 2 * velocity, -1, 1).astype(np.float32), None

    monkeypatch.setattr(TinyAgent, "predict", homing)
    plan = recipe(f"evaluation.stop_at_{target}")
    outcome = train(plan, make, tmp_path / "run")
    assert outcome["steps"] == 100
    assert outcome["episodes"] == 6
    assert resume(tmp_path / "run", make)["steps"] == 100
    assert resume(tmp_path / "run", make, steps=300)["steps"] == 200


@pytest.mark.slow
def test_a_full_disk_costs_a_checkpoint_and_not_the_training(tmp_path, monkeypatch):
    save = RunFolder.save_checkpoint

    def full(self, step, state):
        if step == 200:
            raise CheckpointError("cannot save step-200: No space left on device")
        save(self, step, state)

    monkeypatch.setattr(RunFolder, "save_checkpoint", full)
    with pytest.warns(UserWarning, match="No space left"):
        outcome = train(recipe(), make, tmp_path / "run")
    assert outcome["steps"] == 400


@pytest.mark.slow
def test_a_failing_picture_costs_the_picture(tmp_path):
    def without_pictures(env_id, **options):
        if options.pop("render_mode", None):
            raise ValueError("this environment cannot draw")
        return make(env_id, **options)

    with pytest.warns(
        UserWarning, match=r"no pictures at step 400: .*this environment cannot draw"
    ):
        outcome = train(recipe("pictures.video_episodes=1"), without_pictures, tmp_path / "run")
    assert outcome["steps"] == 400


@pytest.mark.slow
def test_videos_go_to_the_folder_and_to_tensorboard(tmp_path):
    plan = recipe("pictures.video_episodes=1", "pictures.every=100", "steps=200")
    train(plan, make, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "videos").iterdir()) == [
        "step-100.mp4",
        "step-200.mp4",
    ]
    accumulator = EventAccumulator(str(tmp_path / "run")).Reload()
    clips = accumulator.Images("eval/video")
    assert [clip.step for clip in clips] == [100, 200]
    assert clips[0].encoded_image_string.startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["agent=sca"], "unknown agent 'sca'. Did you mean 'sac'"),
        (["agent_options.rat=1"], "has no option 'rat'. Did you mean 'rate'"),
        (["env=rlkit/PointMaze-Opn-v0"], "rlkit/PointMaze-Open-v0"),
        (["env_options.colour=1"], "does not take env_options"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(recipe(*settings), make, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_trained_is_refused_before_anything_is_written(tmp_path):
    class Broken(gymnasium.Wrapper):
        def step(self, action):
            observation, _, *rest = self.env.step(action)
            return observation, float("nan"), *rest

    with pytest.raises(ValueError, match=r"as it is:\n1 error.*\n.*finite") as one:
        train(
            recipe("check_env=true"), lambda *names, **o: Broken(make(*names, **o)), tmp_path / "r"
        )
    assert "Broken.step (tests/experiment/test_train.py:" in str(one.value)
    assert "--set check_env=false" in str(one.value)
    assert list(tmp_path.iterdir()) == []


def test_a_suspicious_environment_is_trained_with_one_warning():
    made, closed = [], []

    class Odd(gymnasium.Wrapper):
        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            return observation, reward + 5.0, *rest

        def close(self):
            closed.append(self)
            super().close()

    def make_odd(env_id, **options):
        made.append(Odd(make(env_id, **options)))
        return made[-1]

    with pytest.warns(UserWarning, match=r"(?s)\[reward\] .*Odd.step.*check_env=false") as caught:
        session = Session.build(recipe("check_env=true"), make_odd, check=True)
    assert len(caught) == 1
    assert len(made) > 1
    assert set(map(id, closed)) == set(map(id, made))  # the training has environments of its own
    session.close()


def test_goals_are_detected_unless_they_are_demanded():
    plain = {"env": "Pendulum-v1", "agent": "sac", "num_envs": 1, "check_env": False}
    for goals in ("auto", False):
        session = Session.build(Recipe(**plain, goals=goals), make)
        assert session.rule is None
        session.close()
    with pytest.raises(ValueError, match="Pendulum-v1 has no goals"):
        Session.build(Recipe(**plain, goals=True), make)


def test_changed_spaces_and_foreign_checkpoints_are_refused(whole):
    run = RunFolder.open(whole[0])
    state = read_checkpoint(run.checkpoints / "step-400")
    other = Session.build(recipe("env=rlkit/PlanarReach-v0"), make)
    with pytest.raises(CheckpointError, match="the observation space has changed"):
        other.load_state_dict(state)
    session = Session.build(recipe(), make)
    for foreign in ({}, {"session": {"agent": "sac"}}):
        with pytest.raises(CheckpointError, match="is foreign"):
            session.load_state_dict(foreign)


def test_last_best_and_numbered_checkpoints_load(whole):
    run = RunFolder.open(whole[0])
    for which, step in (("last", 400), ("best", run.best_step()), ("300", 300)):
        session, loaded = Session.load(run, make, which)
        assert loaded == step
        saved = read_checkpoint(run.checkpoints / f"step-{step}")["weights"]["policy"]
        assert torch.equal(torch.from_numpy(session.agent.weight), saved)
    with pytest.raises(ValueError, match=r"no checkpoint '7'\. There are: last, best"):
        Session.load(run, make, "7")
    with pytest.raises(ValueError, match="no checkpoint yet"):
        Session.load(RunFolder(Path("nowhere")), make)


@pytest.mark.parametrize("every", [1, 8, 100])
def test_a_period_ends_once_however_the_run_is_resumed(every):
    steps = range(0, 1000, 24)
    ends = [now for before, now in itertools.pairwise(steps) if Period(every).ends(before, now)]
    expected = sorted(
        {min(s for s in steps if s >= tick) for tick in range(every, steps[-1] + 1, every)}
    )
    assert ends == expected
    assert not Period(0).ends(0, 1000)


KILLED = """
import sys, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from rlkit.envs.make import make
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.train import resume, train
path = Path(sys.argv[1])
print("ready", flush=True)
if (path / "recipe.toml").exists():
    resume(path, make, trust=True)
else:
    train(load_recipe(sys.argv[3], trust=True), make, path)
"""


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    plan = recipe("checkpoint.every=20", "evaluation.every=60", "steps=1200")
    (tmp_path / "recipe.toml").write_text(plan.to_toml())
    train(plan, make, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(Path(__file__).parent)]
    rng = np.random.default_rng(1)
    for _ in range(4):
        process = subprocess.Popen(
            [*command, str(tmp_path / "recipe.toml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.6))
        process.kill()
        process.wait()
        process.stdout.close()
    if (tmp_path / "run" / "recipe.toml").exists():
        outcome = resume(tmp_path / "run", make)
    else:
        outcome = train(plan, make, tmp_path / "run")
    assert outcome["steps"] == 1200
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")
    tag = "rollout/ep_rew_mean"
    assert event_steps(tmp_path / "run", tag) == event_steps(tmp_path / "whole", tag)
    assert not list((tmp_path / "run").glob("**/.*"))
