"""Reads and writes episodes in Minari's format for offline data of Gymnasium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import ObservationLayout, vectorise
from rlkit.world.data.windows import OUTCOMES, Episodes
from rlkit.world.layout import Layout


def read_minari(
    source: Path | str, *, scratch: Path | str | None = None
) -> tuple[Episodes, Layout]:
    """Reads a data set into columns with their layout.

    Observations become the columns of `rlkit.goals.ObservationLayout`, without the desired goal.
    Discrete actions become one-hot, images vectors in [0, 1]. Nothing of the
    data set is executed: the environment it was recorded in is not made.

    Args:
        source: A data set's folder, or the name of one that Minari has on this machine, such as
            `D4RL/pointmaze/umaze-v2`. To have it there: `minari download NAME`.
        scratch: A folder for the arrays, which are then memory maps and not held in memory.

    Raises:
        ImportError: If Minari is missing.
        FileNotFoundError: If there is no such data set here.
        ValueError: If it does not name its spaces, holds no episode, or an episode is empty or has
            not one observation more than actions.
    """
    storage = _open(source)
    observation_space, action_space = storage.observation_space, storage.action_space
    layout, flat = (
        Layout.of_spaces(observation_space, action_space, OUTCOMES),
        ObservationLayout.of(observation_space),
    )
    count = int(storage.total_episodes)
    lengths = [int(m["total_steps"]) for m in storage.get_episode_metadata(range(count))]
    if not lengths or min(lengths) < 1:
        raise ValueError(f"{source} has {count} episodes, of which some or all have no step")
    total = sum(lengths)
    observation = _empty(scratch, "observation", (total + count, layout.observation))
    action = _empty(scratch, "action", (total, layout.action))
    reward, terminated = np.zeros(total, np.float32), np.zeros(total, np.bool_)
    start = 0
    for index, (steps, episode) in enumerate(
        zip(lengths, storage.get_episodes(range(count)), strict=True)
    ):
        columns = flat.vector(episode["observations"])
        if len(columns) != steps + 1 or len(episode["rewards"]) != steps:
            raise ValueError(
                f"episode {index} of {source} has {len(columns)} observations and "
                f"{len(episode['rewards'])} rewards, not {steps + 1} and {steps}"
            )
        rows = slice(start, start + steps)
        observation[start + index : start + index + steps + 1] = columns
        action[rows] = vectorise(action_space, episode["actions"], 1)
        reward[rows], terminated[rows] = episode["rewards"], episode["terminations"]
        start += steps
    return Episodes(observation, action, lengths, reward, terminated), layout


def write_minari(
    folder: Path | str, data: Episodes, layout: Layout, name: str = "rlkit/recorded-v0"
) -> None:
    """Writes episodes as a data set, which Minari and `read_minari` can read.

    Args:
        folder: Made with its parents; must not hold a data set yet. Minari finds it by name if it
            is that name below `MINARI_DATASETS_PATH`.
        data: Without rewards they are 0; an episode that did not terminate counts as truncated.
        layout: Its achieved goal, if any, must be the first columns; it is written as
            `achieved_goal` beside `observation`, as environments with goals give it. Desired goals
            are no part of episodes and are not written.
        name: The data set's, `namespace/name-v0`.

    Raises:
        ImportError: If Minari is missing.
        ValueError: If the layout does not fit, the name is malformed, or the folder is taken.
    """
    minari = _minari()
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage

    if not re.search(r"-v\d+$", name):
        raise ValueError(f"{name!r} lacks its version, as in {name + '-v0'!r}")
    parse_dataset_id(name)
    width, goal = layout.observation, len(layout.achieved)
    columns = (data.observation.shape[1], data.action.shape[1])
    if (width, layout.action) != columns:
        raise ValueError(f"the data has {columns} columns of observation and action, not {layout}")
    if layout.achieved != tuple(range(goal)):
        raise ValueError(f"the achieved goal must be the first columns, got {layout.achieved}")
    box: spaces.Space[Any] = _box(width - goal)
    if goal:
        box = spaces.Dict({"observation": box, "achieved_goal": _box(goal)})
    place = Path(folder) / "data"
    place.mkdir(parents=True, exist_ok=True)
    storage = MinariStorage.new(place, box, _box(layout.action))
    storage.update_metadata({"dataset_id": name, "minari_version": minari.__version__})
    storage.update_episodes(_buffers(data, goal))


def _buffers(data: Episodes, goal: int) -> Iterator[Any]:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for first, record, steps in data.spans:
        rows = slice(record, record + steps)
        x = np.asarray(data.observation[first : first + steps + 1], np.float32)
        ended = np.zeros(steps, np.bool_)
        ended[-1] = True
        reward, terminated = (data.outcomes[key] for key in ("reward", "terminated"))
        terminations = np.zeros(steps, np.bool_) if terminated is None else terminated[rows]
        parts = {"achieved_goal": x[:, :goal], "observation": x[:, goal:]}
        yield EpisodeBuffer(
            observations=parts if goal else x,
            actions=np.asarray(data.action[rows], np.float32),
            rewards=np.zeros(steps) if reward is None else reward[rows],
            terminations=terminations,
            truncations=ended & ~terminations,
        )


def _open(source: Path | str) -> Any:
    """Minari's storage of a data set, by folder or by name."""
    _minari()
    from minari.dataset.minari_storage import MinariStorage
    from minari.storage.datasets_root_dir import get_dataset_path

    places = [Path(source), Path(source) / "data", get_dataset_path(str(source)) / "data"]
    found = [place for place in places if (place / "metadata.json").is_file()]
    if not found:
        raise FileNotFoundError(
            f"there is no Minari data set at {', '.join(map(str, places))}; fetch one by its name: "
            f"minari download {source}"
        )
    metadata = MinariStorage.read_raw_metadata(found[0])
    if not {"observation_space", "action_space"} <= metadata.keys():
        raise ValueError(
            f"{found[0]} does not name its spaces, so that its environment would have to be made, "
            "with code that the file names; write the data set again with a current Minari"
        )
    return MinariStorage.read(found[0])


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError("Minari is missing: pip install 'rlkit-suite[minari]'") from error
    return minari


def _box(width: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def _empty(scratch: Path | str | None, name: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """An uninitialised array, in memory or in a file of the folder."""
    if scratch is None:
        return np.empty(shape, np.float32)
    Path(scratch).mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(
        Path(scratch) / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape
    )
