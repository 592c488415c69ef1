"""Signals in every phase of a training, of a real process: heeded within 10 s, nothing lost.

Signals in rounds: tests/experiment/test_train.py. Requests from threads, and signals in the last
evaluation of one process: tests/experiment/test_stop_requests.py. Kills:
tests/experiment/test_kill_resume.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlkit.experiment.stop_requests import PATIENCE_S, NotHeeded, StopRequest, stop_requests
from rlkit.io.checkpoint import load_latest, saved_steps

FOLDER = Path(__file__).parent
QUICK = {
    "goals": False,
    "check_env": False,
    "device": "cpu",
    "evaluation.every": 0,
    "evaluation.final_episodes": 1,
    "pictures.video_episodes": 0,
    "agent_options.net_arch": [8],
    "agent_options.learning_starts": 10,
    "agent_options.batch_size": 8,
}


def command(env, path, steps, settings):
    pairs = [f"{key}={json.dumps(value)}" for key, value in {**QUICK, **settings}.items()]
    names = ["--env", f"failing_envs:{env}-v0", "--steps", str(steps), "--out", str(path)]
    return [sys.executable, "-m", "rlkit", "train", *names, "--set", *pairs]


def start(env, path, steps, **settings):
    """Starts `rlkit train` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    return subprocess.Popen(
        command(env, path, steps, settings),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, is_there):
    """Waits until a condition holds while the process runs."""
    while not is_there():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def end(process, number):
    """Sends a signal; returns the seconds until the end, the exit code and standard error."""
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return time.monotonic() - began, process.returncode, errors


ENDLESS = {"evaluation.max_steps": 100_000_000, "env_options.endless": True}
PHASES = {
    "evaluation in training": ("Failing", 10**7, {"evaluation.every": 40, **ENDLESS}),
    "last evaluation": ("Failing", 40, ENDLESS),
    "drawing": ("DrawsSlowly", 40, {"pictures.video_episodes": 1, "env_options.endless": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_saves_and_stops_within_ten_seconds(tmp_path, phase):
    env, steps, settings = PHASES[phase]
    settings = {**settings, "evaluation.max_steps": 20} if phase == "drawing" else settings
    path = tmp_path / "run"
    process = start(env, path, steps, **settings)
    if phase == "drawing":
        wait_for(process, lambda: any(path.glob("videos/.step-*")))
    elif phase == "last evaluation":
        wait_for(process, lambda: (path / "checkpoints" / "step-40").is_dir())
    else:
        wait_for(process, lambda: (path / "recipe.toml").is_file())
        time.sleep(2.0)  # 40 steps take a fraction of that, and its evaluation never ends
    seconds, code, errors = end(process, signal.SIGTERM)
    assert seconds < 10, errors
    assert code == 128 + signal.SIGTERM
    step, state = load_latest(path / "checkpoints")
    assert step >= 40
    assert ("before" in state["session"]) == (phase == "evaluation in training")
    assert not list(path.glob("**/.*")), "no temporary file is left"


@pytest.mark.slow
def test_what_does_not_end_is_left_out_and_the_checkpoint_before_is_kept(tmp_path):
    path = tmp_path / "run"
    process = start("Hangs", path, 1000, **{"env_options.at": 65, "checkpoint.every": 20})
    wait_for(process, lambda: (path / "checkpoints" / "step-60").is_dir())
    time.sleep(1.0)
    seconds, code, errors = end(process, signal.SIGTERM)
    assert PATIENCE_S - 1 < seconds < 10
    assert code == 128 + signal.SIGTERM
    assert (
        "did not end within 5 s, so it is left out; the newest checkpoint is of step 60" in errors
    )
    assert saved_steps(path / "checkpoints")[-1] == 60


@pytest.mark.slow
def test_a_second_signal_ends_at_once_with_the_checkpoint_before(tmp_path):
    path = tmp_path / "run"
    process = start("Hangs", path, 1000, **{"env_options.at": 65, "checkpoint.every": 20})
    wait_for(process, lambda: (path / "checkpoints" / "step-60").is_dir())
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    seconds, code, _ = end(process, signal.SIGINT)
    assert seconds < 1
    assert code == 128 + signal.SIGINT
    assert load_latest(path / "checkpoints")[0] == 60


def test_a_request_that_is_heeded_in_time_raises_nothing(monkeypatch):
    monkeypatch.setattr("rlkit.experiment.stop_requests.PATIENCE_S", 0.2)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"
        stop.heeded()
        time.sleep(0.3)


def test_a_request_that_is_not_heeded_interrupts(monkeypatch):
    def ignoring():
        with stop_requests(StopRequest()):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)

    monkeypatch.setattr("rlkit.experiment.stop_requests.PATIENCE_S", 0.2)
    with pytest.raises(NotHeeded):
        ignoring()
    time.sleep(0.3)  # and no alarm is left over
