"""Where runs are: names of folders, and whether one holds a run. Nothing heavy is imported."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from rlkit.experiment.recipe import Recipe

RECIPE = "recipe.toml"
"""The file whose presence makes a folder a run."""
OUT = Path("runs", "out")
"""Where runs without a folder of their own go, under the current folder."""


def require_run(path: Path) -> None:
    """Raises an error if the folder holds no run.

    Raises:
        ValueError: If the folder holds no run; the message names runs that exist.
    """
    if (path / RECIPE).is_file():
        return
    here = runs_in(path)
    if here:
        raise ValueError(f"{str(path)!r} is no run, but holds runs, such as {here[0]}")
    raise ValueError(
        f"{str(path)!r} is no run: it holds no {RECIPE}. {_newest_run()}The folder of a run is "
        f"runs/out/<env>/<agent>/<name>, or what `train --out` was given."
    )


def require_free(path: Path) -> None:
    """Raises an error if the folder holds a run, which must not mix with another.

    Raises:
        ValueError: If the folder already holds a run.
    """
    if (path / RECIPE).exists():
        raise ValueError(
            f"{str(path)!r} already holds a run. Continue it with "
            f"`rlkit resume {path}`, or choose another folder with --out."
        )


def runs_in(parent: Path) -> list[Path]:
    """The runs anywhere in a folder, such as the seeds of one experiment, by name."""
    return sorted(file.parent for file in parent.rglob(RECIPE))


def _newest_run() -> str:
    found = runs_in(OUT)
    if not found:
        return ""
    newest = max(found, key=lambda run: (run / RECIPE).stat().st_mtime)
    return f"The newest run here is {newest}. "


def default_path(recipe: Recipe, name: str, *, seeds: bool = False) -> Path:
    """A free folder for a run.

    Args:
        recipe: The recipe of the run.
        name: What the recipe is called.
        seeds: Whether several seeds get folders of their own in it.

    Returns:
        `runs/out/<env>/<agent>/<name>-seed<S>` under the current folder, or `.../<name>-seeds`.
    """
    parent = OUT / _dashed(recipe.env) / _dashed(recipe.agent)
    return free_folder(parent / f"{name}-seed{'s' if seeds else recipe.seed}")


def data_folder(kind: str, data: str, name: str) -> Path:
    """The folder `runs/out/<kind>/<data>/<name>` under the current one, for a model of data.

    Args:
        kind: Kind of the model, such as `"worlds"`.
        data: Source of the data: an environment's id, a file, or a name.
        name: Name of the model; slashes and colons become dashes, also in `data`.
    """
    return OUT / kind / _dashed(data) / _dashed(name)


def free_folder(path: Path) -> Path:
    """The first folder of `numbered` that does not exist yet."""
    return next(folder for folder in numbered(path) if not folder.exists())


def numbered(path: Path) -> Iterator[Path]:
    """Alternative names of a folder: `path`, `path-2`, `path-3` and so on."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


def _dashed(name: str) -> str:
    """The name of one folder made from a name with slashes or colons."""
    return "-".join(part for part in re.split("[:/]", name) if part not in ("", ".", ".."))
