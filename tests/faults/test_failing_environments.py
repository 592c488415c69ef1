"""Environments that raise, give NaN, never end or cannot be closed, without worker processes.

With worker processes: tests/vec/test_workers.py. What the checker finds: tests/goals/test_check.py.
"""

import pytest
from failing_envs import Failing

from rlkit.envs.make import make
from rlkit.experiment.failure import repeat_failure
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.train import resume, train
from rlkit.goals.failure import EnvironmentFailed, NonFiniteError
from rlkit.io.checkpoint import saved_steps


def plan(env, steps=200, action_repeat=1, **options):
    return make_recipe(
        {
            "action_repeat": action_repeat,
            "env": f"failing_envs:{env}-v0",
            "env_options": options,
            "steps": steps,
            "goals": False,
            "check_env": False,
            "device": "cpu",
            "evaluation": {"every": 0, "final_episodes": 2},
            "checkpoint": {"every": 0},
            "pictures": {"video_episodes": 0},
            "agent_options": {"net_arch": [8], "batch_size": 8, "learning_starts": 10},
        }
    )


def test_an_exception_is_one_line_with_a_checkpoint_and_a_file_that_repeats_it(tmp_path):
    with pytest.raises(
        EnvironmentFailed,
        match=r"raised KeyError: 'no such key' \(.*failing_envs.py:\d+ in fail\), at step 7 of "
        r"episode 4 since reset\(seed=0\), after step 36 of the training; .*repeat_failure.*saved",
    ) as raised:
        train(plan("Raises", at=37), make, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert saved_steps(tmp_path / "run" / "checkpoints") == [36]
    with pytest.raises(EnvironmentFailed, match=r"no such key.*step 7 of episode 4"):
        repeat_failure(tmp_path / "run" / "failures" / "step-36.npz", make, trust=True)


def test_a_failure_while_an_action_is_held_is_repeated(tmp_path):
    with pytest.raises(EnvironmentFailed, match=r"no such key.*after step 36 of the training"):
        train(plan("Raises", action_repeat=2, at=37), make, tmp_path / "run")
    with pytest.raises(EnvironmentFailed, match="no such key"):
        repeat_failure(tmp_path / "run" / "failures" / "step-36.npz", make, trust=True)


def test_a_resumed_run_goes_on_after_the_failure_with_nothing_lost(tmp_path):
    with pytest.raises(EnvironmentFailed):
        train(plan("Raises", steps=60, at=37), make, tmp_path / "run")
    outcome = resume(tmp_path / "run", make, trust=True)  # the step is not reached again
    assert (outcome["steps"], outcome["episodes"]) == (60, 2)


@pytest.mark.slow
def test_failures_at_random_end_each_time_a_little_later(tmp_path):
    path, reached = tmp_path / "run", [0]
    for _ in range(40):
        try:
            if reached == [0]:
                train(plan("RaisesLate", steps=120), make, path)
            else:
                resume(path, make, trust=True)
            break
        except EnvironmentFailed:
            reached.append(saved_steps(path / "checkpoints")[-1])
    assert reached == sorted(reached)
    assert reached[-1] == 120


def test_a_nan_of_an_environment_with_exact_state_does_not_come_back_for_ever(tmp_path):
    path, steps = tmp_path / "run", []
    with pytest.raises(NonFiniteError, match=r"reward is nan.*goes on with new episodes"):
        train(plan("GivesNan"), make, path)
    for _ in range(3):
        steps.append(saved_steps(path / "checkpoints")[-1])
        try:
            resume(path, make, trust=True)
        except NonFiniteError:
            continue
        break
    assert steps == sorted(set(steps)), "each attempt gets further than the one before"


def test_an_exception_in_the_last_evaluation_leaves_a_complete_training(tmp_path):
    # 8 evaluation environments: the counter of steps is each one's own.
    with pytest.raises(EnvironmentFailed, match=r"what came before is saved.*evaluates again"):
        train(plan("Raises", steps=10, at=15, endless=True), make, tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert saved_steps(run.checkpoints) == [10]
    assert run.evaluations() == []


def test_an_environment_that_never_ends_is_cut_off_in_evaluations_with_a_warning(tmp_path):
    recipe = plan("Failing", steps=20, endless=True)
    settings = make_recipe(
        {**recipe.__dict__, "evaluation": {"final_episodes": 2, "max_steps": 50}}
    )
    with pytest.warns(UserWarning, match=r"2 of 2 episodes did not end.*50 steps.*max_steps"):
        outcome = train(settings, make, tmp_path / "run")
    assert (outcome["unfinished"], outcome["length_mean"]) == (2, 50)


def test_an_environment_that_cannot_be_closed_costs_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="could not be closed: RuntimeError: the socket is gone"):
        assert train(plan("ClosesBadly", steps=20), make, tmp_path / "run")["steps"] == 20


def test_the_failing_environments_are_fine_otherwise():
    env = Failing()
    assert env.observation_space.contains(env.reset(seed=0)[0])
