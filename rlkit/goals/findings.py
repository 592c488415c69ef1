"""What a check of an environment found: levels, laws, and the lines to change."""

from __future__ import annotations

import inspect
import itertools
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)
MEANING: dict[Level, str] = {
    "error": "training cannot work",
    "warning": "probably a mistake, but it can be trained",
    "note": "for information",
}
LAWS: dict[str, tuple[Level, str]] = {
    "action": ("warning", "step"),
    "action effect": ("warning", "step"),
    "action space": ("error", "__init__"),
    "aliasing": ("warning", "step"),
    "batch": ("error", "compute_reward"),
    "close": ("warning", "close"),
    "crash": ("error", "step"),
    "dead sensor": ("warning", "step"),
    "end": ("warning", "__init__"),
    "end type": ("error", "step"),
    "finite": ("error", "step"),
    "goal changes": ("note", "step"),
    "goal shape": ("error", "__init__"),
    "goals": ("error", "__init__"),
    "gymnasium": ("warning", "__init__"),
    "gymnasium's advice": ("note", "__init__"),
    "info": ("error", "step"),
    "length": ("note", "step"),
    "live rule": ("note", "compute_reward"),
    "no goals": ("note", "__init__"),
    "no rendering": ("note", "__init__"),
    "pickle": ("warning", "__init__"),
    "replay": ("warning", "step"),
    "reset": ("error", "reset"),
    "result": ("error", "step"),
    "reward": ("warning", "step"),
    "reward range": ("warning", "step"),
    "reward scale": ("warning", "step"),
    "reward type": ("error", "step"),
    "rule": ("error", "compute_reward"),
    "second instance": ("warning", "__init__"),
    "seed": ("warning", "reset"),
    "shared state": ("warning", "step"),
    "solved start": ("note", "reset"),
    "space": ("error", "step"),
    "stale observation": ("warning", "step"),
    "success": ("warning", "step"),
    "success of the goal": ("warning", "compute_reward"),
    "termination": ("warning", "step"),
    "timeout": ("warning", "step"),
}
"""The level of each law where a finding has no other, and the method that usually breaks it."""
_NOT_THE_USERS = ("gymnasium.", "rlkit.", "stable_baselines3.")


@dataclass(frozen=True)
class Finding:
    """One broken law, or something to know.

    Attributes:
        level: "error": training cannot work; "warning": probably a mistake, and trained all the
            same; "note": for information.
        law: The law's short name, a key of `LAWS`.
        message: The offending value and the fix.
        where: Class, method, file and line to change; empty if unknown.
    """

    level: Level
    law: str
    message: str
    where: str = ""

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.level} {self._text()}"

    def _text(self) -> str:
        return f"[{self.law}] {self.where}{': ' if self.where else ''}{self.message}"


@dataclass
class Findings:
    """The findings about one environment so far, the first of each law.

    Attributes:
        env: The environment, whose class the findings name.
    """

    env: gym.Env[Any, Any]
    found: list[Finding] = field(default_factory=list)

    def add(
        self, law: str, message: str, level: Level | None = None, where: str | None = None
    ) -> None:
        """Keeps the first finding of each law and level.

        Args:
            law: A key of `LAWS`.
            message: The offending value and the fix.
            level: Another level than the law's own.
            where: The place to change; None for the method that the law belongs to.
        """
        usual, method = LAWS[law]
        # One report per law: a broken law usually breaks at every step.
        if all((one.law, one.level) != (law, level or usual) for one in self.found):
            where = place_of(self.env, method) if where is None else where
            self.found.append(Finding(level or usual, law, " ".join(message.split()), where))


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with which training cannot work."""
    return [finding for finding in findings if finding.level == "error"]


def grouped(findings: Sequence[Finding], levels: Sequence[Level] = LEVELS) -> str:
    """Findings as lines: each level under its meaning, one finding per line."""
    lines = []
    for level in levels:
        group = [finding for finding in findings if finding.level == level]
        if group:
            plural = "s" if len(group) > 1 else ""
            lines.append(f"{len(group)} {level}{plural} ({MEANING[level]})")
            lines += [f"  {finding._text()}" for finding in group]
    return "\n".join(lines)


def layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """An environment's wrappers, from the outermost to the environment itself."""
    while True:
        yield env
        if not isinstance(env, gym.Wrapper):
            return
        env = env.env


def place_of(env: gym.Env[Any, Any], method: str) -> str:
    """Class, method, file and line to change, such as `Boat.step (harbour.py:25)`.

    It is the outermost layer with the method that is neither Gymnasium's nor the suite's; else the
    environment without wrappers.
    """
    for layer in itertools.chain(layers(env), [env.unwrapped]):
        owner = _owner(type(layer), method)
        is_last = layer is env.unwrapped
        if owner is not None and (is_last or _is_the_users(owner)):
            return place_of_method(owner, method)
    return place_of_method(type(env.unwrapped), "__init__")


def place_of_method(kind: type[Any], method: str) -> str:
    """The same of a method of a class; the class where the method is not written in a file."""
    owner = _owner(kind, method) or kind
    member = vars(owner).get(method)
    if inspect.isfunction(member) and (place := _file_and_line(member)):
        return f"{_outer(owner.__qualname__)}.{method} {place}"
    return f"{_outer(owner.__qualname__)} {_file_and_line(owner)}".rstrip()


def place_of_error(env: gym.Env[Any, Any], error: BaseException, method: str) -> str:
    """The line of an environment's own file that an exception came through last.

    Args:
        env: The environment.
        error: The exception.
        method: The method that raised it, for exceptions that came through none of its files.
    """
    kinds = [kind for layer in layers(env) for kind in type(layer).__mro__]
    files = {_source(kind) for kind in kinds if _is_the_users(kind)}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        if code.co_filename in files:
            return f"{_outer(code.co_qualname)} ({_short(code.co_filename)}:{line})"
    return place_of(env, method)


def _is_the_users(kind: type[Any]) -> bool:
    return not f"{kind.__module__}.".startswith((*_NOT_THE_USERS, "builtins.", "typing."))


def _owner(kind: type[Any], method: str) -> type[Any] | None:
    for parent in kind.__mro__:
        if method in vars(parent) and parent not in (object, gym.Env, gym.Wrapper):
            return parent
    return None


def _outer(name: str) -> str:
    """A qualified name without the function that a class may be defined in."""
    return name.rpartition("<locals>.")[2]


def _source(kind: type[Any]) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except (OSError, TypeError):
        return None


def _file_and_line(target: Any) -> str:
    try:
        path, line = inspect.getsourcefile(target), inspect.getsourcelines(target)[1]
    except (OSError, TypeError):  # made by Python, or typed into an interpreter
        return ""
    return "" if path is None else f"({_short(path)}:{line})"


def _short(path: str) -> str:
    """A path below the current folder or a folder of modules."""
    for root in (os.getcwd(), *sorted(filter(None, sys.path), key=len, reverse=True)):
        if Path(path).is_relative_to(root):
            return str(Path(path).relative_to(root))
    return path
