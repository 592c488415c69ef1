"""Requests to stop: a training that is asked to end saves first."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def stop_requests() -> Iterator[list[signal.Signals]]:
    """Collects requests to stop, for the end of the round; a second request ends at once."""
    received: list[signal.Signals] = []

    def receive(number: int, _: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(signal.Signals(number))

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous: dict[signal.Signals, Any] = {}
    for name in names:
        number = signal.Signals[name]
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            previous[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
