"""Ring storage of interleaved episodes that holds each observation, and each goal, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.replay.batch import Array, Batch
from rlkit.replay.columns import (
    ACHIEVED,
    Share,
    alias_keys,
    check_aliases,
    check_shapes,
    empty_rows,
    split_goal,
)
from rlkit.replay.footprint import check_room, estimate_footprint, slots_of, too_large
from rlkit.replay.latent_cache import (
    LatentEncoder,
    check_latent_keys,
    make_columns,
    make_goal_table,
)
from rlkit.replay.saved_storage import SavedStorage

Positions = NDArray[np.int64]
Bounds = tuple[Positions, Positions]
"""First and last stored observation positions of episodes, see `EpisodeStorage.episode_bounds`."""


class EpisodeStorage(SavedStorage):
    """One ring of slots per environment.

    An episode of T steps fills T + 1 consecutive slots: each holds an observation, and all but the
    last also the action taken there and what it caused. The observation after a step is therefore
    the next slot's, and is stored once. Slots are addressed by `(environment, position)`, where
    positions count up without end and occupy slot `position % slots`.

    Args:
        observation_space: Space of one environment. With goal keys, the part `desired_goal` is kept
            once per goal rather than once per step.
        action_space: Space of one environment's action as stored.
        capacity: Slots over all environments, at least; the oldest steps go first.
        num_envs: Environments that add in lockstep.
        hidden_state: Shapes of the arrays of an agent's hidden state, stored with every step.
        share: Whether the achieved goal and the observation are stored once, see `alias_keys`.
        directory: Folder on a local disk for observations; None keeps them in memory.
        latent_encoder: Encodes images when they are read, see `rlkit.replay.latent_cache`; None
            returns them as they are.

    Attributes:
        columns: The columns of the keys that are stored.
        aliases: Keys that are not stored, each with the key whose column holds its values.
        cursor: Position of each environment's next step, `(num_envs,)`.
        begins: Whether that step starts an episode, `(num_envs,)`.

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
        need = estimate_footprint(
            observation_space, action_space, capacity, num_envs, share, hidden_state, latent_encoder
        )
        check_room(need, capacity, directory)
        keyed, goal_space = split_goal(observation_space)
        self.aliases = alias_keys(keyed, share)
        size = num_envs * self.slots
        try:
            stored = {key: space for key, space in keyed.items() if key not in self.aliases}
            self.columns = make_columns(size, stored, directory, latent_encoder)
            self.action = empty_rows(size, action_space)
            self.hidden_state = tuple(
                np.zeros((size, *shape), np.float32) for shape in hidden_state
            )
        except MemoryError as error:
            raise too_large(need, capacity, directory) from error
        self._keys = [(key, self.aliases.get(key, key)) for key in keyed]
        self.reward = np.zeros(size, np.float32)
        self.terminated = np.zeros(size, np.bool_)
        self.truncated = np.zeros(size, np.bool_)
        self.has_action = np.zeros(size, np.bool_)
        self.step_index = np.zeros(size, np.int32)  # of the slot within its episode
        self.length = np.zeros(size, np.int32)  # of its episode in steps; 0 while it runs
        self.goals = None if goal_space is None else make_goal_table(goal_space, latent_encoder)
        self.goal_id = np.zeros(size if self.goals is not None else 0, np.int32)
        self.cursor: Positions = np.zeros(num_envs, np.int64)
        self.begins = np.ones(num_envs, np.bool_)
        self.oldest = np.zeros(num_envs, np.int64)  # positions below are overwritten
        self._row = np.arange(num_envs, dtype=np.int64) * self.slots

    @property
    def observation(self) -> dict[str, Array]:
        """All stored values by key, `(slots of all environments, ...)` each."""
        return {key: self.columns[source].array for key, source in self._keys}

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
            hidden_state: The agent's hidden state before it read `observation`,
                `(num_envs, *shape)` each.

        Raises:
            ValueError: If the hidden state has other shapes than this storage keeps, or keys that
                are stored once differ. Nothing is stored then.
        """
        if not isinstance(observation, Mapping):
            observation = {"observation": observation}
            next_observation = {"observation": next_observation}
        if self.hidden_state or hidden_state is not None:
            check_shapes(hidden_state, self.num_envs, self.hidden_state)
        for values in (observation, next_observation):
            check_aliases(values, self.aliases)
        current = self._row + self.cursor % self.slots
        after = self._row + (self.cursor + 1) % self.slots
        if self.goals is not None:
            self._add_goal(current, after, observation["desired_goal"])
        for key, rows in self.columns.items():
            rows.put(current, observation[key])
            rows.put(after, next_observation[key])
        self.action[current] = action
        for column, part in zip(self.hidden_state, hidden_state or (), strict=True):
            column[current] = part
        self.reward[current] = reward
        self.terminated[current] = terminated
        self.truncated[current] = truncated
        step_index = np.where(self.begins, 0, self.step_index[current])
        self.step_index[current], self.step_index[after] = step_index, step_index + 1
        self.length[current] = 0
        self.has_action[current], self.has_action[after] = True, False
        ended = np.asarray(terminated) | np.asarray(truncated)
        self.cursor += 1 + ended  # an ended episode keeps its last observation in a slot of its own
        self.begins = ended
        for env in np.flatnonzero(ended):
            self._close(int(env), int(step_index[env]) + 1)

    @property
    def latest_reward(self) -> Array:
        """Reward of each environment's last step, `(num_envs,)`; undefined after a reset."""
        return np.take(self.reward, self._row + (self.cursor - 1) % self.slots)

    def retract(self, env: int) -> None:
        """Removes an environment's newest step; the one before it becomes a truncated last one."""
        slot = self._row[env] + (self.cursor[env] - 2) % self.slots
        self.oldest[env] = max(self.oldest[env], self.cursor[env] - self.slots)
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
        # Every slot holds its episode's length: the first one may be overwritten before the rest.
        positions = self.cursor[env] - 1 - np.arange(min(length + 1, self.slots))
        self.length[self._row[env] + positions % self.slots] = length
        # The cursor's slot still holds the ring's oldest step, which has no position any more.
        self.has_action[self._row[env] + self.cursor[env] % self.slots] = False

    def _add_goal(self, current: Array, after: Array, desired: Array) -> None:
        assert self.goals is not None
        desired = np.asarray(desired, self.goals.rows.dtype)  # as stored, or none equals its own
        goal_id = self.goal_id[current]
        is_new = self.begins.copy()
        running = ~is_new
        if running.any():
            same = self.goals.stored(goal_id[running]) == desired[running]
            is_new[running] = ~same.reshape(len(same), -1).all(axis=1)
        if is_new.any():
            count = int(is_new.sum())
            if self.goals.full(count):
                self.goals.drop_before(self._oldest_goal())
            goal_id[is_new] = self.goals.append(desired[is_new])
        self.goal_id[current] = self.goal_id[after] = goal_id

    def _oldest_goal(self) -> int:
        oldest = np.maximum(self.cursor + 1 - self.slots, self.oldest)
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
            raise ValueError("the replay buffer is empty: add a step before sampling")
        found = np.zeros(0, np.int64)
        while len(found) < count:
            # A draw is cheap and a round is not: the surplus makes a second round rare.
            draw = rng.integers(0, self.num_envs * used, size=2 * (count - len(found)) + 8)
            draw += draw // used * (self.slots - used)  # from a number of used slots to their index
            found = np.concatenate([found, draw[self.has_action.take(draw)]])
        found = found[:count]
        env = found // self.slots
        return env, self.position_of(env, found - env * self.slots)

    def position_of(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> Positions:
        """The newest position not beyond the cursor that occupies a slot."""
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
        oldest = np.maximum(cursor + 1 - self.slots, self.oldest.take(env))
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
        observed = self.flat(env[:, None], index)
        taken = observed[:, :-1]
        if length > 1:
            # Padding repeats the last step's record; the mask excludes it.
            taken = self.flat(env[:, None], np.minimum(index[:, :-1], last - 1))
        return self.read_windows(observed, taken, mask, env, position)

    def achieved(self, slots: NDArray[np.int64]) -> Array:
        """The goals achieved in slots, as `flat` numbers them."""
        column = self.columns[self.aliases.get(ACHIEVED, ACHIEVED)]
        return self._prefix(ACHIEVED, column.take(slots))

    def _prefix(self, key: str, rows: Array) -> Array:
        return rows[..., : self._widths[key]] if key in self._widths else rows

    def read_windows(
        self,
        observed: NDArray[np.int64],
        taken: NDArray[np.int64],
        valid: NDArray[np.bool_],
        env: NDArray[np.int64],
        position: Positions,
    ) -> Batch:
        """Windows read from slots, as `flat` numbers them.

        Args:
            observed: Slots of the observations, `(B, T + 1)`.
            taken: Slots of the steps, `(B, T)`.
            valid: Which of the steps are no padding, `(B, T)`.
            env: Environments `(B,)` to note in the batch.
            position: Positions `(B,)` to note in the batch.
        """
        # `take`, because indexing with an array takes several times as long on narrow rows.
        rows = {key: column.take(observed) for key, column in self.columns.items()}
        return Batch(
            observation={key: self._prefix(key, rows[source]) for key, source in self._keys},
            desired_goal=None if self.goals is None else self.goals.take(self.goal_id.take(taken)),
            action=self.action.take(taken, axis=0),
            reward=self.reward.take(taken),
            terminated=self.terminated.take(taken) & valid,
            truncated=self.truncated.take(taken) & valid,
            is_first=self.step_index.take(observed) == 0,
            mask=valid,
            relabelled=np.zeros(valid.shape, np.bool_),
            env=env,
            position=position,
        )


def read_sequences(
    storage: EpisodeStorage,
    env: NDArray[np.int64],
    start: Positions,
    bounds: Bounds,
    length: int,
    *,
    burn_in: int = 0,
    previous_action: bool = False,
    previous_reward: bool = False,
) -> Batch:
    """Windows of `burn_in + length` records with the inputs of recurrent encoders.

    See `rlkit.replay.batch` for the conventions.

    Args:
        storage: Where the episodes are.
        env: Environments `(B,)`.
        start: Positions `(B,)` of the first records after the burn-in; each holds a step.
        bounds: Those of their episodes.
        length: Records after the burn-in, at least 1.
        burn_in: Records before, at least 0.
        previous_action: Whether to add the actions that led to the observations.
        previous_reward: Whether to add the rewards that came with them.
    """
    first, last = (bound[:, None] for bound in bounds)
    index = (start - burn_in)[:, None] + np.arange(burn_in + length + 1)
    step = index[:, :-1]
    valid = (step >= first) & (step < last)
    index = np.clip(index, first, last)
    observed = storage.flat(env[:, None], index)
    taken = storage.flat(env[:, None], np.minimum(index[:, :-1], last - 1))
    batch = storage.read_windows(observed, taken, valid, env, start)
    mask = valid.copy()
    mask[:, :burn_in] = False
    is_first = index == first
    earlier = None
    if previous_action or previous_reward:
        earlier = storage.flat(env[:, None], index - 1)
    return batch.replace(
        mask=mask,
        is_first=is_first,
        burn_in=burn_in,
        previous_action=_zeroed(is_first, storage.action, earlier if previous_action else None),
        previous_reward=_zeroed(is_first, storage.reward, earlier if previous_reward else None),
        hidden_state=tuple(
            _zeroed(is_first[:, 0], part, observed[:, 0]) for part in storage.hidden_state
        )
        or None,
    )


def _zeroed(blank: NDArray[np.bool_], column: Array, index: Array | None) -> Array | None:
    """The rows of a column, zero where `blank`; None without an index."""
    if index is None:
        return None
    taken = column.take(index, axis=0)
    taken[blank] = 0
    return taken
