"""The bytes that a full replay buffer takes, and whether there is room for it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces

from rlkit.replay.columns import Share, alias_keys, row_bytes, split_goal
from rlkit.replay.latent_cache import LatentEncoder, latent_bytes

STEPS_PER_GOAL = 50  # an estimate: how many steps pursue a goal is known only afterwards
ROOT = Path("/")


@dataclass(frozen=True)
class Footprint:
    """Bytes of a full replay buffer, in memory and on disk.

    Attributes:
        observations: Of observations, which can live on disk.
        hidden_state: Of an agent's hidden state at every step.
        rest: Of everything else, goals and cached latents included.
    """

    observations: int
    hidden_state: int
    rest: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.observations + self.hidden_state + self.rest


def estimate_footprint(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    capacity: int,
    num_envs: int = 1,
    share: Share = "auto",
    hidden_state: Sequence[tuple[int, ...]] = (),
    latent_encoder: LatentEncoder | None = None,
) -> Footprint:
    """Bytes of a full replay buffer of these arguments; see `rlkit.replay.ReplayBuffer`.

    Goals are counted as if each were pursued for 50 steps.

    Raises:
        ValueError: If a space cannot be stored as arrays.
    """
    size = num_envs * slots_of(capacity, num_envs)
    keyed, goal = split_goal(observation_space)
    aliases = alias_keys(keyed, share)
    stored = {key: space for key, space in keyed.items() if key not in aliases}
    observations = size * sum(row_bytes(space) for space in stored.values())
    rest = size * (15 + row_bytes(action_space))  # reward, ends, the slot's index in its episode
    rest += size * sum(latent_bytes(latent_encoder, key) for key in stored)
    if goal is not None:
        one = row_bytes(goal) + latent_bytes(latent_encoder, "desired_goal")
        rest += size * 4 + -(-size // STEPS_PER_GOAL) * one
    return Footprint(observations, size * 4 * sum(math.prod(shape) for shape in hidden_state), rest)


def slots_of(capacity: int, num_envs: int) -> int:
    """Slots per environment.

    Two more than steps: one for the newest observation, which has no action yet, one for the next.
    """
    return -(-capacity // num_envs) + 2


def check_room(need: Footprint, capacity: int, directory: str | Path | None) -> None:
    """Raises ValueError if memory or disk cannot hold a full buffer."""
    held = need.total if directory is None else need.hidden_state + need.rest
    if held > available_bytes():
        raise too_large(need, capacity, directory)
    if directory is None:
        return
    place = Path(directory).absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if need.observations > free:
        raise ValueError(
            f"a replay buffer of {capacity:,} steps (buffer_size) would take "
            f"{need.observations:,} bytes in {directory}, and {free:,} are left there: "
            f"{_lower(capacity, need.observations, free)}, or set directory to a folder on a "
            f"larger disk"
        )


def too_large(need: Footprint, capacity: int, directory: str | Path | None) -> ValueError:
    """The error for a replay buffer that does not fit into memory."""
    have = available_bytes()
    held = need.total if directory is None else need.hidden_state + need.rest
    text = f"a replay buffer of {capacity:,} steps (buffer_size) would take {held:,} bytes"
    if need.hidden_state:
        text += f", {need.hidden_state:,} of them for the hidden state of every step,"
    # The system may refuse what it reports as available: a limit of the process, or others' demand.
    refused = f", and {have:,} are free, but the system refused them" if have >= held else ""
    text += f"{refused or f' of {have:,} that are available'}: {_lower(capacity, held, have)}"
    if directory is None and need.hidden_state + need.rest <= have:
        text += ', or keep observations on disk with directory = "a folder"'
    if need.hidden_state:
        text += ', or set start = "zero" to store no hidden state'
    return ValueError(text)


def _lower(capacity: int, need: int, have: int) -> str:
    """Advice to lower the capacity, rounded down to two digits; what was refused, to its half."""
    fitting = capacity * have // need if have < need else capacity // 2
    if fitting == 0:
        return "no buffer_size fits"
    unit = 10 ** max(len(str(fitting)) - 2, 0)
    return f"lower buffer_size to {fitting // unit * unit:,}"


def available_bytes(root: Path = ROOT) -> int:
    """Bytes of memory that this process can still take.

    What the system has left, or what a container's limit leaves if that is less.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    return max(0, min([_system_bytes(root), *_group_bytes(root)]))


def _system_bytes(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63 - 1  # unknown


def _group_bytes(root: Path) -> list[int]:
    """What the limits of this process' control groups (versions 1 and 2) leave, in bytes."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
        folder = mount / path.strip("/")
        # A group's parents limit it too. A container sees its own group as the mount itself.
        for group in (folder, *folder.parents):
            if group.is_relative_to(mount):
                left += _left(group, *names)
    return left


def _left(group: Path, limit: str, usage: str, cached: str) -> list[int]:
    try:
        bound, used = (group / limit).read_text().strip(), int((group / usage).read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    if bound == "max":
        return []
    # Cached files count as used, but the system frees them when needed.
    return [int(bound) - used + int(facts.get(cached, 0))]
