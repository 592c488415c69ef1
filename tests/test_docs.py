"""Runs every snippet of the README and of `docs/`, page by page, each page in an empty folder.

A snippet whose first line is a comment with a file name is written to that file. `<!-- not run -->`
above a snippet excludes it.
"""

import dataclasses
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlkit.cli import main as cli
from rlkit.experiment.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
NOTES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"(<!-- not run -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.(?:py|toml))\n")
# .ci/run tests the installation, and a test cannot run all tests.
ELSEWHERE = ("python3 -m venv", "pip install", "python -m pytest")
# Added to trainings that do not set these keys, to keep them short.
LIGHT = {"pictures.video_episodes": 0, "evaluation.final_episodes": 8}


def snippets(page):
    """Language and text of the snippets that can be run."""
    found = FENCE.finditer(page.read_text())
    return [(match[2], match[3]) for match in found if not match[1] and match[2] != "text"]


def commands(text):
    """The single commands of a shell snippet."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            command = part.strip().removeprefix(".venv/bin/")
            if command and not command.startswith(ELSEWHERE):
                yield command


def light(words):
    """A training with few steps."""
    missing = [f"{key}={value}" for key, value in LIGHT.items() if key not in " ".join(words)]
    steps = [] if "--steps" in words or words[2].endswith(".toml") else ["--steps", "400"]
    return [*words, *steps, "--set", *missing] if missing else [*words, *steps]


def run_command(command, monkeypatch):
    words = shlex.split(command)
    if words[0] != "rlkit":
        subprocess.run(["bash", "-c", command], check=True)
        return
    monkeypatch.setattr(sys, "argv", light(words) if words[1] == "train" else words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0, command


def run_snippet(language, text, monkeypatch):
    named = FILE_NAME.match(text)
    if named:
        Path(named[1]).write_text(text)
    elif language == "python":
        Path("snippet.py").write_text(text)
        runpy.run_path("snippet.py", run_name="__main__")
    elif language == "sh":
        for command in commands(text):
            run_command(command, monkeypatch)
    else:
        assert language == "toml", f"no way to run a snippet of {language!r}"
        tomllib.loads(text)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs one snippet in the page's folder and unloads its modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    loaded = set(sys.modules)
    yield lambda language, text: run_snippet(language, text, monkeypatch)
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path) + os.sep):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_run(page, run, capsys):
    for language, text in snippets(page):
        run(language, text)
    assert "Traceback" not in capsys.readouterr().err


def test_the_runner_notices_what_fails(run):
    with pytest.raises(AssertionError):
        run("sh", "rlkit train no-such-recipe\n")
    with pytest.raises(subprocess.CalledProcessError):
        run("sh", "cmp nothing nowhere\n")
    with pytest.raises(ZeroDivisionError):
        run("python", "1 / 0\n")
    with pytest.raises(tomllib.TOMLDecodeError):
        run("toml", "a =\n")


def test_the_readme_begins_with_its_two_commands():
    first, second, *_ = (text for language, text in snippets(README) if language == "sh")
    for text in (first, second):
        assert text.count("\n") == 1 + text.count("\\\n"), "a single command"
        assert text.startswith("python3 -m venv .venv &&")
    assert ".venv/bin/rlkit train quickstart" in first
    assert ".venv/bin/python -m pytest" in second


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_site_has_every_page():
    nav = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav) == sorted(page.name for page in PAGES if page != README)


def recipe_keys(kind, prefix=""):
    """Key and default of every field of a recipe, as the documentation writes them."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            yield from recipe_keys(field.default, f"{prefix}{field.name}.")
        elif field.default is dataclasses.MISSING:
            is_table = field.default_factory is not dataclasses.MISSING
            yield f"{prefix}{field.name}", "`{}`" if is_table else ""
        else:
            value = field.default
            text = f'"{value}"' if isinstance(value, str) else str(value).lower()
            yield f"{prefix}{field.name}", "" if value is None else f"`{text}`"


def test_the_recipe_keys_are_documented_with_their_defaults():
    text = (ROOT / "docs" / "recipes.md").read_text()
    table = text.split("| key | default |")[1].split("\n\n")[0]
    found = re.findall(r"^\| `([\w.]+)` \| (\S*) ?\|", table, re.MULTILINE)
    assert dict(found) == dict(recipe_keys(Recipe))
