"""Makes the scripts of `runs/studies/` importable."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "runs" / "studies"


@pytest.fixture(autouse=True)
def _scripts_importable(monkeypatch):
    """Makes the scripts importable and unloads them afterwards: their names are not unique."""
    monkeypatch.syspath_prepend(SCRIPTS)
    loaded = set(sys.modules)
    yield
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(SCRIPTS)):
            del sys.modules[name]
