"""The words of a command line: checked before they are parsed, so that a mistake is one line."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeAlias

from tyro.conf import FlagCreatePairsOff, Positional

from rlkit.names import nearest, similar

Command: TypeAlias = Callable[..., int]
Commands: TypeAlias = Mapping[str, "Command | Commands"]
_OWN_CODE = re.compile(r"(?:^|[=\"'\s])[^\W\d]\w*(?:\.[^\W\d]\w*)*:\w")
_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command, as the command line spells it.

    Attributes:
        name: `--steps`, or what help calls a positional parameter.
        kind: The type of one value; bool is a flag.
        choices: The values that are accepted; empty if all are.
        is_many: Whether it takes several values.
        is_required: Whether it has no default.
        has_negation: Whether a flag has the form `--no-...` as well.
    """

    name: str
    kind: type[Any]
    choices: tuple[str, ...]
    is_many: bool
    is_required: bool
    has_negation: bool


def one_setting_per_flag(arguments: Sequence[str]) -> list[str]:
    """Allows several settings after one --set: `--set a=1 b=2` is `--set a=1 --set b=2`."""
    result: list[str] = []
    in_settings = False
    for argument in arguments:
        if in_settings and "=" in argument and not argument.startswith("-"):
            if result[-1] != "--set":
                result.append("--set")
        else:
            in_settings = argument == "--set"
        result.append(argument)
    return result


def imports_own_code(arguments: Sequence[str]) -> bool:
    """Whether arguments name `module:Class` or `module:Id-v0`, or trust the names in files."""
    return "--trust" in arguments or any(map(_OWN_CODE.search, arguments))


def resolved(
    words: Sequence[str], commands: Commands, program: str = "rlkit"
) -> tuple[str, Command | Commands, list[str]]:
    """The command that words name, and the words behind it, with whole numbers written out.

    Args:
        words: The words after the program's name.
        commands: Functions by the names of their commands, possibly nested.
        program: What the words before are.

    Returns:
        The command as it is written; its function, or a group of which no command is named; and the
        words behind it.

    Raises:
        ValueError: If a command, option or value is unknown, missing or of a wrong type; the
            message names it and what was probably meant.
    """
    if not words or words[0] in _HELP:
        return program, commands, []
    first, *rest = words
    found = commands.get(first)
    if found is None:
        if first.startswith("-"):
            raise ValueError(
                f"{program} has no option {first}; options stand behind a command, such as "
                f"`{program} {next(iter(commands))} {first}`. See `{program} --help`."
            )
        raise ValueError(f"{program} has no command {first!r}. {nearest(first, commands)}")
    program = f"{program} {first}"
    if isinstance(found, Mapping):
        return resolved(rest, found, program)
    if any(word in _HELP for word in rest):
        return program, found, ["--help"]
    walk = _Walk(program, *parameters(found))
    return program, found, walk.checked(one_setting_per_flag(rest))


def parameters(command: Callable[..., Any]) -> tuple[dict[str, Parameter], list[Parameter]]:
    """The options of a command by their names, and its positional parameters."""
    hints = typing.get_type_hints(command, include_extras=True)
    options: dict[str, Parameter] = {}
    positional: list[Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        is_required = parameter.default is inspect.Parameter.empty
        hint, marks = _split(hints[name])
        if is_dataclass(hint):
            inner = typing.get_type_hints(hint, include_extras=True)
            for field in fields(hint):
                has_default = field.default is not field.default_factory
                found = _parameter(field.name, *_split(inner[field.name]), not has_default)
                options[found.name] = found
            continue
        found = _parameter(name, hint, marks, is_required)
        if Positional in marks:
            positional.append(found)
        else:
            options[found.name] = found
    return options, positional


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type behind Annotated, and the marks; None is left out of a union."""
    marks: tuple[Any, ...] = ()
    while typing.get_origin(hint) is typing.Annotated:
        marks, hint = (*marks, *hint.__metadata__), hint.__origin__
    if isinstance(hint, types.UnionType):
        hint, more = _split(next(one for one in hint.__args__ if one is not type(None)))
        marks = (*marks, *more)
    return hint, marks


def _parameter(name: str, hint: Any, marks: tuple[Any, ...], is_required: bool) -> Parameter:
    written = [getattr(mark, "name", None) for mark in marks]
    shown = [getattr(mark, "metavar", None) for mark in marks]
    flag = f"--{next(filter(None, written), name).replace('_', '-')}"
    is_positional = Positional in marks
    is_many = typing.get_origin(hint) is tuple
    kind = hint.__args__[0] if is_many else hint
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return Parameter(
        next(filter(None, shown), name.upper()) if is_positional else flag,
        str if choices else kind,
        choices,
        is_many,
        is_required,
        kind is bool and FlagCreatePairsOff not in marks,
    )


class _Walk:
    """Goes through the words behind a command."""

    def __init__(
        self, program: str, options: dict[str, Parameter], positional: list[Parameter]
    ) -> None:
        self._program, self._options, self._positional = program, options, positional
        self._flags = {**options}
        for name, option in options.items():
            if option.has_negation:
                self._flags[f"--no-{name[2:]}"] = option

    def checked(self, words: Sequence[str]) -> list[str]:
        """The words with whole numbers written out; see `resolved`."""
        result: list[str] = []
        given: set[str] = set()
        places = list(self._positional)
        left = list(words)
        while left:
            word = left.pop(0)
            if _is_option(word):
                found = self._option(word, left)
                given.add(found[0].partition("=")[0].replace("--no-", "--"))
                result += found
            elif not places:
                raise ValueError(self._surplus(word))
            else:
                place = places[0] if places[0].is_many else places.pop(0)
                given.add(place.name)
                result.append(self._value(place, word))
        for needed in [*self._positional, *self._options.values()]:
            if needed.is_required and needed.name not in given and not needed.is_many:
                raise ValueError(f"{self._program} needs {needed.name}. {self._see}")
        return result

    def _option(self, word: str, left: list[str]) -> list[str]:
        """An option and its values, taken from the words that are left."""
        written, equals, value = word.partition("=")
        name = written.replace("_", "-")
        option = self._flags.get(name)
        if option is None:
            raise ValueError(
                f"{self._program} has no option {written}. {_meant(name, self._flags)}{self._see}"
            )
        if option.kind is bool:
            if equals:
                raise ValueError(f"{name} takes no value, got {value!r}. {self._see}")
            return [name]
        if equals:
            return [f"{name}={self._value(option, value)}"]
        values: list[str] = []
        while left and not _is_option(left[0]) and (option.is_many or not values):
            if name == "--set" and values:
                break  # tyro takes one value per --set
            values.append(self._value(option, left.pop(0)))
        if not values:
            behind = f", and {left[0]} is an option" if left else ""
            raise ValueError(f"{name} needs a value{behind}. {self._see}")
        return [name, *values]

    def _value(self, parameter: Parameter, text: str) -> str:
        name = parameter.name
        if parameter.choices and text not in parameter.choices:
            raise ValueError(
                f"{self._program} does not know {text!r}. {nearest(text, parameter.choices)}"
            )
        if parameter.kind is int:
            return str(whole_number(name, text))
        if parameter.kind is float:
            try:
                float(text)
            except ValueError:
                raise ValueError(f"{name} {text!r} is no number; write 0.001 or 1e-3") from None
        return text

    def _surplus(self, word: str) -> str:
        text = f"{self._program} takes no further word {word!r}"
        if "=" in word and "--set" in self._options:
            return f"{text}; settings stand behind --set: `--set {word}`"
        near = similar(f"--{word}", self._flags, count=1, cutoff=0.8)
        return f"{text}. Did you mean {near[0]}?" if near else f"{text}. {self._see}"

    @property
    def _see(self) -> str:
        return f"See `{self._program} --help`."


def whole_number(name: str, text: str) -> int:
    """A whole number written as 20000, 20_000 or 2e4.

    Raises:
        ValueError: If it is none.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = 0.5
    if not value.is_integer():
        raise ValueError(f"{name} {text!r} is no whole number; write 20000, 20_000 or 2e4")
    return int(value)


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not word[1:2].isdigit() and word[1:2] != "."


def _meant(name: str, known: Iterable[str]) -> str:
    close = similar(name, known, count=1, cutoff=0.6)
    return f"Did you mean {close[0]}? " if close else ""
