import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.cli.completion import candidates
from rlkit.cli.main import COMMANDS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["train", "--see"], ["--seed", "--seeds"]),
        (["train", "quick"], ["quickstart"]),
        (["train", "--json", "quick"], ["quickstart"]),
        (["train", "--agent", "s"], ["sac"]),
        (["train", "--encoder", "l"], ["lru", "lstm"]),
        (["train", "--env", "rlkit/BitFlip-v"], ["rlkit/BitFlip-v0"]),
        (["list", "w"], ["worlds"]),
        (["new", "e"], ["env", "encoder"]),
        (["latent", ""], ["train", "report"]),
        (["latent", "train", "--d"], ["--data"]),
        (["eval", ""], []),  # the shell offers files
        (["no-such-command", ""], []),
    ],
)
def test_the_last_word_is_completed(words, expected):
    assert candidates(words, COMMANDS) == expected


def test_an_empty_line_offers_every_command():
    assert candidates([], COMMANDS) == list(COMMANDS)


def test_bash_sources_the_script_and_completes(tmp_path):
    rlkit = tmp_path / "rlkit"
    rlkit.write_text(f'#!/bin/sh\nexec {sys.executable} -m rlkit "$@"\n')
    rlkit.chmod(0o755)
    script = """
        eval "$(rlkit completion bash)"
        complete -p rlkit
        COMP_WORDS=(rlkit train quick) COMP_CWORD=2; _rlkit; echo "${COMPREPLY[@]}"
        COMP_WORDS=(rlkit list "") COMP_CWORD=2; _rlkit; echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    registered, recipe, parts = done.stdout.splitlines()
    assert registered == "complete -o default -F _rlkit rlkit"
    assert recipe == "quickstart"
    assert {"agents", "envs", "worlds"} <= set(parts.split())
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_the_command(rlkit, shell):
    code, out, err = rlkit("completion", shell)
    assert (code, err) == (0, "")
    assert "rlkit --complete" in out


def test_scripts_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text()
    assert 'eval "$(rlkit completion bash)"' in text
