import configparser
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"rlkit": "rlkit", "rlkit/envs": "envs", "rlkit/agents": "agents"}
SOURCES = ("rlkit", "envs", "agents", "runs/recipes")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves folders behind where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--wheel-dir", str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("rlkit_suite-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.slow
def test_it_holds_every_file_of_the_packages_and_nothing_else(wheel):
    expected = {"rlkit/py.typed", "rlkit/recipes/__init__.py"}
    for target, source in FOLDERS.items():
        for path in (ROOT / source).rglob("*.py"):
            expected.add(f"{target}/{path.relative_to(ROOT / source).as_posix()}")
    expected |= {f"rlkit/recipes/{path.name}" for path in ROOT.glob("runs/recipes/*.toml")}
    templates = (ROOT / "rlkit" / "cli" / "templates").iterdir()
    expected |= {f"rlkit/cli/templates/{path.name}" for path in templates}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_its_files_are_those_of_the_tree(wheel):
    assert wheel.read("rlkit/agents/sac.py") == (ROOT / "agents" / "sac.py").read_bytes()
    assert wheel.read("rlkit/recipes/quickstart.toml") == (
        (ROOT / "runs" / "recipes" / "quickstart.toml").read_bytes()
    )


def test_its_entry_points_are_those_of_the_project(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    found = configparser.ConfigParser()
    found.read_string(wheel.read(name).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert dict(found["console_scripts"]) == project["scripts"]
    assert dict(found["rlkit.agents"]) == project["entry-points"]["rlkit.agents"]


def test_its_metadata_names_the_licence_and_shows_the_readme(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    text = wheel.read(name).decode()
    assert "License-Expression: MIT" in text
    assert (ROOT / "README.md").read_text().strip() in text
