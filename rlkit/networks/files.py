"""Fitted models in folders: `weights.safetensors`, and the rest in `<kind>.json`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rlkit.trust import require_trusted
from rlkit.version import VERSION, not_readable

WEIGHTS = "weights.safetensors"
FORMAT = 1


def write_model(folder: Path, kind: str, state: dict[str, Any], views: dict[str, Tensor]) -> None:
    """Writes a model's state, with its parameters under their names, atomically.

    Args:
        folder: A folder of its own.
        kind: What messages call the model, such as "latent"; names the file of facts.
        state: Tensors and plain data; its `vector` is what `views` are parts of.
        views: The parameters by name.

    Raises:
        ValueError: If the folder holds anything else, which would be lost.
    """
    facts_file = f"{kind}.json"
    others = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := others - {WEIGHTS, facts_file}:
        raise ValueError(
            f"{folder} holds other files ({min(others)}), a {kind} is saved to a folder of its "
            f"own, such as {folder / kind}"
        )
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    facts = {name: value for name, value in state.items() if name not in tensors}
    tensors.pop("vector", None)  # its named parts are written instead
    tensors |= {f"model.{name}": view.clone() for name, view in views.items()}
    header = {"format": FORMAT, "rlkit": VERSION}
    written = {
        WEIGHTS: save(tensors),
        facts_file: json.dumps(header | facts, indent=2).encode() + b"\n",
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged, old = (folder.with_name(f".{folder.name}.{word}") for word in ("staged", "old"))
    for path in (staged, old):
        shutil.rmtree(path, ignore_errors=True)
    staged.mkdir()
    for name, data in written.items():
        with open(staged / name, "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_model(
    folder: Path, kind: str, *, trust: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state that `write_model` was given, without its vector, and the named parameters.

    Args:
        folder: The folder.
        kind: As for `write_model`.
        trust: Whether the folder may name any class, see `rlkit.trust`.

    Raises:
        UntrustedError: If it names a class that is not installed, unless it is trusted.
        ValueError: If the folder holds no such model, a damaged one or one of a later format.
    """
    try:
        facts = json.loads((folder / f"{kind}.json").read_text())
        tensors = load((folder / WEIGHTS).read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no {kind}: {error.filename} is missing") from error
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"the {kind} in {folder} is damaged: {error}") from error
    if facts.get("format") != FORMAT:
        raise ValueError(not_readable(f"the {kind} in {folder}", facts.get("rlkit")))
    require_trusted(facts, f"the {kind} in {folder}", trust=trust)
    views = {name: tensors.pop(name) for name in list(tensors) if name.startswith("model.")}
    return facts | tensors, {name.removeprefix("model."): view for name, view in views.items()}


def fill_views(views: dict[str, Tensor], named: dict[str, Tensor], folder: Path) -> None:
    """Copies the parameters that `read_model` found in a folder into a model's own views.

    Raises:
        ValueError: If these have other names or shapes.
    """
    shapes = [{name: tuple(p.shape) for name, p in part.items()} for part in (views, named)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the weights in {folder} have shapes {shapes[1]}, its model has {shapes[0]}"
        )
    for name, view in views.items():
        view.copy_(named[name])
