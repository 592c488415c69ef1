"""Fitted models in folders: checkpoints of their own, with weights under readable names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from rlkit.io.checkpoint import MANIFEST, STATE, holds_checkpoint, read_checkpoint, write_checkpoint
from rlkit.io.serialisation import read_tensors
from rlkit.trust import require_trusted
from rlkit.version import VERSION, not_readable

WEIGHTS = "weights.safetensors"
FORMAT = 1


def write_model(folder: Path, kind: str, state: dict[str, Any], views: dict[str, Tensor]) -> None:
    """Writes a model's state, with its parameters under their names, atomically.

    The folder holds `weights.safetensors`, `state.json` with everything else, and `manifest.json`
    with their sha256 sums.

    Args:
        folder: A folder of its own.
        kind: What messages call the model, such as "latent".
        state: Tensors and plain data; its `vector` is what `views` are parts of.
        views: The parameters by name.

    Raises:
        ValueError: If the folder holds anything else, which would be lost.
        CheckpointError: If it cannot be written; what was there is untouched.
    """
    others = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := others - {WEIGHTS, STATE, MANIFEST, f"{kind}.json"}:
        raise ValueError(
            f"{folder} holds other files ({min(others)}), a {kind} is saved to a folder of its "
            f"own, such as {folder / kind}"
        )
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    facts = {name: value for name, value in state.items() if name not in tensors}
    tensors.pop("vector", None)  # its named parts are written instead
    tensors |= {f"model.{name}": view for name, view in views.items()}
    content = {"format": FORMAT, "rlkit": VERSION, **facts}
    write_checkpoint(folder, {"weights": tensors, kind: content})


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
    if holds_checkpoint(folder):
        state = read_checkpoint(folder)
        facts, tensors = state.get(kind), state.get("weights")
        if not isinstance(facts, dict) or not isinstance(tensors, dict):
            raise ValueError(f"{folder} holds no {kind}, but {', '.join(state)}")
    else:
        facts, tensors = _read_unverified(folder, kind)
    if facts.get("format") != FORMAT:
        raise ValueError(not_readable(f"the {kind} in {folder}", facts.get("rlkit")))
    require_trusted(facts, f"the {kind} in {folder}", trust=trust)
    views = {name: tensors.pop(name) for name in list(tensors) if name.startswith("model.")}
    return facts | tensors, {name.removeprefix("model."): view for name, view in views.items()}


def _read_unverified(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model that 0.1 or 0.2 saved: `<kind>.json` beside the weights, without checksums."""
    try:
        facts = json.loads((folder / f"{kind}.json").read_text())
        tensors = read_tensors(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no {kind}: {folder / MANIFEST} is missing") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the {kind} in {folder} is damaged: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"the {kind} in {folder} is damaged: it holds no JSON object")
    return facts, tensors


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
