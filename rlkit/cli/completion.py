"""The command `rlkit completion`: commands, options and values by the Tab key.

The scripts call `rlkit --complete WORDS`, so that they never differ from the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Annotated, Literal

from tyro.conf import Positional

from rlkit.cli.words import Commands, Parameter, parameters

_BASH = """_rlkit() {
    local IFS=$'\\n'
    COMPREPLY=($(rlkit --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _rlkit rlkit"""
_ZSH = """#compdef rlkit
_rlkit() {
    local -a found
    found=("${(@f)$(rlkit --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
if [[ "$funcstack[1]" == _rlkit ]]; then _rlkit; else compdef _rlkit rlkit; fi"""
_FISH = "complete -c rlkit -a '(rlkit --complete (commandline -opc)[2..] (commandline -ct))'"
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Positional]) -> int:
    """Print a script that completes commands, options and values.

    bash: eval "$(rlkit completion bash)" in ~/.bashrc. zsh: eval "$(rlkit completion zsh)" in
    ~/.zshrc, after compinit. fish: rlkit completion fish > ~/.config/fish/completions/rlkit.fish

    Args:
        shell: The shell that reads it; bash, zsh or fish.
    """
    print(_SCRIPTS[shell])
    return 0


def candidates(words: Sequence[str], commands: Commands) -> list[str]:
    """What the last of the words may become.

    Args:
        words: The words after the program's name; the last is what was typed of one, perhaps "".
        commands: Functions by the names of their commands, possibly nested.
    """
    *before, typed = words or [""]
    found = commands
    while before:
        inner = found.get(before.pop(0))
        if not isinstance(inner, Mapping):
            return [] if inner is None else _begins(typed, _of_command(inner, before, typed))
        found = inner
    return _begins(typed, found)


def _of_command(command: Callable[..., int], before: list[str], typed: str) -> Iterable[str]:
    options, positional = parameters(command)
    if typed.startswith("-"):
        return [*options, "--help"]
    last = options.get(before[-1]) if before else None
    if last is not None and last.kind is not bool:
        return _values(last)
    taken = 0
    for place, word in enumerate(before):
        is_value = place > 0 and before[place - 1].startswith("--")
        taken += not word.startswith("-") and not is_value
    rest = positional[min(taken, len(positional) - 1) :] if positional else []
    is_free = bool(rest) and (taken < len(positional) or rest[0].is_many)
    return _values(rest[0]) if is_free else list(options)


def _values(parameter: Parameter) -> Iterable[str]:
    """The values that a parameter can have; none, and the shell offers files."""
    if parameter.choices:
        return parameter.choices
    if parameter.name == "[RECIPE]":
        from rlkit.experiment.recipe import recipe_names

        return recipe_names()
    if parameter.name == "--env":
        from rlkit.cli.listing import environments

        return environments()
    group = {"--agent": "agents", "--encoder": "encoders"}.get(parameter.name)
    return sorted(entry_points(group=f"rlkit.{group}").names) if group else ()


def _begins(typed: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(typed)]
