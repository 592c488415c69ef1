"""A file that repeats what an environment was given until it raised an exception."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.experiment.recipe import Recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.goals.failure import EnvironmentFailed
from rlkit.io.atomic_write import replace_file
from rlkit.io.checkpoint import read_checkpoint
from rlkit.trust import require_trusted
from rlkit.vec.env_state import set_env_state
from rlkit.vec.trail import Trail
from rlkit.vec.vec_env import MakeEnv, make_vec_env

FOLDER = "failures"
MOST_BYTES = 2**28  # of one file, unpacked


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused, on a CPU or a GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text


def write_failure(
    run: RunFolder,
    recipe: Recipe,
    step: int,
    failure: EnvironmentFailed,
    index: int,
    saved: int | None,
) -> Path:
    """Writes `failures/step-N.npz`: the actions `(T, *action)`, resets `(K,)` and facts in JSON.

    Args:
        run: Where.
        recipe: Names the environment.
        step: Environment steps of the training until the failure.
        failure: What was raised, with its trail.
        index: Number of the environment.
        saved: Step of the checkpoint whose state the trail begins at, where it has no seed.

    Raises:
        OSError: If it cannot be written.
    """
    trail = failure.trail
    assert isinstance(trail, Trail)
    facts = {
        "env": recipe.env,
        "env_options": recipe.env_options,
        "action_repeat": recipe.action_repeat,
        "seed": trail.seed,
        "checkpoint": saved if trail.seed is None else None,
        "environment": index,
        "complete": trail.is_complete,
        "error": str(failure),
    }
    stream = io.BytesIO()
    actions = np.stack(trail.actions) if trail.actions else np.zeros(0)
    resets = np.array(trail.resets, np.int64)
    np.savez_compressed(stream, actions=actions, resets=resets, facts=np.array(json.dumps(facts)))
    path = run.path / FOLDER / f"step-{step}.npz"
    path.parent.mkdir(exist_ok=True)
    replace_file(path, stream.getvalue())
    return path


def repeat_failure(path: Path, make: MakeEnv, *, trust: bool = False) -> int:
    """Gives an environment what `write_failure` kept; returns the steps taken without exception.

    Args:
        path: The file, in the run's folder.
        make: Builds environments.
        trust: Whether the file may name any environment, whose module is then imported.

    Raises:
        EnvironmentFailed: As in the training, from what the environment raises.
        ValueError: If the file does not tell how the episode began.
    """
    facts, actions, resets = _read_failure(path)
    require_trusted(facts, path, trust=trust)
    if not facts["complete"] or (facts["seed"] is None and facts["checkpoint"] is None):
        raise ValueError(f"{path} does not tell how the failing episode began; see its `facts`")
    venv = make_vec_env(
        make, facts["env"], 1, action_repeat=facts.get("action_repeat", 1), **facts["env_options"]
    )
    try:
        assert isinstance(venv, DummyVecEnv)
        env = venv.envs[0]
        if facts["seed"] is not None:
            env.reset(seed=facts["seed"])
        else:
            checkpoint = RunFolder(path.parents[1]).checkpoints / f"step-{facts['checkpoint']}"
            states = read_checkpoint(checkpoint)["training"]["environments"]["states"]
            set_env_state(env, states[facts["environment"]])
        for step, action in enumerate(actions):
            for _ in range(resets.count(step)):
                env.reset()
            env.step(action)
        for _ in range(resets.count(len(actions))):
            env.reset()
    finally:
        venv.close()
    return len(actions)


def _read_failure(path: Path) -> tuple[dict[str, Any], NDArray[Any], list[int]]:
    """Facts, actions and resets of a file, which may come from anyone."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as content:
            facts: dict[str, Any] = json.loads(str(content["facts"]))
            return facts, content["actions"], content["resets"].tolist()
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or foreign: {error}") from error
