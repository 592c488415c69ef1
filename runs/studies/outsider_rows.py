"""Rows of the table of foreign test suites, from `results/conformance/outsiders.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import benchmark_rows

COLUMNS = ["suite", "version", "applicable", "pass", "share"]
REASON_COLUMNS = ["suite", "tests", "which", "reason"]


def suite_rows(folder: Path) -> Iterator[list[str]]:
    """One row per suite."""
    for name, found in benchmark_rows.read(folder / "conformance" / "outsiders.json").items():
        passed, of = sum(found["passed"].values()), found["applicable"]
        share = f"{passed / of:.1%}"
        yield [name, f"{found['package']} {found['version']}", str(of), str(passed), share]


def not_applicable_rows(folder: Path) -> Iterator[list[str]]:
    """One row per reason why tests do not apply."""
    for name, found in benchmark_rows.read(folder / "conformance" / "outsiders.json").items():
        for reason, functions in found["not_applicable"].items():
            which = ", ".join(f"`{function.rpartition('::')[2]}`" for function in functions)
            yield [name, str(sum(functions.values())), which, reason]


def failing_rows(folder: Path) -> Iterator[list[str]]:
    """One row per reason why applicable tests fail."""
    for name, found in benchmark_rows.read(folder / "conformance" / "outsiders.json").items():
        for reason, tests in [*found["fails"].items(), ("not looked into", found["unexpected"])]:
            functions = sorted({test.partition("[")[0].rpartition("::")[2] for test in tests})
            if tests:
                yield [name, str(len(tests)), ", ".join(f"`{one}`" for one in functions), reason]
