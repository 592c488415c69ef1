"""The command `rlkit`: train, resume, evaluate and record agents.

Imports wait until a command needs them, so that help and lists answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from rlkit.cli import latent as cli_latent
from rlkit.cli import world as cli_world
from rlkit.cli.console import (
    Json,
    Number,
    Settings,
    env_maker,
    print_json,
    print_training,
    quiet_output,
    to_stderr,
)
from rlkit.names import require_current

if TYPE_CHECKING:
    from rlkit.experiment.session import Session
    from rlkit.vec.vec_env import MakeEnv

app = SubcommandApp()
Run = Annotated[Path, Positional, arg(metavar="RUN")]
Id = Annotated[str | None, arg(metavar="ID")]
Name = Annotated[str | None, arg(metavar="NAME")]
GROUPS = ("agents", "encoders", "generators", "latents", "planners", "samplers", "worlds")


@app.command
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


@app.command
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


@app.command(name="eval")
def evaluate(run: Run, episodes: int = 100, checkpoint: str = "last", json: Json = False) -> int:
    """Evaluate a trained agent on held-out episodes.

    Args:
        run: Folder of the run.
        episodes: Number of episodes; starts that satisfy their goal are replaced.
        checkpoint: last, best, or the number of a step.
        json: Print one JSON object on standard output and nothing else.
    """
    if episodes < 1:
        raise ValueError(f"--episodes {episodes} must be at least 1")
    from rlkit.experiment.evaluate import TEST_SEED

    with quiet_output(json), _loaded(run, checkpoint) as (session, step):
        summary = session.evaluate(episodes, TEST_SEED).summary()
    outcome = {"run": str(run), "step": step, **summary}
    if json:
        print_json(outcome)
    else:
        print(f"{run}, step {step:,}: {_describe(outcome)}")
    return 0


@app.command
def record(
    run: Run,
    episodes: int = 3,
    checkpoint: str = "last",
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Record a video of a trained agent.

    Args:
        run: Folder of the run.
        episodes: Number of episodes.
        checkpoint: last, best, or the number of a step.
        out: The .mp4 file; by default RUN/videos/step-N.mp4.
    """
    if episodes < 1:
        raise ValueError(f"--episodes {episodes} must be at least 1")
    from rlkit.experiment import train

    with _loaded(run, checkpoint) as (session, step):
        path = out or run / "videos" / f"step-{step}.mp4"
        train.record(session, path, episodes)
    print(path)
    return 0


@app.command
def plot(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN...")],
    out: Path = Path("success.png"),
) -> int:
    """Plot success over steps; runs of one environment and agent share a curve.

    Args:
        runs: Folders of runs.
        out: The figure, .png, .svg or .pdf.
    """
    if not runs:
        raise ValueError("name at least one run")
    from rlkit.experiment.plots import success_curves

    success_curves(runs).savefig(out)
    print(out)
    return 0


@app.command(name="check-env")
def check_env(env: Annotated[str, Positional, arg(metavar="ID")], json: Json = False) -> int:
    """Check an environment: Gymnasium's checker and the laws of goal environments.

    Args:
        env: Id of the environment; my_pkg:My-v0 imports my_pkg first.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.goals.check import check_goal_env

    with quiet_output(json):
        problems = check_goal_env(env_maker()(env))
    # Unlike in training, an environment without goals fails here.
    is_fine = all(problem.note and problem.law != "goals" for problem in problems)
    if json:
        found = [{"law": p.law, "message": p.message, "note": p.note} for p in problems]
        print_json({"env": env, "ok": is_fine, "problems": found})
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{env} {'keeps' if is_fine else 'breaks'} the laws of a goal environment")
    return 0 if is_fine else 2


app.command(cli_latent.app, name="latent", help="Train latent models, and evaluate them.")
app.command(cli_world.app, name="world", help="Train world models, and score them.")


@app.command(name="list")
def list_(
    what: Annotated[
        Literal[
            "agents",
            "encoders",
            "envs",
            "generators",
            "latents",
            "planners",
            "recipes",
            "samplers",
            "worlds",
        ],
        Positional,
    ],
) -> int:
    """List what is installed.

    Args:
        what: agents, encoders, envs (environments), generators (of goals), latents (latent models),
            planners, recipes, samplers (of the replay buffer) or worlds (world models).
    """
    rows: Iterable[tuple[str, str]]
    if what in GROUPS:
        rows = [(name, "") for name in sorted(entry_points(group=f"rlkit.{what}").names)]
        if what == "worlds":
            rows += cli_world.BASELINES.items()
    elif what == "recipes":
        from rlkit.experiment.recipe import describe_recipes

        rows = describe_recipes()
    else:
        rows = [(name, "") for name in _environments()]
    for name, description in rows:
        print(f"{name:24} {description}".rstrip())
    return 0


def _environments() -> list[str]:
    """Ids of the suite's environments and of those that packages register by entry points."""
    import gymnasium

    from rlkit.envs.make import registering_modules

    for module in registering_modules():
        importlib.import_module(module)
    namespaces = {"rlkit", *entry_points(group="rlkit.envs").names}
    return sorted(name for name in gymnasium.registry if name.partition("/")[0] in namespaces)


@contextlib.contextmanager
def _loaded(run: Path, checkpoint: str) -> Iterator[tuple[Session, int]]:
    from rlkit.experiment.run_folder import RunFolder
    from rlkit.experiment.session import Session

    session, step = Session.load(RunFolder.open(run), env_maker(), checkpoint)
    try:
        yield session, step
    finally:
        session.close()


def _print_training(outcome: dict[str, Any], json: bool) -> int:
    run, steps = outcome["run"], outcome["steps"]
    done = [
        f"{run}, {steps:,} steps in {outcome['wall_s']:.0f} s: {_describe(outcome)}",
        f"watch it with: tensorboard --logdir {run}",
    ]
    stopped = f"{run} stopped at step {steps:,}; continue with: rlkit resume {run}"
    return print_training(outcome, json, done, stopped)


def _describe(outcome: dict[str, Any]) -> str:
    if not outcome["episodes"]:
        return "not evaluated"
    text = f"return {outcome['return_mean']:.2f} over {outcome['episodes']} held-out episodes"
    if outcome["success_rate"] is None:
        return text
    low, high = outcome["success_ci95"]
    return f"success {outcome['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}), {text}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    to_stderr(f"warning: {message}")


def _one_setting_per_flag(arguments: list[str]) -> list[str]:
    """Allows several settings after one --set: `--set a=1 b=2` is `--set a=1 --set b=2`."""
    result: list[str] = []
    in_settings = False
    for argument in arguments:
        if in_settings and "=" in argument and not argument.startswith("-"):
            if result[-1] != "--set":
                result.append("--set")
        else:
            in_settings = argument == "--set"
        result.append(argument)
    return result


def main() -> None:
    """Runs the command line; an error of the user is one message and exit code 2."""
    # A console script does not search the current folder, where a user's modules are. Appended, so
    # that nothing there hides an installed package.
    sys.path.append(os.getcwd())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=r"rlkit\.")
        warnings.showwarning = _show_warning
    try:
        require_current(sys.argv[1:])
        sys.exit(app.cli(prog="rlkit", args=_one_setting_per_flag(sys.argv[1:])))
    except KeyboardInterrupt:
        to_stderr("interrupted")
        sys.exit(130)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get("RLKIT_TRACEBACK"):
            raise
        to_stderr(f"error: {error}\n(RLKIT_TRACEBACK=1 shows the traceback.)")
        sys.exit(2)
