"""The scripts in `runs/` are modules of their own folder."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "runs"


@pytest.fixture(autouse=True)
def _scripts_importable(monkeypatch):
    """Lets a test import the scripts; they are forgotten after, for their names are plain words."""
    monkeypatch.syspath_prepend(SCRIPTS)
    loaded = set(sys.modules)
    yield
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(SCRIPTS)):
            del sys.modules[name]
