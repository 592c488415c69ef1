"""A package with one part of each kind, registered by entry points alone: tests/third_party."""

import ast
import importlib
import io
import os
import shutil
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import gymnasium
import pytest

from rlkit.cli import main as cli
from rlkit.experiment.run_folder import RunFolder
from rlkit.goals.check import check_env
from rlkit.goals.generators import GENERATORS, check_generator
from rlkit.io.checkpoint import load_latest
from rlkit.latents import LATENTS, check_latent
from rlkit.networks.encoders import ENCODERS, check_encoder
from rlkit.planning import PLANNERS, check_planner
from rlkit.replay import SAMPLERS, check_sampler
from rlkit.world import WORLDS, check_world

SOURCE = Path(__file__).parent / "third_party"
NAMES = {
    "agents": "gcsl",
    "encoders": "averages",
    "envs": "extras/Dot-v0",
    "generators": "near_misses",
    "latents": "slow",
    "planners": "local",
    "samplers": "recent",
    "worlds": "residual",
}
CHECKS = {
    "averages": (ENCODERS, check_encoder),
    "near_misses": (GENERATORS, check_generator),
    "slow": (LATENTS, check_latent),
    "local": (PLANNERS, check_planner),
    "recent": (SAMPLERS, check_sampler),
    "residual": (WORLDS, check_world),
}
LONGEST = 60  # lines of code in a part
PUBLIC = {
    *("rlkit.agents", "rlkit.goals", "rlkit.latents", "rlkit.networks", "rlkit.planning"),
    "rlkit.world",
}
QUICK = [
    *("check_env=false", "evaluation.every=0", "evaluation.final_episodes=2", "num_envs=2"),
    *("pictures.video_episodes=0", "agent_options.learning_starts=40"),
]
GCSL = [
    *("agent_options.encoder=averages", "agent_options.window=4", "agent_options.net_arch=[8]"),
    *("agent_options.replay.sampler=recent", "agent_options.goal_generator=near_misses"),
]
MPC = [
    *("agent_options.planner={name='local', horizon=4, samples=12}", "env_options.pixels=true"),
    *("agent_options.world={name='residual', hidden=5}", "agent_options.first_fit=5"),
    *("agent_options.latent={name='slow', dims=3}", "agent_options.particles=2"),
    *("agent_options.pretraining={frames=40, steps=5}",),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder that the package is installed in; it is built from a copy."""
    folder = tmp_path_factory.mktemp("third_party")
    source, site = folder / "source", folder / "site"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", "build"))
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    command += ["--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


@pytest.fixture
def installed(package, monkeypatch):
    """The package can be imported here, and its entry points are found."""
    monkeypatch.syspath_prepend(package)
    yield
    gymnasium.registry.pop("extras/Dot-v0", None)
    for name in [name for name in sys.modules if name.startswith("rlkit_extras")]:
        del sys.modules[name]


def rlkit(package, folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "rlkit.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def trained(package, folder, agent, *settings):
    """Recipe and last checkpoint of a run that was trained, and then resumed."""
    words = ["train", "--env", "extras/Dot-v0", "--agent", agent, "--out", "run"]
    settings = [*QUICK, *settings, "agent_options.batch_size=8"]
    rlkit(package, folder, *words, "--steps", "60", "--set", *settings)
    run = RunFolder.open(folder / "run")
    before, _ = load_latest(run.checkpoints)
    rlkit(package, folder, "resume", "run", "--steps", "120")
    step, state = load_latest(run.checkpoints)
    assert 60 <= before < 120 <= step
    return tomllib.loads((run.path / "recipe.toml").read_text()), state


@pytest.mark.parametrize("group", NAMES)
def test_lists_name_the_parts_of_other_packages(installed, group, capsys):
    cli.list_(group)
    assert NAMES[group] in capsys.readouterr().out.split()


@pytest.mark.parametrize("name", CHECKS)
def test_parts_of_other_packages_pass_the_checks_of_their_contracts(installed, name):
    group, check = CHECKS[name]
    check(group.make(name))


@pytest.mark.parametrize("pixels", [False, True])
def test_an_environment_of_another_package_passes_the_check(installed, pixels):
    importlib.import_module("rlkit_extras.env")
    problems = check_env(lambda: gymnasium.make("extras/Dot-v0", pixels=pixels))
    assert [str(problem) for problem in problems if problem.level != "note"] == []


@pytest.mark.slow
def test_an_agent_trains_with_an_encoder_a_sampler_and_a_goal_generator(package, tmp_path):
    recipe, state = trained(package, tmp_path, "gcsl", *GCSL)
    options = recipe["agent_options"]
    assert (recipe["env"], recipe["agent"]) == ("extras/Dot-v0", "gcsl")
    assert (options["encoder"], options["goal_generator"]) == ("averages", "near_misses")
    assert options["replay"]["sampler"] == "recent"
    assert any(name.endswith("project") for name in state["weights"]), list(state["weights"])
    assert state["training"]["goal_generator"]["missed"]
    assert "place" in state["replay"]["sampler"]


@pytest.mark.slow
def test_a_world_model_a_planner_and_a_latent_model_train(package, tmp_path):
    recipe, state = trained(package, tmp_path, "mpc", *MPC)
    options = recipe["agent_options"]
    chosen = [options[kind]["name"] for kind in ("world", "planner", "latent")]
    assert chosen == ["residual", "local", "slow"]
    assert state["weights"]["world.1.weight"].shape[-2] == 5
    plans = [part for part in state["training"]["hidden_state"] if part.shape == (2, 4, 2)]
    assert any(plan.any() for plan in plans)
    latent = state["training"]["latent"]
    assert (latent["model"]["name"], latent["version"]) == ("slow", 1)


def code_lines(path):
    """How many lines of a file hold code: no docstrings, comments or blank lines."""
    text = path.read_text()
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    no_code |= {tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in no_code:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def imports_of_the_suite(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "names")]
    names = {getattr(node, "module", None) or node.names[0].name for node in nodes}
    return {name for name in names if name.startswith("rlkit")}


def test_each_part_is_one_short_file_of_public_imports():
    """Shown with `-s`: lines of code per part, without docstrings, comments and blank lines."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    files = {}
    for group, entries in project["entry-points"].items():
        (module,) = {value.partition(":")[0] for value in entries.values()}
        files[group] = SOURCE / f"{module.replace('.', '/')}.py"
    assert {group.removeprefix("rlkit.") for group in files} == NAMES.keys()
    assert len(set(files.values())) == len(files)
    for group, path in files.items():
        assert imports_of_the_suite(path) <= PUBLIC, path
        lines = code_lines(path)
        print(f"\n{group:18} {path.name:14} {lines:3}", end="")
        assert lines <= LONGEST, path
