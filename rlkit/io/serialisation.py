"""Trees of plain data, taken apart for files: JSON for the shape, arrays and tensors beside it."""

from __future__ import annotations

import base64
import math
import os
import re
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

TENSOR_FILES = ("weights", "optimiser")  # top-level keys with a safetensors file of their own
INLINE_BYTES = 1024  # smaller arrays stay in the JSON: many environments have many of them
MAPPED_BYTES = 2**28  # larger ones are read as they are needed: they may exceed the memory


class CheckpointError(ValueError):
    """A checkpoint cannot be saved or loaded; the message names the file, the cause, the fix."""


class Skeleton:
    """What JSON can hold of a tree; arrays and tensors move out and leave a marker behind.

    Attributes:
        tensors: What moved out, by safetensors file and name.
        arrays: What moved out, by npy file.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, dict[str, torch.Tensor]] = {}
        self.arrays: dict[str, NDArray[Any]] = {}
        self._taken: set[str] = set()

    def strip(self, node: Any, path: tuple[str, ...]) -> Any:
        """The JSON form of what lies at a path of the tree.

        Raises:
            TypeError: If it is no plain data.
        """
        if isinstance(node, np.generic):
            node = node.item()
        if node is None or isinstance(node, bool | int | str):
            return node
        if isinstance(node, float):
            return float(node) if math.isfinite(node) else {"$float": str(float(node))}
        if isinstance(node, list):
            return [self.strip(item, (*path, str(i))) for i, item in enumerate(node)]
        if isinstance(node, torch.Tensor):
            return {"$tensor": self._place_tensor(node, path)}
        if isinstance(node, np.ndarray) and not node.dtype.hasobject:
            return self._place_array(node, path)
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str) or key.startswith("$"):
                    raise TypeError(
                        f"a checkpoint cannot hold the key {key!r} at {'.'.join(path) or 'its top'}"
                        f": keys are strings that do not begin with '$'"
                    )
            return {key: self.strip(item, (*path, key)) for key, item in node.items()}
        raise TypeError(
            f"a checkpoint cannot hold {type(node).__name__} at {'.'.join(path)}: use dict, list, "
            f"str, int, float, bool, None, a numeric np.ndarray or a torch.Tensor"
        )

    def _place_tensor(self, tensor: torch.Tensor, path: tuple[str, ...]) -> list[str]:
        own_file = path[0] in TENSOR_FILES and len(path) > 1
        file = f"{path[0]}.safetensors" if own_file else "tensors.safetensors"
        name = self._free(file, ".".join(path[1:] if own_file else path))
        # A copy, because safetensors refuses tensors that share memory.
        copied = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        self.tensors.setdefault(file, {})[name] = copied
        return [file, name]

    def _place_array(self, array: NDArray[Any], path: tuple[str, ...]) -> Any:
        if array.nbytes <= INLINE_BYTES:
            stream = BytesIO()
            npy.write_array(stream, np.asarray(array), allow_pickle=False)
            return {"$npy": base64.b64encode(stream.getvalue()).decode()}
        readable = re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(path))[:80].lower()
        file = self._free("", readable) + ".npy"
        self.arrays[file] = np.asarray(array)
        return {"$array": file}

    def _free(self, scope: str, name: str) -> str:
        candidate, number = name, 1
        while f"{scope}/{candidate}" in self._taken:
            number += 1
            candidate = f"{name}.{number}"
        self._taken.add(f"{scope}/{candidate}")
        return candidate


def fill(
    node: Any,
    json_file: Path,
    tensors: dict[str, dict[str, torch.Tensor]],
    arrays: dict[str, NDArray[Any]],
) -> Any:
    """The tree that `Skeleton.strip` was given.

    Args:
        node: Its JSON form.
        json_file: Where that was read, for messages.
        tensors: `Skeleton.tensors`.
        arrays: `Skeleton.arrays`.

    Raises:
        KeyError: If a marker refers to what is not there.
        CheckpointError: If an array inside the JSON is damaged or carries a pickle.
    """
    match node:
        case list():
            return [fill(item, json_file, tensors, arrays) for item in node]
        case {"$float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"$tensor": [str(file), str(name)]}:
            return tensors[file][name]
        case {"$array": str(file)}:
            return arrays[file]
        case {"$npy": str(text)}:
            return _parse_npy(json_file, BytesIO(_decode(json_file, text)))
        case dict():
            return {key: fill(item, json_file, tensors, arrays) for key, item in node.items()}
    return node


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: If it is another kind of file.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except Exception as error:  # safetensors raises a class of its own, and torch's, and KeyError
        raise _foreign(path, "safetensors") from error


def read_array(path: Path) -> NDArray[Any]:
    """The array of an npy file; a large one as a private map of the file, read where it is used.

    Raises:
        CheckpointError: If it is another kind of file, claims more than it holds, or carries a
            pickle.
    """
    with path.open("rb") as file:
        # Elsewhere a file that is mapped cannot be removed, and checkpoints are.
        return _parse_npy(path, file, may_map=os.name == "posix")


def _decode(json_file: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _foreign(json_file, "state") from error


def _parse_npy(path: Path, file: BinaryIO, may_map: bool = False) -> NDArray[Any]:
    try:
        major, _ = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        start = file.tell()
        size = file.seek(0, SEEK_END) - start
        # Before the memory is taken: a header may claim any shape.
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{size} bytes cannot be {shape} of {dtype}")
        if may_map and size > MAPPED_BYTES and not dtype.hasobject:
            return np.asarray(npy.open_memmap(path, mode="c"))
        file.seek(0)
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    except Exception as error:  # a hostile header may upset the parser in many ways
        raise _foreign(path, "npy", has_pickle="Object arrays" in str(error)) from error
    return array


def _foreign(path: Path, expected: str, has_pickle: bool = False) -> CheckpointError:
    with path.open("rb") as file:
        has_pickle = has_pickle or file.read(1) == b"\x80"
    what = "carries a pickle, which could run code" if has_pickle else f"is no {expected} file"
    return CheckpointError(
        f"{path} {what}; nothing in it was executed. Use a checkpoint you trust."
    )
