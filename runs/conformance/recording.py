"""What the plugins share: which tests touched this suite's code, and how each ended.

The outcome of every test goes to the file `$OUTSIDERS_REPORT`, as one JSON object.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Recorder:
    """A pytest plugin that notes outcomes, and the tests during which `touch` was called.

    Args:
        all_touch: Whether every test counts as one that uses this suite's code.
    """

    def __init__(self, all_touch: bool = False) -> None:
        self._all_touch = all_touch
        self._running: str | None = None
        self._touched: set[str] = set()
        self._tests: dict[str, dict[str, Any]] = {}

    def touch(self) -> None:
        """Says that the running test uses this suite's code."""
        if self._running is not None:
            self._touched.add(self._running)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Notes which test runs."""
        self._running = item.nodeid
        yield
        self._running = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes the outcome, and the first line of what went wrong."""
        test = self._tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 2)
        if report.outcome != "passed" and test["outcome"] == "passed":
            test["outcome"] = report.outcome
            test["cause"] = _cause(report.longreprtext)
        test["touched"] = self._all_touch or report.nodeid in self._touched

    def pytest_sessionfinish(self) -> None:
        """Writes the file."""
        Path(os.environ["OUTSIDERS_REPORT"]).write_text(json.dumps(self._tests, indent=1))


def _cause(text: str) -> str:
    lines = text.strip().splitlines()
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors or lines[-1:] or [""])[0][:300]
