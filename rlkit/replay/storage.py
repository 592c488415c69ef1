"""Ring storage of interleaved episodes that holds each observation, and each goal, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.replay.batch import Array, Batch
from rlkit.replay.column import empty_rows
from rlkit.replay.footprint import available_bytes, check_room, footprint, slots_of, too_large
from rlkit.replay.goal_table import GoalTable
from rlkit.replay.latent_cache import LatentEncoder, check_latent_keys, make_columns
from rlkit.replay.shared import Share, check_shared, parts_of, shared_keys

Positions = NDArray[np.int64]


class EpisodeStorage:
    """One ring of slots per environment.

    An episode of T steps fills T + 1 consecutive slots: each holds an observation, and all but the
    last also the action taken there and what it caused. The observation after a step is therefore
    the next slot's, and is stored once. Slots are addressed by `(environment, position)`, where
    positions count up for ever and live at `position % slots`.

    Args:
        observation_space: Space of one environment. With the key `desired_goal`, that part is kept
            once per goal rather than once per step.
        action_space: Space of one environment's action as stored.
        capacity: Slots over all environments, at least; the oldest steps go first.
        num_envs: Environments that add in lockstep.
        hidden_state: Shapes of the arrays of an agent's memory, kept with every step; none by
            default.
        share: Whether the achieved goal and the observation are stored as one, see
            `rlkit.replay.shared`; "auto" does so where both are pictures.
        directory: Folder on a local disk for observations; None keeps them in memory.
        latent_encoder: Encodes images when they are read, see `rlkit.replay.latent_cache`; None
            returns them as they are.

    Attributes:
        observation: What is stored by key, `(slots of all environments, ...)` each.

    Raises:
        ValueError: If a number is not positive, a space cannot be stored as arrays, or there is no
            room for a full storage.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        capacity: int,
        num_envs: int = 1,
        hidden_state: Sequence[tuple[int, ...]] = (),
        share: Share = "auto",
        directory: str | Path | None = None,
        latent_encoder: LatentEncoder | None = None,
    ) -> None:
        for name, value in (("capacity", capacity), ("num_envs", num_envs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_envs = num_envs
        self.capacity = capacity
        self.slots = slots_of(capacity, num_envs)
        check_latent_keys(latent_encoder, observation_space)
        self._widths = {} if latent_encoder is None else dict(latent_encoder.widths)
        need = footprint(
            observation_space, action_space, capacity, num_envs, hidden_state, share, latent_encoder
        )
        check_room(need, capacity, directory)
        keyed, goal_space = parts_of(observation_space)
        self.shared = shared_keys(keyed, share)
        size = num_envs * self.slots
        try:
            stored = {key: space for key, space in keyed.items() if key not in self.shared}
            self.seen = make_columns(size, stored, directory, latent_encoder)
            self.action = empty_rows(size, action_space)
            self.hidden_state = tuple(
                np.zeros((size, *shape), np.float32) for shape in hidden_state
            )
        except MemoryError as error:
            raise too_large(need, capacity, available_bytes(), directory) from error
        self.observation = {key: self.seen[self.shared.get(key, key)].array for key in keyed}
        self.reward = np.zeros(size, np.float32)
        self.terminated = np.zeros(size, np.bool_)
        self.truncated = np.zeros(size, np.bool_)
        self.has_action = np.zeros(size, np.bool_)
        self.step_index = np.zeros(size, np.int32)  # of the slot within its episode
        self.length = np.zeros(size, np.int32)  # of its episode in steps; 0 while it runs
        reader = latent_encoder if "desired_goal" in self._widths else None
        self.goals = None if goal_space is None else GoalTable(goal_space, latent_encoder=reader)
        self.goal_id = np.zeros(size if self.goals is not None else 0, np.int32)
        self.cursor: Positions = np.zeros(num_envs, np.int64)  # where the next step is written
        self.begins = np.ones(num_envs, np.bool_)  # whether that step starts an episode
        self.floor = np.zeros(num_envs, np.int64)  # below it lies what steps taken back overwrote
        self._row = np.arange(num_envs, dtype=np.int64) * self.slots

    def __len__(self) -> int:
        return int(self.has_action.sum())

    def flat(self, env: NDArray[np.int64], position: Positions) -> NDArray[np.int64]:
        """Indices into the arrays of this storage."""
        return env * self.slots + position % self.slots

    def add(
        self,
        observation: Any,
        action: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        next_observation: Any,
        hidden_state: Sequence[Array] | None = None,
    ) -> None:
        """Appends one step of every environment.

        Args:
            observation: Observations `(num_envs, ...)`, a dict of such arrays for a Dict space.
            action: Actions `(num_envs, *action)`.
            reward: Rewards `(num_envs,)`.
            terminated: Whether the step ended the episode by the task, `(num_envs,)`.
            truncated: Whether it was cut off, `(num_envs,)`.
            next_observation: Observations after the step; at an episode's end the last one, not
                the next episode's first.
            hidden_state: The agent's memory before it read `observation`, `(num_envs, *shape)`
                each.

        Raises:
            ValueError: If the memory is not of the shapes that this storage keeps, or what is
                stored as one differs. Nothing is stored then.
        """
        if not isinstance(observation, Mapping):
            observation = {"observation": observation}
            next_observation = {"observation": next_observation}
        if self.hidden_state or hidden_state is not None:
            self._check_hidden_state(hidden_state)
        for seen in (observation, next_observation):
            check_shared(seen, self.shared)
        here = self._row + self.cursor % self.slots
        there = self._row + (self.cursor + 1) % self.slots
        if self.goals is not None:
            self._add_goal(here, there, observation["desired_goal"])
        for key, rows in self.seen.items():
            rows.put(here, observation[key])
            rows.put(there, next_observation[key])
        self.action[here] = action
        for column, part in zip(self.hidden_state, hidden_state or (), strict=True):
            column[here] = part
        self.reward[here] = reward
        self.terminated[here] = terminated
        self.truncated[here] = truncated
        step_index = np.where(self.begins, 0, self.step_index[here])
        self.step_index[here], self.step_index[there] = step_index, step_index + 1
        self.length[here] = 0
        self.has_action[here], self.has_action[there] = True, False
        ended = np.asarray(terminated) | np.asarray(truncated)
        self.cursor += 1 + ended  # an ended episode keeps its last observation in a slot of its own
        self.begins = ended
        for env in np.flatnonzero(ended):
            self._close(int(env), int(step_index[env]) + 1)

    @property
    def latest_reward(self) -> Array:
        """Of each environment's last step, `(num_envs,)`; of no meaning where an episode begins."""
        return np.take(self.reward, self._row + (self.cursor - 1) % self.slots)

    def retract(self, env: int) -> None:
        """Removes an environment's newest step; the one before it becomes a truncated last one."""
        slot = self._row[env] + (self.cursor[env] - 2) % self.slots
        self.floor[env] = max(self.floor[env], self.cursor[env] - self.slots)
        self.has_action[slot] = False
        length = int(self.step_index[slot])
        self.cursor[env] -= 1 if length else 2
        if length:
            self.truncated[self._row[env] + (self.cursor[env] - 2) % self.slots] = True
            self._close(env, length)

    def cut(self) -> None:
        """Ends every running episode as truncated after its last step."""
        for env in np.flatnonzero(~self.begins):
            last = self._row[env] + (self.cursor[env] - 1) % self.slots
            self.truncated[last] = True
            self.cursor[env] += 1
            self.begins[env] = True
            self._close(int(env), int(self.step_index[last]) + 1)

    def _close(self, env: int, length: int) -> None:
        # Every slot learns its episode's length: the first one may be overwritten before the rest.
        positions = self.cursor[env] - 1 - np.arange(min(length + 1, self.slots))
        self.length[self._row[env] + positions % self.slots] = length
        # The cursor's slot still holds the ring's oldest step, which no position names any more.
        self.has_action[self._row[env] + self.cursor[env] % self.slots] = False

    def _check_hidden_state(self, hidden_state: Sequence[Array] | None) -> None:
        given = [] if hidden_state is None else [part.shape for part in hidden_state]
        kept = [(self.num_envs, *column.shape[1:]) for column in self.hidden_state]
        if given != kept:
            raise ValueError(
                f"the memory to store has shapes {given}, this replay keeps {kept}: pass "
                f"`hidden_state` "
                f"to `add` as its own argument `hidden_state` describes it"
            )

    def _add_goal(self, here: Array, there: Array, desired: Array) -> None:
        assert self.goals is not None
        desired = np.asarray(desired, self.goals.rows.dtype)  # as stored, or none equals its own
        current = self.goal_id[here]
        fresh = self.begins.copy()
        running = ~fresh
        if running.any():
            same = self.goals.kept(current[running]) == desired[running]
            fresh[running] = ~same.reshape(len(same), -1).all(axis=1)
        if fresh.any():
            count = int(fresh.sum())
            if self.goals.full(count):
                self.goals.drop_before(self._oldest_goal())
            current[fresh] = self.goals.append(desired[fresh])
        self.goal_id[here] = self.goal_id[there] = current

    def _oldest_goal(self) -> int:
        oldest = np.maximum(self.cursor + 1 - self.slots, self.floor)
        started = self.cursor > 0
        if not started.any():
            return self.goals.next_id if self.goals is not None else 0
        return int(self.goal_id[(self._row + oldest % self.slots)[started]].min())

    def sample_steps(
        self, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Positions]:
        """Uniform draws from all stored steps: environments and positions, `(count,)` each.

        Slots are drawn until enough of them hold a step: the cost does not depend on how many do.

        Raises:
            ValueError: If nothing is stored.
        """
        used = min(self.slots, int(self.cursor.max()))
        if used == 0:
            raise ValueError("the replay is empty: add a step before sampling")
        found = np.zeros(0, np.int64)
        while len(found) < count:
            # Draws are cheap and rounds are not: the surplus makes a second round rare.
            draw = rng.integers(0, self.num_envs * used, size=2 * (count - len(found)) + 8)
            draw += draw // used * (self.slots - used)  # from a number of used slots to their index
            found = np.concatenate([found, draw[self.has_action.take(draw)]])
        found = found[:count]
        env = found // self.slots
        return env, self._position_of(env, found - env * self.slots)

    def _position_of(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> Positions:
        """The newest position not beyond the cursor that lives in a slot."""
        cursor = self.cursor.take(env)
        return cursor - (cursor - slot) % self.slots

    def episode_bounds(
        self, env: NDArray[np.int64], position: Positions
    ) -> tuple[Positions, Positions]:
        """First and last stored observation positions of the episodes around positions."""
        flat = self.flat(env, position)
        cursor = self.cursor.take(env)
        first = position - self.step_index.take(flat)
        length = self.length.take(flat)
        last = np.where(length > 0, first + length, cursor)
        oldest = np.maximum(cursor + 1 - self.slots, self.floor.take(env))
        return np.maximum(first, oldest), last

    def window(self, env: NDArray[np.int64], position: Positions, length: int) -> Batch:
        """Windows of `length` >= 1 records that begin at the steps `env (B,)`, `position (B,)`."""
        index = position[:, None] + np.arange(length + 1)
        if length == 1:
            mask = np.ones((len(position), 1), np.bool_)
        else:
            last = self.episode_bounds(env, position)[1][:, None]
            mask = index[:, :-1] < last
            index = np.minimum(index, last)
        seen = self.flat(env[:, None], index)
        record = seen[:, :-1]
        if length > 1:
            # Padding repeats the last step's record; the mask says that it does not count.
            record = self.flat(env[:, None], np.minimum(index[:, :-1], last - 1))
        return self.gather(seen, record, mask, position)

    def achieved(self, slots: NDArray[np.int64]) -> Array:
        """The goals achieved in slots, as `flat` numbers them."""
        key = "achieved_goal"
        return self._read(key, self.seen[self.shared.get(key, key)].take(slots))

    def _read(self, key: str, taken: Array) -> Array:
        return taken[..., : self._widths[key]] if key in self._widths else taken

    def gather(
        self,
        seen: NDArray[np.int64],
        record: NDArray[np.int64],
        happened: NDArray[np.bool_],
        position: Positions,
    ) -> Batch:
        """Windows put together from slots, as `flat` numbers them.

        Args:
            seen: Slots of the observations, `(B, T + 1)`.
            record: Slots of the steps, `(B, T)`.
            happened: Which of the steps are no padding, `(B, T)`.
            position: Positions `(B,)` to note in the batch.
        """
        # `take`, because indexing with an array takes several times as long on narrow rows.
        read = {key: column.take(seen) for key, column in self.seen.items()}
        return Batch(
            observation={
                key: self._read(key, read[self.shared.get(key, key)]) for key in self.observation
            },
            desired_goal=None if self.goals is None else self.goals.take(self.goal_id.take(record)),
            action=self.action.take(record, axis=0),
            reward=self.reward.take(record),
            terminated=self.terminated.take(record) & happened,
            truncated=self.truncated.take(record) & happened,
            is_first=self.step_index.take(seen) == 0,
            mask=happened,
            relabelled=np.zeros(happened.shape, np.bool_),
            position=position,
        )

    def state_dict(self) -> dict[str, Any]:
        """The used part of the ring, as arrays and integers.

        The arrays are views, for a copy may not fit the memory: write them before adding goes on.
        """
        used = int(min(self.slots, self.cursor.max() + 1))
        columns = {
            name: column.reshape(self.num_envs, self.slots, *column.shape[1:])[:, :used]
            for name, column in self._columns().items()
        }
        return {
            "columns": columns,
            "shared": bool(self.shared),
            "cursor": self.cursor.copy(),
            "begins": self.begins.copy(),
            "floor": self.floor.copy(),
            "goals": None if self.goals is None else self.goals.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, into a storage of the same spaces and capacity.

        Raises:
            ValueError: If an array does not fit this storage.
        """
        if state.get("shared", False) != bool(self.shared):
            raise ValueError(
                f"the saved replay was stored with share={not self.shared}, this one is with "
                f"share={bool(self.shared)}: set it as it was"
            )
        own = self._columns()
        if own.keys() != state["columns"].keys():
            raise ValueError(
                f"the saved replay holds {sorted(state['columns'])}, this one {sorted(own)}: "
                f"it belongs to another environment, or to an agent with another memory"
            )
        for name, column in own.items():
            ring = column.reshape(self.num_envs, self.slots, *column.shape[1:])
            saved = state["columns"][name]
            if ring[:, : saved.shape[1]].shape != saved.shape or ring.dtype != saved.dtype:
                memory = ", and the same memory" if name.startswith("hidden_state.") else ""
                raise ValueError(
                    f"the saved replay's {name!r} is {saved.dtype}{saved.shape}, this replay holds "
                    f"{ring.dtype}{ring.shape}: same environments, spaces and capacity are needed"
                    f"{memory}"
                )
        for name, column in own.items():  # only now, so that what is refused changes nothing
            ring = column.reshape(self.num_envs, self.slots, *column.shape[1:])
            saved = state["columns"][name]
            used = saved.shape[1]
            ring[:, :used] = saved
            if name == "has_action":  # the rest of the other columns stays untouched, as it is lazy
                ring[:, used:] = False
        self.cursor = np.array(state["cursor"], np.int64)
        self.begins = np.array(state["begins"], np.bool_)
        self.floor = np.array(state.get("floor", np.zeros(self.num_envs)), np.int64)
        for rows in self.seen.values():
            rows.release()
        if self.goals is not None:
            self.goals.load_state_dict(state["goals"])

    def _columns(self) -> dict[str, Array]:
        named = ("action", "reward", "terminated", "truncated", "has_action", "step_index")
        columns = {name: getattr(self, name) for name in (*named, "length")}
        if self.goals is not None:
            columns["goal_id"] = self.goal_id
        columns |= {f"hidden_state.{i}": column for i, column in enumerate(self.hidden_state)}
        for key, rows in self.seen.items():
            columns |= {f"{name}.{key}": column for name, column in rows.arrays().items()}
        return columns
