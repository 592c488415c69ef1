"""One environment in a process of its own, with the interface of a single environment."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from rlkit.goals import simplify
from rlkit.vec.worker import EnvironmentRaised, Factory, Worker, WorkerLost

_START_TIMEOUT_S = 120.0  # importing an environment can take long on a busy machine
_CLOSE_TIMEOUT_S = 2.0


class SeparateEnv(gym.Env[Any, Any]):
    """An environment in a process of its own, so that a crash of it is an error here.

    Rendering is where environments crash: graphics libraries end a process without an exception.

    Args:
        factory: Builds the environment; cloudpickle must be able to pickle it.
        timeout_s: Seconds that it may take for one answer.
        check: Called before every reset and step; what it raises ends the wait.

    Raises:
        RuntimeError: If the environment cannot be built; later, if it raises, crashes or hangs.
    """

    def __init__(
        self, factory: Factory, timeout_s: float = 60.0, check: Callable[[], None] | None = None
    ) -> None:
        self._timeout_s, self._check = timeout_s, check
        self._worker = Worker(factory)
        try:
            self.observation_space, self.action_space = self._receive(_START_TIMEOUT_S)
            self.metadata = self._ask("get_attr", "metadata")
        except BaseException:
            self._worker.end()
            raise

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        self._stop_here()
        found: tuple[Any, dict[str, Any]] = self._ask("reset", (seed, options))
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        self._stop_here()
        found: tuple[Any, Any, bool, bool, dict[str, Any]] = self._call("step", action)
        return found

    def render(self) -> Any:
        """See `gymnasium.Env.render`."""
        return self._call("render")

    def close(self) -> None:
        """Ends the process."""
        self._worker.send("close", None)
        self._worker.process.join(_CLOSE_TIMEOUT_S)
        self._worker.end()

    def __str__(self) -> str:
        return "the environment"

    def _stop_here(self) -> None:
        if self._check is not None:
            self._check()

    def _call(self, method: str, *args: Any) -> Any:
        return self._ask("env_method", (method, args, {}))

    def _ask(self, command: str, argument: Any) -> Any:
        self._worker.send(command, argument)
        return self._receive(self._timeout_s)

    def _receive(self, seconds: float) -> Any:
        try:
            return self._worker.receive(time.monotonic() + seconds)
        except WorkerLost as error:
            raise RuntimeError(f"{error}") from None
        except EnvironmentRaised as error:
            line = str(error).strip().splitlines()[-1]
            raise RuntimeError(line.removeprefix("ValueError: ")) from None


def drawable_env(
    make: Callable[..., gym.Env[Any, Any]], env_id: str, options: dict[str, Any]
) -> gym.Env[Any, Any]:
    """The environment of an id, with `render_mode` among its options.

    It is in this module because a new process imports where its factory is defined, and nothing
    here takes long.

    Raises:
        ValueError: If the environment cannot be drawn.
    """
    try:
        return simplify(make(env_id, **options))
    except TypeError as error:
        if "render_mode" not in str(error):
            raise
        raise ValueError(
            "its __init__ takes no render_mode. Give it render_mode=None, and a method render() "
            'that returns an array (H, W, 3) for "rgb_array"; or train without videos: '
            "--set pictures.video_episodes=0"
        ) from error


def separate_env(
    factory: Factory, timeout_s: float = 60.0, check: Callable[[], None] | None = None
) -> gym.Env[Any, Any]:
    """A `SeparateEnv`, or the environment itself where no process can be started for it.

    That is so in a daemonic process, and if the factory cannot be pickled.
    """
    if multiprocessing.current_process().daemon:
        return factory()
    try:
        return SeparateEnv(factory, timeout_s, check)
    except (TypeError, AttributeError, pickle.PicklingError):
        return factory()
