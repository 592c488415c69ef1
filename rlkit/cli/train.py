"""The commands `rlkit train` and `rlkit resume`.

Imports wait until a command needs them, so that help answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from rlkit.cli.console import (
    Id,
    Json,
    Name,
    Number,
    Run,
    Settings,
    describe,
    env_maker,
    print_training,
    quiet_output,
)

if TYPE_CHECKING:
    from rlkit.vec.vec_env import MakeEnv


def train(
    recipe: Annotated[str | None, Positional, arg(metavar="[RECIPE]")] = None,
    env: Id = None,
    agent: Name = None,
    steps: Number = None,
    seed: Number = None,
    encoder: Name = None,
    out: Annotated[Path | None, arg(metavar="RUN_FOLDER")] = None,
    settings: Settings = (),
    json: Json = False,
) -> int:
    """Train an agent by a recipe, or on --env with default settings.

    Args:
        recipe: Name of a shipped recipe, or the path of a .toml file.
        env: Id of the environment; my_pkg:My-v0 imports my_pkg first.
        agent: Name of an agent, or my_pkg.mod:Class.
        steps: Environment steps in total.
        seed: Seed of everything random.
        encoder: Sequence encoder: gru, lstm, ... (see `rlkit list encoders`), my_pkg.mod:Class,
            or none.
        out: Folder of the run; by default runs/out/<env>/<agent>/<name>.
        settings: Another key of the recipe, such as agent_options.gamma=0.98.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.experiment import recipe as recipes

    make = env_maker()
    flags = {"env": env, "agent": agent, "steps": steps, "seed": seed}
    if encoder is not None:
        settings = (*settings, f"agent_options.encoder={encoder}")
    if recipe is None and env is None:
        raise ValueError("name a recipe (see `rlkit list recipes`) or an environment (--env ID)")
    if recipe is None:
        name, content = _settings_for(str(env), make, agent)
        plan = recipes.make_recipe(content, settings, **flags)
    else:
        name, plan = Path(recipe).stem, recipes.load_recipe(recipe, settings, **flags)

    from rlkit.experiment.run_folder import default_path
    from rlkit.experiment.train import train as run_training

    path = out or default_path(plan, name)
    with quiet_output(json):
        outcome = run_training(plan, make, path)
    return _print_training(outcome, json)


def _settings_for(env_id: str, make: MakeEnv, agent: str | None) -> tuple[str, dict[str, Any]]:
    """Name and content of the default recipe for the actions of an environment."""
    from gymnasium import spaces

    from rlkit.experiment.recipe import load_recipe
    from rlkit.plugins import AGENTS

    with contextlib.closing(make(env_id)) as env:
        discrete = isinstance(env.action_space, spaces.Discrete)
    name = "goal-discrete" if discrete else "goal"
    content = dataclasses.asdict(load_recipe(name))
    if agent is not None:  # the recipe may have options that this agent lacks
        known: set[str] = getattr(AGENTS.load(agent), "option_names", set)()
        options = content["agent_options"]
        content["agent_options"] = {key: options[key] for key in options if key in known}
    return name, content


def resume(run: Run, steps: Number = None, json: Json = False) -> int:
    """Continue a run exactly from its newest checkpoint.

    Args:
        run: Folder of the run.
        steps: New total of environment steps, to train a finished run further.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.experiment.train import resume as resume_training

    with quiet_output(json):
        outcome = resume_training(run, env_maker(), steps)
    return _print_training(outcome, json)


def _print_training(outcome: dict[str, Any], json: bool) -> int:
    run, steps = outcome["run"], outcome["steps"]
    done = [
        f"{run}, {steps:,} steps in {outcome['wall_s']:.0f} s: {describe(outcome)}",
        f"watch it with: tensorboard --logdir {run}",
    ]
    stopped = f"{run} stopped at step {steps:,}; continue with: rlkit resume {run}"
    return print_training(outcome, json, done, stopped)
