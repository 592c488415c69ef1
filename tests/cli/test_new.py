import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.cli.new import KINDS

ROOT = Path(__file__).parents[2]
# Added to the commands that a template names, to keep them short.
LIGHT = {
    "train": "--set num_envs=2 evaluation.every=0 evaluation.final_episodes=2 "
    "pictures.video_episodes=0 agent_options.learning_starts=50 agent_options.net_arch=[8]",
    "world": "--steps 20",
}
STEPS = {"5000": "120", "2000": "600", "500": "20", "50": "20"}
RULES = "E,F,W,I,UP,B,C4,NPY,PT,RUF,SIM"


@pytest.fixture
def forget():
    """Unloads what a test imports, since templates have the same names in several tests."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_kinds_are_those_of_the_command(rlkit):
    assert "{" + ",".join(KINDS) + "}" in rlkit("new", "--help")[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_passes_its_test_and_trains(rlkit, tmp_path, kind, forget):
    code, out, err = rlkit("new", kind, f"my_{kind}")
    assert (code, err) == (0, "")
    wrote, test, _, *commands = out.splitlines()
    assert (wrote, test) == (f"wrote my_{kind}.py", f"wrote test_my_{kind}.py")
    pytest_command, *rest = (command.strip() for command in commands)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error"]
    tested = subprocess.run(
        [sys.executable, *shlex.split(pytest_command)[1:], *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout
    sys.path.append(str(tmp_path))
    for command in rest:
        assert command.startswith("rlkit ")
        words = [STEPS.get(word, word) for word in shlex.split(command)[1:]]
        if words[0] in LIGHT and "--set" in words:
            words += shlex.split(LIGHT[words[0]])[1:]
        elif (words[0] in LIGHT and "--steps" not in words[2:]) or words[0] == "train":
            words += shlex.split(LIGHT[words[0]])
        code, _, err = rlkit(*words)
        assert code == 0, err


def written(rlkit, tmp_path):
    for kind in KINDS:
        assert rlkit("new", kind, f"my_{kind}", "--out", "src")[0] == 0
    return tmp_path / "src"


def test_templates_are_linted(rlkit, tmp_path):
    folder = written(rlkit, tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    if subprocess.run([*ruff, "--version"], capture_output=True).returncode != 0:
        pytest.skip("ruff is in the extra dev")
    options = ["--isolated", "--line-length", "100"]
    for command in (["check", "--select", RULES], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, *options, folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_templates_are_typed(rlkit, tmp_path):
    folder = written(rlkit, tmp_path)
    pytest.importorskip("mypy", reason="mypy is in the extra dev")
    if not (ROOT / ".mypy_cache").is_dir():
        pytest.skip("takes a minute without the cache that `make lint` leaves")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *folder.glob("*.py")],
        cwd=ROOT,  # for the settings in pyproject.toml
        env={**os.environ, "MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["MyTask", "my-task", "my_task"])
def test_a_name_is_spelled_as_a_module_and_a_class(rlkit, tmp_path, name, forget):
    assert rlkit("new", "encoder", name)[0] == 0
    sys.path.append(str(tmp_path))
    assert importlib.import_module("my_task").MyTask().hidden == 32


@pytest.mark.parametrize(
    ("name", "message"),
    [("2fast", "cannot name"), ("class", "cannot name"), ("json", "hide"), ("torch", "my_torch")],
)
def test_names_that_cannot_be_imported_are_refused(rlkit, tmp_path, name, message):
    code, out, err = rlkit("new", "env", name)
    assert (code, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(rlkit, tmp_path):
    (tmp_path / "test_mine.py").write_text("kept")
    code, _, err = rlkit("new", "env", "mine")
    assert code == 2
    assert "test_mine.py exists already" in err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "kept"
