import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 400

# Which parts of the suite, and which other distributions, a part may import. Lower parts first.
MAY_IMPORT = {
    "rlkit.version": set(),
    "rlkit": {"rlkit.version"},
    "rlkit.names": set(),
    "rlkit.trust": set(),
    "rlkit.plugins": {"rlkit.names"},
    "rlkit.goals": {"rlkit.names", "rlkit.plugins", "numpy", "gymnasium"},
    "rlkit.replay": {"rlkit.names", "rlkit.plugins", "rlkit.goals", "numpy", "gymnasium"},
    "rlkit.io": {"rlkit.version", "numpy", "gymnasium", "torch", "safetensors"},
    "rlkit.networks": {
        *(
            "rlkit.version",
            "rlkit.trust",
            "rlkit.names",
            "rlkit.io",
            "rlkit.plugins",
            "rlkit.goals",
        ),
        *("numpy", "gymnasium", "torch", "safetensors"),
    },
    "rlkit.latents": {
        *("rlkit.names", "rlkit.io", "rlkit.plugins", "rlkit.goals", "rlkit.networks"),
        *("numpy", "torch"),
    },
    "rlkit.world": {
        *(
            "rlkit.version",
            "rlkit.names",
            "rlkit.io",
            "rlkit.plugins",
            "rlkit.goals",
            "rlkit.replay",
            "rlkit.networks",
        ),
        *("rlkit.latents", "numpy", "gymnasium", "torch"),
    },
    "rlkit.planning": {
        *("rlkit.names", "rlkit.plugins", "rlkit.goals", "rlkit.networks", "rlkit.world"),
        *("numpy", "gymnasium", "torch"),
    },
    "rlkit.vec": {"rlkit.goals", "numpy", "gymnasium", "stable_baselines3"},
    "rlkit.offpolicy": {
        *(
            "rlkit.trust",
            "rlkit.names",
            "rlkit.plugins",
            "rlkit.goals",
            "rlkit.replay",
            "rlkit.networks",
        ),
        *("rlkit.latents", "rlkit.planning", "rlkit.io", "rlkit.vec"),
        *("numpy", "gymnasium", "torch", "stable_baselines3"),
    },
    "rlkit.experiment": {
        *(
            "rlkit.version",
            "rlkit.trust",
            "rlkit.names",
            "rlkit.plugins",
            "rlkit.goals",
            "rlkit.io",
            "rlkit.vec",
        ),
        *("numpy", "gymnasium", "torch", "stable_baselines3", "matplotlib"),
        *("PIL", "imageio_ffmpeg", "rich", "tensorboard"),
    },
    "rlkit.analysis": {
        *(
            "rlkit.trust",
            "rlkit.names",
            "rlkit.plugins",
            "rlkit.goals",
            "rlkit.replay",
            "rlkit.networks",
        ),
        *("rlkit.latents", "rlkit.world", "rlkit.io", "rlkit.vec", "rlkit.experiment"),
        *("numpy", "gymnasium", "torch", "stable_baselines3", "matplotlib", "PIL"),
    },
    "rlkit.envs": {"rlkit.names", "rlkit.goals", "numpy", "gymnasium", "PIL"},
    "rlkit.agents": {
        *("rlkit.names", "rlkit.plugins", "rlkit.goals", "rlkit.replay", "rlkit.networks"),
        *("rlkit.latents", "rlkit.world", "rlkit.planning", "rlkit.offpolicy"),
        *("numpy", "gymnasium", "torch", "stable_baselines3"),
    },
    "rlkit.recipes": set(),
    "rlkit.cli": {
        *("rlkit.version", "rlkit.trust", "rlkit.names", "rlkit.plugins", "rlkit.goals"),
        *("rlkit.replay", "numpy"),
        *("rlkit.experiment", "rlkit.analysis"),
        *("rlkit.envs", "rlkit.vec", "gymnasium", "tyro"),
    },
    "rlkit.__main__": {"rlkit.cli"},
}
# Single files that reach further than their part, and why.
REACHES_FURTHER = {
    "rlkit": {"rlkit.envs", "rlkit.experiment"},  # `rlkit.load`, inside of it
    "rlkit.replay.sb3": {"torch", "stable_baselines3"},  # the edge towards SB3
    "rlkit.envs.fetch": {"mujoco", "gymnasium_robotics"},  # the extra `robotics`
    "rlkit.envs.robotics": {"mujoco", "gymnasium_robotics"},
    "rlkit.world.forecasters.arima": {"statsmodels"},  # the extra `forecast`
    "rlkit.world.data.minari": {"minari"},  # the extra `minari`
}
FOLDERS = {
    "rlkit": ROOT / "rlkit",
    "rlkit.envs": ROOT / "envs",
    "rlkit.agents": ROOT / "agents",
    "rlkit.recipes": ROOT / "runs" / "recipes",
}


def source_files():
    """Module name and path of every file that ships."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(parts).removesuffix(".__init__"), path


FILES = dict(source_files())


def part_of(module):
    return ".".join(module.split(".")[:2])


def imported(path):
    """Every module that a file imports, anywhere in it, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if node.module == "rlkit" else node.module), node.lineno


def forbidden_imports(module, path):
    allowed = MAY_IMPORT[part_of(module)] | REACHES_FURTHER.get(module, set())
    for name, line in imported(path):
        top = name.split(".")[0]
        unit = part_of(name) if top == "rlkit" else top
        unit = unit if top != "rlkit" or unit in MAY_IMPORT else "rlkit"
        if top in sys.stdlib_module_names or unit in allowed or unit == part_of(module):
            continue
        yield f"{path.relative_to(ROOT)}:{line}: {module} must not import {name}"


def test_every_part_has_its_row():
    assert {part_of(module) for module in FILES} == MAY_IMPORT.keys()
    assert REACHES_FURTHER.keys() <= FILES.keys()


def test_lower_parts_never_import_higher_ones():
    order = list(MAY_IMPORT)
    for part, allowed in MAY_IMPORT.items():
        ours = {name for name in allowed if name.startswith("rlkit")}
        assert all(order.index(name) < order.index(part) for name in ours), part


@pytest.mark.slow
def test_imports_stay_inside_the_layers():
    found = [line for module, path in FILES.items() for line in forbidden_imports(module, path)]
    assert found == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rlkit.envs.point_maze", "import torch"),
        ("rlkit.envs.point_maze", "from rlkit.replay import Replay"),
        ("rlkit.envs.point_maze", "def late():\n    import stable_baselines3"),
        ("rlkit.envs.point_maze", "import mujoco"),
        ("rlkit.agents.sac", "import rlkit.envs"),
        ("rlkit.agents.sac", "from rlkit import envs"),
        ("rlkit.goals.rule", "import torch.nn as nn"),
        ("rlkit.goals.rule", "from rlkit.replay.batch import Batch"),
        ("rlkit.replay.storage", "import torch"),
        ("rlkit.networks.mlp", "from rlkit.replay import Batch"),
        ("rlkit.networks.encoders.contract", "from rlkit.experiment.recipe import Recipe"),
        ("rlkit.networks.encoders.contract", "from rlkit.replay import Batch"),
        ("rlkit.networks.files", "from rlkit.vec.env_state import State"),
        ("rlkit.latents.networks", "import gymnasium"),
        ("rlkit.plugins", "import torch"),
        ("rlkit.names", "from rlkit.plugins import PluginGroup"),
        ("rlkit.world.scores.scores", "def late():\n    import statsmodels.api"),
        ("rlkit.world.data.series", "import pandas"),
        ("rlkit.experiment.train", "from rlkit.agents.sac import SAC"),
        ("rlkit.experiment.train", "import rlkit.cli"),
        ("rlkit.experiment.train", "from rlkit.analysis.world import score"),
        ("rlkit.agents.sac", "from rlkit.experiment.recipe import Recipe"),
        ("rlkit.agents.sac", "from rlkit.analysis.world import score"),
        ("rlkit.offpolicy.collect", "from rlkit.experiment.recipe import Recipe"),
        ("rlkit.offpolicy.learner", "from rlkit.agents.sac import SAC"),
        ("rlkit.vec.vec_env", "import torch"),
        ("rlkit.io.archive", "from rlkit.vec.env_state import State"),
        ("rlkit.cli.main", "from rlkit.agents import SAC"),
        ("rlkit", "import numpy"),
        ("rlkit.goals.rule", "import envs"),
    ],
)
def test_the_walk_sees_a_forbidden_import(tmp_path, monkeypatch, module, line):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(f"import math\n{line}\n")
    place = 2 + line.count("\n")
    assert [text.split(": ")[0] for text in forbidden_imports(module, path)] == [
        f"module.py:{place}"
    ]


def test_agents_import_no_other_agent():
    agents = {f"rlkit.agents.{name}" for name in ("sac", "td3", "dqn", "mpc")}
    assert agents <= FILES.keys()
    for module, path in FILES.items():
        if module.startswith("rlkit.agents."):
            assert not {name for name, _ in imported(path)} & agents, module


@pytest.mark.slow
def test_what_is_imported_is_declared():
    """A fresh machine has what pyproject.toml names, and nothing that happens to come along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.match(r"[\w-]+", text)[0].lower() for names in lists for text in names}
    distributions = packages_distributions()
    beside = {path.stem for path in ROOT.glob("tests/**/*.py")}
    # Scripts of users may need more; they are left out where it is missing.
    tests = [path for path in ROOT.glob("tests/**/*.py") if "week_one" not in path.parts]
    for path in [*FILES.values(), *tests]:
        for name, line in imported(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in beside:
                found = {one.lower().replace("_", "-") for one in distributions[top]}
                assert found & declared, f"{path}:{line}: {top} is in no list of pyproject.toml"


def loaded_by(statement):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in result.stdout.split()}


HEAVY = {"torch", "stable_baselines3", "matplotlib", "tensorboard", "mujoco", "gymnasium_robotics"}


def test_importing_the_package_is_light():
    assert not loaded_by("import rlkit") & {*HEAVY, "numpy", "gymnasium"}


@pytest.mark.parametrize("statement", ["import rlkit.cli.main", "import rlkit.experiment.recipe"])
def test_the_command_line_imports_late(statement):
    assert not loaded_by(statement) & {*HEAVY, "numpy", "gymnasium"}


@pytest.mark.slow
def test_environments_live_without_torch():
    use = "import gymnasium, rlkit.envs; gymnasium.make('rlkit/PointMaze-U-v0').reset(seed=0)"
    loaded = loaded_by(use)
    assert "numpy" in loaded
    assert not loaded & HEAVY


@pytest.mark.slow
def test_replay_lives_without_torch():
    assert not loaded_by("import rlkit.replay") & HEAVY


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_files_are_documented_and_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    lines = text.count("\n")
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines; split it at {LONGEST_FILE}"


def test_links_for_type_checkers_are_complete():
    """A type checker follows `.links/rlkit`; what is not linked there it does not see."""
    links = {path.name: path.resolve() for path in (ROOT / ".links" / "rlkit").iterdir()}
    shipped = {
        path.name: path
        for path in (ROOT / "rlkit").iterdir()
        if path.suffix in (".py", ".typed") or (path / "__init__.py").is_file()
    }
    mapped = {name.split(".")[1]: path for name, path in FOLDERS.items() if name != "rlkit"}
    assert links == shipped | mapped
