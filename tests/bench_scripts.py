"""Fixtures with the benchmark scripts, which are not importable modules."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "runs" / "bench"


def bench_fixture(name):
    """A fixture with the script `runs/bench/<name>.py` as a module."""

    @pytest.fixture(scope="module", name="bench")
    def bench():
        sys.path.insert(0, str(BENCH))  # scripts import each other
        spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        del sys.modules[name]
        sys.path.remove(str(BENCH))

    return bench
