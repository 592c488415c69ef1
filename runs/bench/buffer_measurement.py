"""What the benchmarks of replay buffers share: a process per buffer, and its resident memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from rlkit.goals import GoalRule


class RewardEnv:
    """The part of a vector environment that `HerReplayBuffer` calls."""

    def __init__(self, rule: GoalRule) -> None:
        self._rule = rule

    def env_method(self, name: str, achieved: Any, desired: Any, *_: Any, **__: Any) -> list[Any]:
        """The result of `compute_reward` of the first environment."""
        return [self._rule.reward(achieved, desired)]


def resident_bytes() -> int:
    """Resident memory of this process, mapped files included."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_own_process(script: str, *arguments: object) -> Any:
    """The JSON object that a script prints when called with `--measure` and the arguments."""
    command = [sys.executable, script, "--measure", *map(str, arguments)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)
