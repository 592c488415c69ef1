"""The commands `rlkit train` and `rlkit resume`.

Imports wait until a command needs them, so that help and errors come at once.
"""

from __future__ import annotations

import dataclasses
import shlex
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
    Trust,
    describe,
    env_maker,
    evaluation_lines,
    print_training,
    quiet_output,
    to_stderr,
    trusting,
)
from rlkit.trust import UntrustedError

if TYPE_CHECKING:
    from rlkit.experiment.recipe import Recipe

Seeds = Annotated[tuple[int, ...], arg(metavar="N...")]


@trusting
def train(
    recipe: Annotated[str | None, Positional, arg(metavar="[RECIPE]")] = None,
    env: Id = None,
    agent: Name = None,
    steps: Number = None,
    seed: Number = None,
    seeds: Seeds = (),
    encoder: Name = None,
    out: Annotated[Path | None, arg(metavar="RUN_FOLDER")] = None,
    settings: Settings = (),
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Train an agent by a recipe, or on --env with default settings.

    Args:
        recipe: Name of a shipped recipe, or the path of a .toml file.
        env: Id of the environment; my_pkg:My-v0 imports my_pkg first.
        agent: Name of an agent, or my_pkg.mod:Class; options that it lacks are left out.
        steps: Environment steps in total, such as 20000 or 2e4.
        seed: Seed of everything random.
        seeds: Several seeds, trained one after the other into the folders seed-N of RUN_FOLDER.
        encoder: Sequence encoder: gru, lstm, ... (see `rlkit list encoders`), my_pkg.mod:Class,
            or none.
        out: Folder of the run; by default runs/out/<env>/<agent>/<name>.
        settings: Another key of the recipe, such as agent_options.gamma=0.98.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    if recipe is None and env is None:
        raise ValueError("name a recipe (see `rlkit list recipes`) or an environment (--env ID)")
    if seeds and seed is not None:
        raise ValueError("--seed and --seeds exclude each other; give all seeds to --seeds")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {' '.join(map(str, seeds))} names a seed twice")
    if encoder is not None:
        settings = (*settings, f"agent_options.encoder={encoder}")
    flags = {"env": env, "agent": agent, "steps": steps, "seed": seed}
    name, plan = _plan(recipe, settings, flags)

    from rlkit.experiment.folders import default_path

    if not seeds:
        return _train_one(plan, out or default_path(plan, name), trust, json)
    parent = out or default_path(plan, name, seeds=True)
    return _train_seeds(plan, seeds, parent, json)


def _train_one(plan: Recipe, path: Path, trust: bool, json: bool) -> int:
    from rlkit.experiment.folders import require_free

    require_free(path)  # before torch is imported
    from rlkit.experiment.train import train as run_training

    with quiet_output(json):
        outcome = run_training(plan, env_maker(), path)
    return _print_training(outcome, json, trust)


def _train_seeds(plan: Recipe, seeds: tuple[int, ...], parent: Path, json: bool) -> int:
    """Trains the seeds of a recipe one after the other; a signal ends all of them."""
    from rlkit.experiment.folders import require_free
    from rlkit.experiment.recipe import make_recipe

    plans = [make_recipe(dataclasses.asdict(plan), seed=seed) for seed in seeds]
    paths = [parent / f"seed-{seed}" for seed in seeds]
    for path in paths:
        require_free(path)
    from rlkit.experiment.train import train as run_training

    outcomes: list[dict[str, Any]] = []
    for one, path in zip(plans, paths, strict=True):
        with quiet_output(json):
            outcomes.append(run_training(one, env_maker(), path))
        if outcomes[-1]["stopped"] is not None:
            break
    left = seeds[len(outcomes) :]
    last = outcomes[-1]
    found = {"folder": str(parent), "seeds": seeds, "runs": outcomes, "stopped": last["stopped"]}
    not_begun = f"; seeds not begun: {' '.join(map(str, left))}" if left else ""
    stopped = (
        f"{last['run']} stopped at step {last['steps']:,}; continue with: "
        f"rlkit resume {last['run']}{not_begun}"
    )
    each = "\n".join(f"{Path(row['run']).name}: {describe(row)}" for row in outcomes)
    done = [each, _across_seeds(outcomes), f"rlkit plot {parent}"]
    return print_training(found, json, done, stopped)


def _across_seeds(outcomes: list[dict[str, Any]]) -> str:
    key = "return_mean" if any(row["success_rate"] is None for row in outcomes) else "success_rate"
    values = [row[key] for row in outcomes if row[key] is not None]
    if not values:
        return f"{len(outcomes)} seeds, not evaluated"
    form = ".1%" if key == "success_rate" else ".2f"
    low, mean, high = min(values), sum(values) / len(values), max(values)
    what = "success" if key == "success_rate" else "return"
    return f"{len(values)} seeds: mean {what} {mean:{form}}, from {low:{form}} to {high:{form}}"


def _plan(
    recipe: str | None, settings: tuple[str, ...], flags: dict[str, Any]
) -> tuple[str, Recipe]:
    """Name and content of the recipe that is trained."""
    from rlkit.experiment import recipe as recipes

    if recipe is None:
        name, content = _default_content(flags["env"])
    else:
        plan = recipes.load_recipe(recipe, settings, **flags)
        if flags["agent"] is None:
            return Path(recipe).stem, plan
        name, content = Path(recipe).stem, dataclasses.asdict(recipes.load_recipe(recipe))
    dropped = _drop_foreign_options(content, flags["agent"])
    if dropped and recipe is not None:
        to_stderr(f"options that {flags['agent']} lacks are left out: {', '.join(dropped)}")
    return name, recipes.make_recipe(content, settings, **flags)


def _default_content(env_id: str) -> tuple[str, dict[str, Any]]:
    """Name and content of the default recipe for the goals and actions of an environment."""
    from gymnasium import spaces

    from rlkit.experiment.recipe import load_recipe
    from rlkit.goals import is_goal_space, simplify

    env = simplify(env_maker()(env_id))
    try:
        has_goals = is_goal_space(env.observation_space)
        is_continuous = isinstance(env.action_space, spaces.Box)
    finally:
        env.close()
    name = ("goal" if has_goals else "plain") + ("" if is_continuous else "-discrete")
    content = dataclasses.asdict(load_recipe(name))
    way = "Goals found, so with hindsight" if has_goals else "No goals, so without hindsight"
    content["description"] = f"{way}; settings of {name}"
    return name, content


def _drop_foreign_options(content: dict[str, Any], agent: str | None) -> list[str]:
    """Leaves out options of a recipe that an agent lacks, and returns them."""
    from rlkit.plugins import AGENTS

    if agent is None or agent == content["agent"]:
        return []
    options = content["agent_options"]
    # An agent that does not declare its options is given none.
    known: set[str] = getattr(AGENTS.load(agent), "option_names", set)()
    content["agent_options"] = {key: options[key] for key in options if key in known}
    return [key for key in options if key not in known]


@trusting
def resume(
    run: Run,
    steps: Number = None,
    settings: Settings = (),
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Continue a run exactly from its newest checkpoint.

    Args:
        run: Folder of the run.
        steps: New total of environment steps, to train a finished run further.
        settings: Another value from here on, such as agent_options.learning_rate=1e-4.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.experiment.folders import require_run

    require_run(run)  # before torch is imported
    from rlkit.experiment.train import resume as resume_training

    with quiet_output(json):
        outcome = resume_training(run, env_maker(), steps, settings=settings)
    return _print_training(outcome, json, trust)


def _print_training(outcome: dict[str, Any], json: bool, is_trusted: bool) -> int:
    run, steps = shlex.quote(outcome["run"]), outcome["steps"]
    trust = " --trust" if is_trusted or _needs_trust(Path(outcome["run"])) else ""
    done = [
        f"{run}: {steps:,} steps in {outcome['wall_s']:.0f} s",
        *evaluation_lines(outcome),
        "next:",
        f"  rlkit eval {run}{trust}",
        f"  rlkit record {run}{trust} --out video.gif",
        f"  rlkit plot {run} --out success.png",
        f"  rlkit resume {run}{trust} --steps {2 * steps}",
    ]
    stopped = f"{run} stopped at step {steps:,}; continue with: rlkit resume {run}{trust}"
    return print_training(outcome, json, done, stopped)


def _needs_trust(run: Path) -> bool:
    """Whether the run's recipe names code of the user's."""
    from rlkit.experiment.run_folder import RunFolder

    try:
        RunFolder(run).recipe()
    except UntrustedError:
        return True
    return False
