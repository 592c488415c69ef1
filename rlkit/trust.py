"""Trust in files: importing a module runs its code, and a file may come from anyone.

What a user types or passes in Python may name any class. What is read from a file (a recipe, agent,
latent or world) may name installed entry points alone, unless the user trusts it: by `trust=True`
where it is loaded, or by `--trust` on the command line.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)
# Text with a colon that nothing imports: a device, a path of Windows, an address, a time. Where
# names are resolved, in `plugins` and `envs/make.py`, none of these passes for a module and a name.
_HARMLESS = re.compile(
    r"(cpu|cuda|mps|xpu):\d+|[A-Za-z]:[\\/].*|[a-z]+://.*|[\d:.TZ+-]+", re.DOTALL
)
_DOTTED = re.compile(r"\s*([^\W\d]\w*)(\.[^\W\d]\w*)+\s*")


class UntrustedError(ValueError):
    """A file names code, or a folder, that only a file of the user's own may name."""


@contextmanager
def trusted_files(trust: bool = True) -> Iterator[None]:
    """Files that are loaded inside may name any class; with False, what holds outside holds."""
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


def require_trusted(content: Any, source: object, *, trust: bool = False) -> None:
    """Refuses plain data from a file if it names code that is no installed entry point.

    It looks at every string, since parts have settings that name further parts. Nothing is
    imported.

    Args:
        content: Nested mappings, sequences and scalars.
        source: Where they were read, for the message.
        trust: Whether the file is trusted.

    Raises:
        UntrustedError: If it does, unless it is trusted; the message names what and where.
    """
    if trust or _trusted.get():
        return
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        place, node = left.pop()
        if isinstance(node, str) and _leads_to_code(node):
            raise UntrustedError(
                f"{source} names {node!r}{place and ' as ' + place}, which would be imported and "
                f"run; a file may only name installed entry points. If you trust the file, pass "
                f"trust=True (Python) or --trust (command line)"
            )
        if isinstance(node, Mapping):
            left += [(f"{place}.{key}".strip("."), key) for key in node]
            left += [(f"{place}.{key}".strip("."), value) for key, value in node.items()]
        elif isinstance(node, list | tuple):
            left += [(place, value) for value in node]


def require_local(folder: object, source: object, *, trust: bool = False) -> None:
    """Refuses a folder that a file names, if it lies outside of the current and temporary folders.

    Args:
        folder: What the file names, or None.
        source: Where it was read, for the message.
        trust: Whether the file is trusted.

    Raises:
        UntrustedError: If it does, unless it is trusted.
    """
    if folder is None or trust or _trusted.get():
        return
    place = Path(str(folder)).resolve()
    inside = (Path.cwd(), Path(tempfile.gettempdir()))
    if not any(place.is_relative_to(root.resolve()) for root in inside):
        raise UntrustedError(
            f"{source} sets replay.directory = {str(folder)!r}, outside of the current folder and "
            f"of {inside[1]}; nothing was created. Set the directory yourself, or, if you trust "
            f"the file, pass trust=True (Python) or --trust (command line)"
        )


def _leads_to_code(text: str) -> bool:
    if ":" in text:
        return not _HARMLESS.fullmatch(text) and not _is_installed(text)
    dotted = _DOTTED.fullmatch(text)
    return dotted is not None and _is_importable(dotted[1])


def _is_installed(path: str) -> bool:
    """Whether an entry point of one of the suite's groups leads to the class."""
    return any(entry.group.startswith("rlkit.") for entry in entry_points(value=path))


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # imported, and without a spec, such as `__main__`
        return True
