"""Names that users write: what an unknown one was probably meant to be, and which were renamed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

RENAMED = {
    "goal_judge": "reward_source",
    "imagination": "goal_generator",
    "imagined": "generated",
    "noise_correlation": "coloured_noise",
    "latent-memory": "latent-recurrent",
    "played": "original",
}
"""Options, recipe keys, and words of the command line of earlier versions, and their new names."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint that ends an error about an unknown name.

    Args:
        name: The unknown name; one with dots, as in a recipe, counts by its last part.
        known: The names that exist.

    Returns:
        The new name where `name` was renamed; otherwise the most similar name, if any, and all
        known names.
    """
    names = sorted(known)
    prefix, dot, last = name.rpartition(".")
    if f"{prefix}{dot}{RENAMED.get(last, '')}" in names:
        return f"It is now called {RENAMED[last]!r}."
    close = similar(name, names, count=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return f"{meant}Known: {', '.join(names)}."


def similar(name: str, known: Iterable[str], count: int, cutoff: float = 0.5) -> list[str]:
    """The known names that are most similar to an unknown one, ignoring case; the closest first."""
    spelled = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), spelled, n=count, cutoff=cutoff)
    return [spelled[match] for match in close]


def require_known(
    owner: str, options: Iterable[str], known: Collection[str], others: Collection[str] = ()
) -> None:
    """Refuses unknown options.

    Args:
        owner: Whose options these are; begins the error.
        options: Names that a user wrote.
        known: Names that are accepted.
        others: Names that the error may suggest as well, since they are accepted elsewhere.

    Raises:
        ValueError: If an option is unknown; the message gives its new name, or the nearest one.
    """
    for name in options:
        if name not in known:
            raise ValueError(f"{owner} has no option {name!r}. {nearest(name, {*known, *others})}")


def require_current(arguments: Iterable[str]) -> None:
    """Refuses command-line options that were renamed.

    Args:
        arguments: The words after the command's name.

    Raises:
        ValueError: If one is `--old` or `--old=value` of a renamed option.
    """
    for argument in arguments:
        option = argument.partition("=")[0]
        new = RENAMED.get(option.removeprefix("--").replace("-", "_"))
        if option.startswith("--") and new is not None:
            raise ValueError(f"{option} is now called --{new.replace('_', '-')}.")
