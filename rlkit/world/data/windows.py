"""Data to fit dynamics to: episodes, and the windows that are cut from them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.world.contract import Windows

Array = NDArray[Any]
CHUNK = 8192  # rows that are read at a time
OUTCOMES = ("reward", "terminated")


@dataclass(frozen=True)
class ForecastWindows:
    """B windows to forecast in, in raw units.

    Attributes:
        context_observation: `(B, C + 1, F)`; the last row is the present.
        context_action: The action between each and the next, `(B, C, A)`.
        future_action: The actions from the present on, `(B, H, A)`.
        future_observation: The true outcome, `(B, H, F)`, which models must not read.
        episode: `(B,)`, which of the data's episodes each is from.
        start: `(B,)`, the step of that episode at which the context begins.
    """

    context_observation: NDArray[np.float32]
    context_action: NDArray[np.float32]
    future_action: NDArray[np.float32]
    future_observation: NDArray[np.float32]
    episode: NDArray[np.int64]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.episode)


class Episodes:
    """Episodes in flat arrays, which may be memory maps: only the rows that are used are read.

    Args:
        observation: `(N + E, F)`, the T + 1 observations of each episode of T steps, one episode
            after the other.
        action: `(N, A)`, the T actions of each, likewise; A is 0 without known drivers.
        lengths: T of each of the E episodes, every one >= 1; they sum up to N.
        reward: `(N,)`, caused by each action; None where there is none.
        terminated: `(N,)`, whether each action terminated its episode; likewise.

    Attributes:
        spans: `(E, 3)` integers: each episode's first observation, first action and length.

    Raises:
        ValueError: If the arrays do not fit each other or hold no step. Whether they are finite is
            checked when they are read.
    """

    def __init__(
        self,
        observation: Array,
        action: Array,
        lengths: Sequence[int] | Array,
        reward: Array | None = None,
        terminated: Array | None = None,
    ) -> None:
        steps = np.asarray(lengths, np.int64)
        if steps.ndim != 1 or len(steps) == 0 or steps.min() < 1:
            raise ValueError(
                f"lengths must name at least one episode of one step or more, got {lengths}; a "
                f"model is fitted to pairs of observations"
            )
        total = int(steps.sum())
        rows = {"observation": total + len(steps), "action": total}
        for name, array in (("observation", observation), ("action", action)):
            if array.ndim != 2 or len(array) != rows[name]:
                raise ValueError(
                    f"{name} has shape {array.shape}, not ({rows[name]}, columns): {len(steps)} "
                    f"episodes of {total} steps in all have {total} actions and one observation "
                    f"more each"
                )
        self.outcomes = {"reward": reward, "terminated": terminated}
        for name, column in self.outcomes.items():
            if column is not None and column.shape != (total,):
                raise ValueError(f"{name} has shape {column.shape}, not ({total},)")
        self.observation, self.action = observation, action
        ends = np.cumsum(steps)
        first = ends - steps
        self.spans = np.stack([first + np.arange(len(steps)), first, steps], 1)

    @classmethod
    def of(cls, episodes: Sequence[Mapping[str, Any]]) -> Episodes:
        """Episodes from single arrays, which are copied.

        Args:
            episodes: Each with `observation (T + 1, F)`, `action (T, A)`, and either all or none
                with `reward (T,)` and `terminated (T,)`.

        Raises:
            ValueError: If an episode's arrays do not fit each other, or two episodes.
        """
        arrays = [{key: np.asarray(one) for key, one in episode.items()} for episode in episodes]
        if not arrays:
            raise ValueError("there is no episode to fit to")
        for index, episode in enumerate(arrays):
            _require_fit(index, episode, arrays[0])
        joined = {key: np.concatenate([one[key] for one in arrays]) for key in arrays[0]}
        return cls(lengths=[len(one["action"]) for one in arrays], **joined)

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def steps(self) -> int:
        """Steps in all episodes."""
        return int(self.spans[:, 2].sum())

    def split(self, share: float, generator: torch.Generator) -> tuple[Episodes, Episodes]:
        """Training and held-out part by whole episodes; they share the arrays.

        Args:
            share: Of the episodes that is held out, between 0 and 1; at least one episode is.
            generator: Decides which.

        Raises:
            ValueError: If the share is out of range or there is only one episode.
        """
        _require_share(share)
        if len(self) < 2:
            raise ValueError("one episode cannot be split into episodes; use split_time")
        held_out = min(max(round(share * len(self)), 1), len(self) - 1)
        order = torch.randperm(len(self), generator=generator).numpy()
        return self._part(np.sort(order[held_out:])), self._part(np.sort(order[:held_out]))

    def split_time(self, share: float) -> tuple[Episodes, Episodes]:
        """The earlier and the later part; the episode in between is cut in two.

        Args:
            share: Of the steps in the later part, between 0 and 1.

        Raises:
            ValueError: If the share is out of range or a part would have no step.
        """
        _require_share(share)
        cut = self.steps - round(share * self.steps)
        if not 0 < cut < self.steps:
            raise ValueError(
                f"{self.steps} steps are too few to hold out {share:g} of them; record more"
            )
        ends = np.cumsum(self.spans[:, 2])
        at = int(np.searchsorted(ends, cut))
        before, after = self._part(np.arange(at + 1)), self._part(np.arange(at, len(self)))
        kept = int(cut - (ends[at] - self.spans[at, 2]))
        before.spans[-1, 2] = kept
        after.spans[0] += (kept, kept, -kept)
        return before, after._part(after.spans[:, 2] > 0)

    def sample(
        self,
        count: int,
        steps: int,
        generator: torch.Generator,
        outcomes: Sequence[str] = (),
    ) -> Windows:
        """Random windows, with replacement and in raw units.

        All steps are about equally likely. Only episodes with fewer steps than a window are padded,
        by repeating the last observation.

        Args:
            count: B.
            steps: T.
            generator: On the CPU.
            outcomes: The columns of outcomes: `"reward"`, `"terminated"`.
        """
        ends = np.cumsum(self.spans[:, 2])
        step = torch.randint(int(ends[-1]), (count,), generator=generator).numpy()
        back = torch.randint(steps, (count,), generator=generator).numpy()
        episode = np.searchsorted(ends, step, side="right")
        lengths = self.spans[episode, 2]
        start = step - (ends[episode] - lengths) - back
        return self._windows(
            episode, np.clip(start, 0, np.maximum(lengths - steps, 0)), steps, outcomes
        )

    def in_order(
        self, steps: int, outcomes: Sequence[str] = (), count: int = 256
    ) -> Iterator[Windows]:
        """Windows that hold every step once, in order, `count` at a time, in raw units."""
        starts = [np.arange(0, length, steps) for length in self.spans[:, 2]]
        episode = np.repeat(np.arange(len(self)), [len(one) for one in starts])
        start = np.concatenate(starts)
        for i in range(0, len(start), count):
            yield self._windows(episode[i : i + count], start[i : i + count], steps, outcomes)

    def forecast_windows(
        self, context: int, horizon: int, count: int | None = None
    ) -> ForecastWindows:
        """Windows to forecast in, evenly spaced over all possible ones.

        Args:
            context: C, steps of context, >= 0.
            horizon: H, steps to forecast, >= 1.
            count: B at most; None for all.

        Raises:
            ValueError: If no episode is long enough, or numbers are not finite.
        """
        if context < 0 or horizon < 1:
            raise ValueError(f"context must be >= 0 and horizon >= 1, got {context} and {horizon}")
        whole = context + horizon
        places = np.maximum(self.spans[:, 2] - whole + 1, 0)
        total = int(places.sum())
        if total == 0:
            raise ValueError(
                f"no episode has {whole} steps, {context} of context and {horizon} to forecast; "
                f"the longest has {self.spans[:, 2].max()}: lower one of them"
            )
        kept = total if count is None else min(count, total)
        place = np.linspace(0, total - 1, kept).round().astype(np.int64)
        ends = np.cumsum(places)
        episode = np.searchsorted(ends, place, side="right")
        start = place - (ends[episode] - places[episode])
        windows = self._windows(episode, start, whole, ())
        x, action = windows.observation.numpy(), windows.action.numpy()
        for name, array in (("observation", x), ("action", action)):
            require_finite(array, name)
        split = context + 1
        return ForecastWindows(
            x[:, :split], action[:, :context], action[:, context:], x[:, split:], episode, start
        )

    def chunks(self, name: str) -> Iterator[Array]:
        """All rows of a column, or of the observations or actions, `(n, width)` at a time.

        Raises:
            ValueError: If there is none, or a row is not finite.
        """
        array = self._array(name)
        place, more = (0, 1) if name == "observation" else (1, 0)
        for span in self.spans:
            start, stop = int(span[place]), int(span[place] + span[2] + more)
            for row in range(start, stop, CHUNK):
                rows = np.asarray(array[row : min(row + CHUNK, stop)])
                require_finite(rows, name, row)
                yield rows if rows.ndim == 2 else rows[:, None]

    def _windows(
        self, episode: Array, start: Array, steps: int, outcomes: Sequence[str]
    ) -> Windows:
        first, record, length = self.spans[episode].T[:, :, None]
        time = start[:, None] + np.arange(steps + 1)
        rows = record + np.minimum(time[:, :-1], length - 1)
        is_first = np.zeros(time.shape, np.bool_)
        is_first[:, 0] = True
        columns = [np.asarray(self._array(name)[rows], np.float32) for name in outcomes]
        return Windows(
            observation=_tensor(self.observation[first + np.minimum(time, length)]),
            action=_tensor(self.action[rows]),
            outcome=_tensor(np.stack(columns, 2) if columns else np.zeros((*rows.shape, 0))),
            is_first=torch.from_numpy(is_first),
            mask=torch.from_numpy(time[:, :-1] < length),
            position=torch.from_numpy(rows),
        )

    def _array(self, name: str) -> Array:
        found = {"observation": self.observation, "action": self.action, **self.outcomes}[name]
        if found is None:
            raise ValueError(
                f"the data has no {name}: give it, Episodes(..., {name}=...), or leave it out of "
                f"the layout's outcomes"
            )
        return found

    def _part(self, which: Array) -> Episodes:
        part = copy.copy(self)
        part.spans = self.spans[which].copy()
        return part


def require_finite(rows: Array, name: str, first: int = 0) -> None:
    """Raises a ValueError with the index of the first number that is not finite, if any."""
    if rows.dtype.kind not in "fiub":
        raise ValueError(f"{name} is of type {rows.dtype}; world models need real numbers")
    finite = np.isfinite(rows)
    if not finite.all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        value, place = rows[at], (at[0] + first, *at[1:])
        raise ValueError(
            f"{name} must be finite, found {value} at index {place}; fill the gap, or split the "
            f"episode there"
        )


def _require_fit(index: int, episode: Mapping[str, Array], first: Mapping[str, Array]) -> None:
    if episode.keys() != first.keys() or not {"observation", "action"} <= episode.keys():
        raise ValueError(
            f"episode {index} has {sorted(episode)}, the first one {sorted(first)}: each needs "
            f"observation and action, and either all or none reward and terminated"
        )
    unknown = episode.keys() - {"observation", "action", *OUTCOMES}
    if unknown:
        raise ValueError(f"episode {index} has {sorted(unknown)}; known are {OUTCOMES}")
    steps = len(episode["action"])
    for key, array in episode.items():
        rows = steps + (key == "observation")
        if array.shape != (rows, *first[key].shape[1:]):
            raise ValueError(
                f"{key} of episode {index} has shape {array.shape}, not "
                f"{(rows, *first[key].shape[1:])}: {steps} actions lead to {steps + 1} observations"
            )


def _require_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
