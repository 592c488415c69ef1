"""Requests to stop a training: by signals to the process, or by another thread."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE_S = 5.0
"""Seconds in which a training has to notice a signal; schedulers kill after 30 or so."""


class NotHeeded(BaseException):
    """The step, update or picture in progress did not end within `PATIENCE_S` after a signal.

    Raised wherever the main thread is, so what was in progress is incomplete and must not be saved.
    """


class StopRequest:
    """Requests a training to stop after the round in progress, and to save first.

    It may be shared between threads.

    Attributes:
        reason: Name of the signal, or what `set` was given; None before the request.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str = "request") -> None:
        """Makes the request; a later one changes nothing."""
        self.reason = self.reason or reason

    def is_set(self) -> bool:
        """Whether the request was made."""
        return self.reason is not None

    def heeded(self) -> None:
        """Says that the training stops now: saving may take longer than `PATIENCE_S`."""
        if self.is_set() and threading.current_thread() is threading.main_thread():
            _set_alarm(0.0)


@contextlib.contextmanager
def stop_requests(stop: StopRequest | None = None) -> Iterator[StopRequest]:
    """Turns SIGINT, SIGTERM and SIGHUP into a stop request; a second signal ends the process.

    Only the main thread of a process can receive signals. In any other thread this installs
    nothing, and a training there is stopped by `stop.set()`.

    Args:
        stop: The request to use; a new one without.

    Raises:
        NotHeeded: In the body, if nobody calls `StopRequest.heeded` within `PATIENCE_S` after a
            signal.
    """
    request = StopRequest() if stop is None else stop
    signalled = False

    def receive(number: int, _: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            os._exit(128 + number)
        signalled = True
        request.set(signal.Signals(number).name)
        _set_alarm(PATIENCE_S)

    def interrupt(_: int, __: FrameType | None) -> None:
        raise NotHeeded

    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.Signals[name] for name in _SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                previous[number] = signal.signal(number, receive)
        if hasattr(signal, "SIGALRM"):
            previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield request
    finally:
        if previous:
            _set_alarm(0.0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # Windows has none
        signal.setitimer(signal.ITIMER_REAL, seconds)
