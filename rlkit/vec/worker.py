"""One environment in a process of its own: the parent's end, and the loop of the process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import gymnasium as gym
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import CloudpickleWrapper

Factory = Callable[[], gym.Env[Any, Any]]
_KILL_TIMEOUT_S = 2.0
_IMPORTED_IN = os.getpid()


class WorkerLost(Exception):
    """A worker's process has ended or does not answer; the message is a clause after "because"."""


class EnvironmentRaised(Exception):
    """The environment raised an exception; the message holds its traceback."""


class Worker:
    """The parent's end of one process.

    Its first answer, number 0, is unrequested: the observation and action space.

    Args:
        factory: Builds the environment.

    Attributes:
        process: The process.
    """

    def __init__(self, factory: Factory) -> None:
        context = _context()
        self._connection, theirs = context.Pipe()
        # A daemon: at exit Python would otherwise wait for a worker that hangs.
        self.process: Any = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, CloudpickleWrapper(factory)), daemon=True
        )
        self.process.start()
        theirs.close()
        self._number, self._sent = 0, time.monotonic()

    def send(self, command: str, argument: Any) -> None:
        """Sends a command; `receive` returns its result."""
        self._number, self._sent = self._number + 1, time.monotonic()
        with contextlib.suppress(OSError):  # `receive` raises, with the reason
            self._connection.send((self._number, command, argument))

    def receive(self, deadline: float) -> Any:
        """The result of the newest command.

        Raises:
            WorkerLost: If there is none until the deadline, or the process has ended.
            EnvironmentRaised: If the environment raised an exception.
        """
        try:
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                number, is_fine, answer = self._connection.recv()
                if number == self._number:  # results of older commands are discarded
                    break
            else:
                waited = time.monotonic() - self._sent
                raise WorkerLost(f"it gave no answer for {waited:.3g} s")
        except (EOFError, OSError):
            self.process.join(1.0)
            code = self.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            raise WorkerLost(f"its process ended {how}") from None
        if is_fine:
            return answer
        raise EnvironmentRaised(f"it raised an exception:\n{answer}")

    def end(self) -> None:
        """Kills the process if it is still running."""
        self.process.kill()
        self.process.join(_KILL_TIMEOUT_S)
        self._connection.close()


def _context() -> BaseContext:
    # A forked process inherits a fork server that is not its child, and cannot use it.
    is_forked = os.getpid() != _IMPORTED_IN
    if is_forked or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The server imports once, so a replacement starts in milliseconds.
    context.set_forkserver_preload(["__main__", __name__])
    return context


def _serve(connection: Connection, factory: CloudpickleWrapper) -> None:
    # A terminal or a scheduler signals the whole process group; the parent saves, then ends this.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        env = factory.var()
        connection.send((0, True, (env.observation_space, env.action_space)))
    except Exception:
        connection.send((0, False, traceback.format_exc()))
        return
    while True:
        try:
            number, command, argument = connection.recv()
        except (EOFError, OSError):
            return
        if command == "close":
            env.close()
            return
        try:
            connection.send((number, True, _COMMANDS[command](env, argument)))
        except Exception:
            connection.send((number, False, traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # an environment that hangs would never notice that the pipe is closed


def _step(env: gym.Env[Any, Any], action: Any) -> tuple[Any, ...]:
    observation, reward, terminated, truncated, info = env.step(action)
    done = bool(terminated or truncated)
    info["TimeLimit.truncated"] = truncated and not terminated
    reset_info = None
    if done:
        info["terminal_observation"] = observation
        observation, reset_info = env.reset()
    return observation, reward, done, info, reset_info


def _reset(env: gym.Env[Any, Any], argument: tuple[int | None, dict[str, Any] | None]) -> Any:
    seed, options = argument
    return env.reset(seed=seed, options=options) if options else env.reset(seed=seed)


def _call(env: gym.Env[Any, Any], argument: tuple[str, Sequence[Any], dict[str, Any]]) -> Any:
    name, args, kwargs = argument
    return env.get_wrapper_attr(name)(*args, **kwargs)


_COMMANDS: dict[str, Callable[[gym.Env[Any, Any], Any], Any]] = {
    "step": _step,
    "reset": _reset,
    "env_method": _call,
    "has_attr": lambda env, name: env.has_wrapper_attr(name),
    "get_attr": lambda env, name: env.get_wrapper_attr(name),
    "set_attr": lambda env, argument: setattr(env, *argument),
    "is_wrapped": is_wrapped,
}
