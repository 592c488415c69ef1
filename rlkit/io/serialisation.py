"""Serialisation of nested plain data: JSON for the structure, separate files for large arrays."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Mapping
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

TENSOR_FILES = ("weights", "optimiser")  # top-level keys with a safetensors file of their own
INLINE_BYTES = 1024  # smaller arrays stay in the JSON: many environments have many of them
MAPPED_BYTES = 2**28  # larger ones are memory-mapped: they may exceed the RAM
CHUNK_BYTES = 2**24  # written at a time
_DTYPES = {  # safetensors' names, in the order in which it writes tensors
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Writable(Protocol):
    """A file that is open for writing."""

    def write(self, data: Any, /) -> int:
        """Writes bytes or a view of bytes."""


class CheckpointError(ValueError):
    """A checkpoint cannot be saved or loaded; the message names the file, the cause, the fix."""


class StateEncoder:
    """Encodes a state as JSON; arrays and tensors go to files and leave a marker in their place.

    Attributes:
        tensors: The tensors, by safetensors file and name.
        arrays: The arrays, by npy file.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, dict[str, torch.Tensor]] = {}
        self.arrays: dict[str, NDArray[Any]] = {}
        self._taken: set[str] = set()

    def encode(self, node: Any, path: tuple[str, ...]) -> Any:
        """The JSON form of a node of the state.

        Args:
            node: The node.
            path: Keys that lead to it from the top.

        Raises:
            TypeError: If it is not plain data.
        """
        if isinstance(node, np.generic):
            node = node.item()
        if node is None or isinstance(node, bool | int | str):
            return node
        if isinstance(node, float):
            return float(node) if math.isfinite(node) else {"$float": str(float(node))}
        if isinstance(node, list):
            return [self.encode(item, (*path, str(i))) for i, item in enumerate(node)]
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
            return {key: self.encode(item, (*path, key)) for key, item in node.items()}
        raise TypeError(
            f"a checkpoint cannot hold {type(node).__name__} at {'.'.join(path)}: use dict, list, "
            f"str, int, float, bool, None, a numeric np.ndarray or a torch.Tensor"
        )

    def _place_tensor(self, tensor: torch.Tensor, path: tuple[str, ...]) -> list[str]:
        own_file = path[0] in TENSOR_FILES and len(path) > 1
        file = f"{path[0]}.safetensors" if own_file else "tensors.safetensors"
        name = self._free(file, ".".join(path[1:] if own_file else path))
        self.tensors.setdefault(file, {})[name] = tensor.detach()
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


def decode_state(
    node: Any,
    json_file: Path,
    tensors: dict[str, dict[str, torch.Tensor]],
    arrays: dict[str, NDArray[Any]],
) -> Any:
    """The state that `StateEncoder.encode` was given.

    Args:
        node: Its JSON form.
        json_file: Where that was read, for messages.
        tensors: `StateEncoder.tensors`.
        arrays: `StateEncoder.arrays`.

    Raises:
        KeyError: If a marker refers to a missing tensor or array.
        CheckpointError: If an array inside the JSON is damaged or contains a pickle.
    """
    match node:
        case list():
            return [decode_state(item, json_file, tensors, arrays) for item in node]
        case {"$float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"$tensor": [str(file), str(name)]}:
            return tensors[file][name]
        case {"$array": str(file)}:
            return arrays[file]
        case {"$npy": str(text)}:
            return _parse_npy(json_file, BytesIO(_decode(json_file, text)))
        case dict():
            return {
                key: decode_state(item, json_file, tensors, arrays) for key, item in node.items()
            }
    return node


def write_tensors(file: Writable, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a safetensors file, tensor by tensor: the library's own writer copies all of them.

    Raises:
        TypeError: If safetensors has no such type of numbers.
    """
    order = list(_DTYPES)
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise TypeError(f"a checkpoint cannot hold {tensor.dtype} at {name}")
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header, end = dict[str, Any](), 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        numbers = tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8)
        data = numbers.numpy().data
        for start in range(0, len(data), CHUNK_BYTES):
            file.write(data[start : start + CHUNK_BYTES])


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
    """The array of an npy file; a large one as a private memory map, read where it is used.

    Raises:
        CheckpointError: If it is another kind of file, claims more than it holds, or contains a
            pickle.
    """
    with path.open("rb") as file:
        # On Windows a mapped file cannot be removed, and checkpoints are pruned.
        return _parse_npy(path, file, may_map=os.name == "posix")


def plain_data(value: Any, *, finite: bool = False) -> Any:
    """A value as files hold it: mappings as dicts, sequences and NumPy arrays as lists.

    Args:
        value: Nested mappings, sequences, arrays and scalars.
        finite: Whether NaN and infinities become None, as strict JSON demands.
    """
    if isinstance(value, Mapping):
        return {key: plain_data(part, finite=finite) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(part, finite=finite) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_data(value.tolist(), finite=finite)
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
        # Checked before memory is allocated: a header may claim any shape, also of empty numbers.
        fits = math.prod(shape) * dtype.itemsize == size and math.prod(shape) <= max(size, 2**20)
        if not dtype.hasobject and not fits:
            raise ValueError(f"{size} bytes cannot be {shape} of {dtype}")
        if may_map and size > MAPPED_BYTES and not dtype.hasobject:
            return np.asarray(npy.open_memmap(path, mode="c"))
        file.seek(0)
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    except Exception as error:  # a malicious header may make the parser raise anything
        raise _foreign(path, "npy", has_pickle="Object arrays" in str(error)) from error
    return array


def _foreign(path: Path, expected: str, has_pickle: bool = False) -> CheckpointError:
    with path.open("rb") as file:
        has_pickle = has_pickle or file.read(1) == b"\x80"
    what = "contains a pickle, which could run code" if has_pickle else f"is no {expected} file"
    return CheckpointError(
        f"{path} {what}; nothing in it was executed. Use a checkpoint you trust."
    )
