"""The words of a command line, before they are parsed."""

from __future__ import annotations


def one_setting_per_flag(arguments: list[str]) -> list[str]:
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
