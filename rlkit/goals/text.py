"""Texts as numbers: of words where a space lists its sentences, otherwise of characters."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import string
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

PRINTABLE = string.ascii_lowercase + string.digits + " .,;:!?'\"-_+*/=()[]<>#%&@\n"
"""Characters of texts whose space does not list its own; capitals count as small letters."""
_MOST_SENTENCES = 10_000
_MOST_COLUMNS = 100_000


@dataclass(frozen=True)
class TextEncoding:
    """Maps texts to arrays of numbers: 0 is no token, the last number an unknown one.

    Attributes:
        tokens: Number of each known word or character, from 1.
        length: Tokens of the longest text.
        words: Whether tokens are words.
        fold: Whether capitals count as small letters.
    """

    tokens: Mapping[str, int]
    length: int
    words: bool = False
    fold: bool = False

    @property
    def space(self) -> spaces.MultiDiscrete:
        """The space of the arrays."""
        return spaces.MultiDiscrete(np.full(self.length, len(self.tokens) + 2), self.dtype)

    @property
    def dtype(self) -> Any:
        """The smallest type of the numbers: replay buffers hold many of them."""
        return np.min_scalar_type(len(self.tokens) + 2).type

    def encode(self, text: str) -> NDArray[np.integer[Any]]:
        """The numbers of a text's tokens, `(length,)`; a longer text is cut, with a warning."""
        text = text.lower() if self.fold else text
        found = text.split() if self.words else list(text)
        if len(found) > self.length:
            tokens = "words" if self.words else "characters"
            warnings.warn(
                f"texts of more than {self.length} {tokens} are cut: let their space declare a "
                f"larger length, or wrap the environment in rlkit.goals.SimpleSpaces(env, "
                f"text_length=...)",
                stacklevel=2,
            )
            found = found[: self.length]
        numbers = np.zeros(self.length, self.dtype)
        numbers[: len(found)] = [self.tokens.get(one, len(self.tokens) + 1) for one in found]
        return numbers


def encoding_of(space: spaces.Space[Any], length: int) -> TextEncoding | None:
    """The encoding of a space of texts; None for a space of something else.

    Args:
        space: Gymnasium's Text, or another space of strings such as MiniGrid's of missions.
        length: Characters of a text whose space does not tell its length.

    Raises:
        ValueError: If the one-hot form of its texts would be too wide.
    """
    if isinstance(space, spaces.Text):
        encoding = TextEncoding(_numbered(sorted(space.character_set)), space.max_length)
    elif space.dtype is not None and np.issubdtype(space.dtype, np.str_):
        sentences = _sentences(space)
        if sentences is None:
            encoding = TextEncoding(_numbered(PRINTABLE), length, fold=True)
        else:
            split = [sentence.split() for sentence in sentences]
            words = sorted({word for sentence in split for word in sentence})
            encoding = TextEncoding(_numbered(words), max(map(len, split)), words=True)
    else:
        return None
    columns = int(encoding.space.nvec.sum())
    if columns > _MOST_COLUMNS:
        raise ValueError(
            f"a text of {encoding.length} characters has {columns} columns one-hot, which is too "
            f"much to learn from: encode it with a gymnasium.ObservationWrapper"
        )
    return encoding


def _numbered(tokens: Any) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens, 1)}


def _sentences(space: Any) -> list[str] | None:
    """All sentences of a space that lists them, as MiniGrid's of missions does."""
    if not hasattr(space, "mission_func") or not hasattr(space, "ordered_placeholders"):
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # MiniGrid prints what it does not contain
        is_open = space.contains("no sentence of any space")
    if is_open:  # as of BabyAI, whose list is incomplete
        return None
    choices = space.ordered_placeholders or []
    if math.prod(map(len, choices)) > _MOST_SENTENCES:
        return None
    return [space.mission_func(*chosen) for chosen in itertools.product(*choices)]
