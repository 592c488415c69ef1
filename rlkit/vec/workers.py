"""One process per environment; a crash or a hang costs one episode and does not end the training.

Stable-Baselines3's `SubprocVecEnv` waits for ever for an environment that hangs, and ends with an
empty `EOFError` when one crashes. Here a lost worker is replaced, with a warning that gives the
reason.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Iterable, Sequence
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlkit.goals import is_goal_space
from rlkit.goals.failure import EnvironmentFailed
from rlkit.vec.env_state import State
from rlkit.vec.worker import EnvironmentRaised, Factory, Worker, WorkerLost

Observation = NDArray[Any] | dict[str, NDArray[Any]]
MOST_LOSSES = 3
"""Losses of one environment's worker, without a step between them, that raise an error."""
_START_TIMEOUT_S = 120.0  # importing an environment can take long on a busy machine
_CLOSE_TIMEOUT_S = 2.0


class ResilientVecEnv(VecEnv):
    """Environments in processes of their own; one that crashes, raises or hangs is replaced.

    Without losses it equals a `DummyVecEnv` of the same environments step for step. When a worker
    is lost in a step, its environment's episode ends there as truncated and the next one begins in
    a fresh process, while the other environments go on. The outcome of the lost step is unknown;
    its info holds the reason under `worker_lost`. For consumers that ignore this key, it is a step
    without motion: `terminal_observation` is the observation before it, and the reward is what the
    goal rule gives there, or the last one received where there are no goals. An episode cut in this
    way has no `episode` in its info.

    Args:
        factories: One builder per environment.
        timeout_s: Seconds that a worker may take for one answer, such as a step or a reset.

    Attributes:
        workers_lost: Workers replaced so far.

    Raises:
        ValueError: If there is no factory, the timeout is not positive, observations are tuples, or
            the current process is a daemon, which may not start processes.
        RuntimeError: If an environment cannot be built, with its traceback. Later, if one
            environment's worker is lost `MOST_LOSSES` times without a step between.
    """

    def __init__(self, factories: Sequence[Factory], timeout_s: float = 60.0) -> None:
        if not factories or not timeout_s > 0:
            raise ValueError(
                f"got {len(factories)} environments and timeout_s = {timeout_s}; "
                f"both must be positive"
            )
        if multiprocessing.current_process().daemon:
            raise ValueError(
                "environments in processes of their own cannot be started in a daemonic process: "
                "start it with daemon=False, or set subprocess=false"
            )
        self.workers_lost = 0
        self._factories, self._timeout_s = list(factories), timeout_s
        self._seed: int | None = None
        self._restarts = np.zeros(len(factories), np.int64)
        self._failures = np.zeros(len(factories), np.int64)  # since the last step
        # Replaced environments whose cut episode no step has reported yet.
        self._unreported: dict[int, tuple[str, Any]] = {}
        self._workers: list[Worker] = []
        # At exit Python sends SIGTERM to daemons, which these ignore, and then waits for them.
        self._end_all = Finalize(self, _end, (self._workers,), exitpriority=10)
        try:
            for factory in factories:
                self._workers.append(Worker(factory))
            found = [self._started(i, worker) for i, worker in enumerate(self._workers)]
            observation_space, action_space = found[0]
            if isinstance(observation_space, spaces.Tuple):
                raise ValueError("tuples of observations are not supported; use a spaces.Dict")
            super().__init__(len(factories), observation_space, action_space)
        except BaseException:
            self._end_all()
            raise
        self._last: Any = None
        self._rewards = np.zeros(self.num_envs, np.float32)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds environment i with `seed + i` at the next reset; replacements derive theirs."""
        seeds = super().seed(seed)
        self._seed = seeds[0]
        return seeds

    def reset(self) -> Any:
        """Starts all episodes, with the seeds and options set before."""
        self._unreported.clear()
        for worker, seed, options in zip(self._workers, self._seeds, self._options, strict=True):
            worker.send("reset", (seed, options))
        rows: list[Any] = [None] * self.num_envs
        lost = {}
        deadline = self._deadline()
        for i, worker in enumerate(self._workers):
            try:
                rows[i], self.reset_infos[i] = worker.receive(deadline)
            except (WorkerLost, EnvironmentRaised) as error:
                lost[i] = str(error)
        for i, reason in lost.items():
            rows[i] = self._replace(i, reason, self._options[i])
        self._reset_seeds()
        self._reset_options()
        self._rewards = np.zeros(self.num_envs, np.float32)
        self._last = self._stack(rows)
        return self._last

    def step_async(self, actions: NDArray[Any]) -> None:
        """Sends the actions `(N, *action)` to the workers."""
        for i, (worker, action) in enumerate(zip(self._workers, actions, strict=True)):
            if i not in self._unreported:
                worker.send("step", action)

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """Waits for the step: observations, rewards `(N,)`, dones `(N,)` and infos."""
        rows: list[Any] = [None] * self.num_envs
        rewards = np.zeros(self.num_envs, np.float32)
        dones = np.zeros(self.num_envs, np.bool_)
        infos: list[dict[str, Any]] = [{} for _ in rows]
        lost = {}
        deadline = self._deadline()
        for i, worker in enumerate(self._workers):
            if i in self._unreported:
                continue
            try:
                rows[i], rewards[i], dones[i], infos[i], reset_info = worker.receive(deadline)
            except (WorkerLost, EnvironmentRaised) as error:
                lost[i] = str(error)
                continue
            self._failures[i] = 0
            if dones[i]:
                self.reset_infos[i] = reset_info
        for i, reason in lost.items():  # after the others, whose deadline is running
            self._unreported[i] = reason, self._replace(i, reason)
        for i in list(self._unreported):
            rewards[i] = self._reward_without_motion(i)
            reason, rows[i] = self._unreported[i]
            dones[i] = True
            infos[i] = {
                "worker_lost": reason,
                "TimeLimit.truncated": True,
                "terminal_observation": row_of(self._last, i),
            }
        self._unreported.clear()
        self._rewards = np.where(dones, np.float32(0.0), rewards)
        self._last = self._stack(rows)
        return self._last, rewards, dones, infos

    def close(self) -> None:
        """Ends the workers; one that does not end in time is killed."""
        for worker in self._workers:
            worker.send("close", None)
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        self._end_all()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """One picture per environment; None without `render_mode="rgb_array"`."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.env_method("render")

    def has_attr(self, attr_name: str) -> bool:
        """Whether every environment has an attribute."""
        return all(self._call("has_attr", attr_name, None))

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the chosen environments."""
        return self._call("get_attr", attr_name, indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of the chosen environments; a replacement starts without it."""
        self._call("set_attr", (attr_name, value), indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the chosen environments.

        Raises:
            RuntimeError: If the method raises, with its traceback.
        """
        return self._call("env_method", (method_name, method_args, method_kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Whether the chosen environments have a wrapper."""
        return self._call("is_wrapped", wrapper_class, indices)

    def get_state(self) -> State | None:
        """Environments and running episodes, or None where an environment has no state.

        It is also None between the loss of a worker and the step that reports it.
        """
        if self._last is None or not self.has_attr("get_full_state"):
            return None
        envs = self.env_method("get_full_state")
        if self._unreported or any(state is None for state in envs):
            return None
        return {
            "envs": envs,
            "last": self._last,
            "rewards": self._rewards,
            "seed": self._seed,
            "restarts": self._restarts.copy(),
        }

    def set_state(self, state: State) -> None:
        """Continues from `get_state()`, bit for bit.

        Raises:
            ValueError: If the environments cannot restore a state.
            RuntimeError: If an environment refuses its state.
        """
        if not self.has_attr("set_full_state"):
            raise ValueError("the environments cannot restore a state: they have no set_full_state")
        for i, env_state in enumerate(state["envs"]):
            self.env_method("set_full_state", env_state, indices=[i])
        self._unreported.clear()
        self._last = state["last"]
        self._rewards = np.array(state["rewards"], np.float32)
        self._seed = state["seed"]
        self._restarts = np.array(state["restarts"], np.int64)

    def _call(self, command: str, argument: Any, indices: Any) -> list[Any]:
        chosen: list[int] = list(self._get_indices(indices))
        for i in chosen:
            self._workers[i].send(command, argument)
        return [self._result(i, command, argument) for i in chosen]

    def _result(self, i: int, command: str, argument: Any) -> Any:
        """The result of what was sent; from its replacement if the worker is lost."""
        while True:
            try:
                return self._workers[i].receive(self._deadline())
            except WorkerLost as error:
                self._unreported[i] = str(error), self._replace(i, str(error))
                self._workers[i].send(command, argument)
            except EnvironmentRaised as error:
                kind = AttributeError if command == "get_attr" else RuntimeError
                raise kind(f"environment {i}: {command} of {argument!r:.80}: {error}") from None

    def _replace(self, i: int, reason: str, options: dict[str, Any] | None = None) -> Any:
        """Replaces a worker by a new process; returns the first observation of its episode."""
        while True:
            self._workers[i].end()
            self._failures[i] += 1
            if self._failures[i] >= MOST_LOSSES:
                raise EnvironmentFailed(
                    f"the worker of environment {i} was lost {MOST_LOSSES} times without a step "
                    f"between; the last time {reason}"
                )
            self.workers_lost += 1
            self._restarts[i] += 1
            try:
                self._workers[i] = Worker(self._factories[i])
                self._workers[i].receive(time.monotonic() + _START_TIMEOUT_S)
                self._workers[i].send("reset", (self._restart_seed(i), options))
                first, self.reset_infos[i] = self._workers[i].receive(self._deadline())
                break
            except (WorkerLost, EnvironmentRaised) as error:
                reason = str(error)
        warnings.warn(
            f"the worker of environment {i} was replaced and its episode cut, because {reason}",
            stacklevel=2,
        )
        return first

    def _restart_seed(self, i: int) -> int | None:
        if self._seed is None:
            return None
        sequence = np.random.SeedSequence([self._seed, i, int(self._restarts[i])])
        return int(sequence.generate_state(1)[0])

    def _started(self, i: int, worker: Worker) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        try:
            found: tuple[Any, Any] = worker.receive(time.monotonic() + _START_TIMEOUT_S)
        except (WorkerLost, EnvironmentRaised) as error:
            raise EnvironmentFailed(f"environment {i} cannot be built: {error}") from None
        return found

    def _reward_without_motion(self, i: int) -> float:
        if is_goal_space(self.observation_space) and self._call("has_attr", "compute_reward", i)[0]:
            goals = [self._last[key][i : i + 1] for key in ("achieved_goal", "desired_goal")]
            return float(np.ravel(self.env_method("compute_reward", *goals, {}, indices=i)[0])[0])
        return float(self._rewards[i])

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    def _stack(self, rows: Sequence[Any]) -> Observation:
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {
                key: np.array([row[key] for row in rows], part.dtype)
                for key, part in space.spaces.items()
            }
        return np.array(rows, space.dtype)


def _end(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.end()


def row_of(batch: Any, i: int) -> Any:
    """Row `i` of an array `(N, ...)`, or of each array of a dict."""
    if isinstance(batch, dict):
        return {key: value[i] for key, value in batch.items()}
    return batch[i]
