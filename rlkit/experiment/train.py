"""Training a recipe into a run folder, and resuming it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlkit.experiment.pictures import record as record
from rlkit.experiment.recipe import Recipe
from rlkit.experiment.resumption import changed_recipe, require_changeable
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.session import Session
from rlkit.experiment.stop_requests import StopRequest
from rlkit.experiment.training_loop import TrainingLoop, outcome
from rlkit.io.checkpoint import load_latest
from rlkit.trust import trusted_files
from rlkit.vec.vec_env import MakeEnv


def train(
    recipe: Recipe, make: MakeEnv, path: Path, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Trains a recipe into a new run folder.

    It may be called in any thread and in a child process. SIGINT, SIGTERM and SIGHUP stop it only
    in the main thread of its process, `stop` everywhere.

    Args:
        recipe: What to train.
        make: Builds environments, as `rlkit.envs.make.make` does.
        path: The run's folder.
        stop: Requests from another thread to save and stop.

    Returns:
        The last evaluation as plain data, with `run`, `steps`, `wall_s` and `stopped`: why the run
        was stopped, such as the name of a signal, or None.

    Raises:
        ValueError: If the recipe cannot be trained or the folder holds a run; nothing is written.
        CheckpointError: If the last checkpoint cannot be saved.
    """
    RunFolder(path).require_free()
    session = Session.build(recipe, make, check=recipe.check_env)
    try:
        run = RunFolder.create(path, recipe)
        with run.lock():
            return TrainingLoop(session, run).run(stop)
    finally:
        session.close()


def resume(
    path: Path,
    make: MakeEnv,
    steps: int | None = None,
    stop: StopRequest | None = None,
    settings: Iterable[str] = (),
    *,
    trust: bool = False,
) -> dict[str, Any]:
    """Continues a run from its newest intact checkpoint, exactly as if it had never stopped.

    Args:
        path: The run's folder. Without any checkpoint it starts over.
        make: Builds environments.
        steps: New total of environment steps; None for the recipe's.
        stop: As for `train`.
        settings: Changes of the recipe from here on, as `"agent_options.learning_rate=1e-4"`; the
            run's `changes.json` records them.
        trust: Whether the run's files may name any class, which is then imported.

    Returns:
        What `train` returns, without training if the run has finished already.

    Raises:
        ValueError: If the folder holds no run, its checkpoints do not fit, or a setting cannot
            change.
        UntrustedError: If its files name others than installed classes and are not trusted.
    """
    run = RunFolder.open(path)
    with trusted_files(trust), run.lock():
        before = run.recipe()
        recipe, changes = changed_recipe(before, steps, settings)
        saved = load_latest(run.checkpoints)
        step, state = saved or (0, {})
        last = run.last_evaluation()
        is_evaluated = last is not None and last["final"] and last["step"] == step
        if recipe.steps < step and (steps is not None or "steps" in changes):
            raise ValueError(f"{str(path)!r} has {step} steps already; --steps is the new total")
        if is_evaluated and (recipe.steps <= step or (steps is None and not changes)):
            return outcome(run, step, state["session"]["wall_s"], None)
        session = Session.build(recipe, make)
        try:
            with require_changeable(changes):
                restored = session.load_state_dict(state) if saved else {}
            run.rewind(step if saved else -1, {} if is_evaluated else restored.get("written", {}))
            run.save_recipe(recipe)
            if changes:
                run.add_changes(step, changes)
            return TrainingLoop(session, run, step, restored).run(stop)
        finally:
            session.close()
