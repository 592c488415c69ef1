"""Training outside the main thread and in child processes, and how it is stopped there."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from test_train import curves, recipe, weights
from tiny_agent import TinyAgent

from rlkit.envs.make import make
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.stop_requests import StopRequest, stop_requests
from rlkit.experiment.train import resume, train
from rlkit.io.checkpoint import saved_steps
from rlkit.vec.workers import ResilientVecEnv


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run without interruption."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe(), make, path)
    return path


def in_processes():
    """A recipe whose environments run in processes of their own."""
    return recipe(
        *("agent=sac", "env=Pendulum-v1", "goals=false", "subprocess=true", "num_envs=1"),
        *("steps=20", "agent_options.net_arch=[8]", "evaluation.final_episodes=1"),
    )


def in_thread(function, *arguments):
    """The result of a call in another thread, or the exception it raised."""
    results = []

    def call():
        try:
            results.append(function(*arguments))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    return results[0]


@pytest.mark.slow
def test_a_training_in_a_thread_is_stopped_and_resumed(whole, tmp_path, monkeypatch):
    stop, iterate = StopRequest(), TinyAgent.iterate

    def stopping(self, *arguments, **options):
        for step in iterate(self, *arguments, **options):
            if step == 152:
                stop.set("the user interface")
            yield step

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(TinyAgent, "iterate", stopping)
        outcome = in_thread(train, recipe(), make, path, stop)
    assert (outcome["stopped"], outcome["steps"]) == ("the user interface", 152)
    assert in_thread(partial(resume, trust=True), path, make)["stopped"] is None
    assert weights(path) == weights(whole)
    assert curves(path) == curves(whole)


@pytest.mark.slow
def test_an_agent_with_environments_in_processes_trains_in_a_thread(tmp_path):
    assert in_thread(train, in_processes(), make, tmp_path / "run")["steps"] == 20


def stop_in_final_evaluation(monkeypatch, action):
    """Runs an action in the third step of the final evaluation."""
    predict, calls = TinyAgent.predict, []

    def predicting(self, observation, state=None, episode_start=None, deterministic=True):
        if self.num_timesteps == 400 and len(calls) < 3:
            calls.append(0)
            if len(calls) == 3:
                action()
        return predict(self, observation, state, episode_start, deterministic)

    monkeypatch.setattr(TinyAgent, "predict", predicting)


@pytest.mark.slow
@pytest.mark.parametrize("by_signal", [True, False])
def test_a_request_during_the_final_evaluation_saves_first(whole, tmp_path, monkeypatch, by_signal):
    stop, path = StopRequest(), tmp_path / "run"
    request = (lambda: os.kill(os.getpid(), signal.SIGTERM)) if by_signal else stop.set
    with monkeypatch.context() as patch:
        stop_in_final_evaluation(patch, request)
        outcome = train(recipe(), make, path, stop)
    assert outcome["stopped"] == ("SIGTERM" if by_signal else "request")
    assert outcome["steps"] == saved_steps(path / "checkpoints")[-1] == 400
    assert not RunFolder.open(path).last_evaluation()["final"]
    assert resume(path, make, trust=True)["episodes"] == 6
    assert weights(path) == weights(whole)
    assert curves(path) == curves(whole)


def test_signal_handlers_are_left_alone_outside_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert signal.getsignal(signal.SIGTERM) is not before
    assert not stop.is_set()
    assert signal.getsignal(signal.SIGTERM) is before

    def handler_inside():
        with stop_requests():
            return signal.getsignal(signal.SIGTERM)

    assert in_thread(handler_inside) is before


CHILD = """
import multiprocessing, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from rlkit.envs.make import make
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.train import train
from rlkit.vec.vec_env import make_vec_env

def work(recipe, path):
    train(load_recipe(recipe, trust=True), make, Path(path))

if __name__ == "__main__":
    method, recipe, path = sys.argv[1:4]
    if method == "fork":  # starts a fork server, which the child inherits and cannot use
        make_vec_env(make, "Pendulum-v1", 1, subprocess=True).close()
    child = multiprocessing.get_context(method).Process(target=work, args=(recipe, path))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


def run_in_child(tmp_path, method, plan):
    """Trains a recipe in a child process of a new process; returns the run's folder."""
    (tmp_path / "recipe.toml").write_text(plan.to_toml())
    (tmp_path / "script.py").write_text(CHILD)
    words = [method, "recipe.toml", "run", str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_child_process_trains_to_the_same_weights(whole, tmp_path, method):
    assert weights(run_in_child(tmp_path, method, recipe())) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_child_process_has_environments_in_processes_of_their_own(tmp_path, method):
    run = RunFolder.open(run_in_child(tmp_path, method, in_processes()))
    assert run.last_evaluation()["final"]


def test_a_daemonic_process_is_refused_environments_in_processes(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(ValueError, match="daemon=False, or set subprocess=false"):
        ResilientVecEnv([lambda: make("rlkit/PointMaze-Open-v0")])
