"""Content of files that may come from anyone: what it leads to is bounded, and its errors named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from rlkit.io.serialisation import CheckpointError

FREE_BYTES = 256 * 2**20  # small models, and what it takes to initialise them
TIMES = 32  # parameters are initialised and copied, beside moments and targets
_SIZED = {"empty", "zeros", "ones", "full", "rand", "randn", "randint", "arange", "eye"}
_REPEATING = {"repeat", "tile"}
_SIZED |= {f"new_{name}" for name in _SIZED} | _REPEATING
_WRONG = (KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError)


@contextmanager
def built_from(content: Any, source: object) -> Iterator[None]:
    """What a file describes is built inside, with no more memory than its own weights justify.

    A few bytes of settings can describe networks of any size.

    Args:
        content: The content of the file, with its tensors.
        source: The file, for messages.

    Raises:
        CheckpointError: If it asks for more memory, or lacks something or has it of a wrong type.
    """
    try:
        with _Bounded(FREE_BYTES + TIMES * _tensor_bytes(content)):
            yield
    except _WRONG as error:
        raise CheckpointError(
            f"{source} does not hold what it should: {type(error).__name__}: {error}"
        ) from error
    except _TooLarge as error:
        raise CheckpointError(
            f"{source} describes networks of more than {error} bytes, far more than its weights"
        ) from None


class _TooLarge(Exception):
    """More memory is asked for than allowed."""


class _Bounded(TorchFunctionMode):
    """Refuses new tensors once they exceed a number of bytes together, before they are made."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = self._left = limit

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Counts what a function that makes tensors is asked for."""
        name = getattr(func, "__name__", "")
        if name in _SIZED:
            times = args[0].numel() if name in _REPEATING else 1
            self._left -= 4 * times * _numbers(*args, *(kwargs or {}).values())
            if self._left < 0:
                raise _TooLarge(f"{self._limit:,}")
        return func(*args, **(kwargs or {}))


def _numbers(*arguments: Any) -> int:
    """How many numbers a new tensor has, given its sizes among other arguments."""
    shapes = [one for one in arguments if isinstance(one, tuple | list)]
    sizes = shapes[0] if shapes else [one for one in arguments if type(one) is int]
    return math.prod([max(int(size), 1) for size in sizes])


def _tensor_bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(map(_tensor_bytes, content.values()))
    if isinstance(content, list):
        return sum(map(_tensor_bytes, content))
    return 0
