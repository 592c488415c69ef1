"""What a user of Stable-Baselines3 writes in the first week, run as scripts with small budgets."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = sorted((Path(__file__).parent / "week_one").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_script(script, tmp_path, monkeypatch):
    if "import optuna" in script.read_text():
        pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.name, "120"])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


def test_there_are_scripts():
    assert len(SCRIPTS) >= 10
