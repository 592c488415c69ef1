"""Checks of an agent's arguments that are no settings of its learner."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import torch

LEAST = {
    "buffer_size": 1,
    "learning_starts": 0,
    "gradient_steps": -1,
    "random_action_repeat": 1,
    "stats_window_size": 1,
    "seed": 0,
    "verbose": 0,
}
"""The least value of arguments that are whole numbers."""
UNITS = ("step", "episode")


def check_arguments(**given: Any) -> None:
    """Refuses arguments of another type or out of range, by name.

    Raises:
        ValueError: If one is wrong; the message names it, its value and what is allowed.
    """
    for name, least in LEAST.items():
        value: Any = given.get(name)
        if value is None and name == "seed":
            continue
        if not _is_whole(value) or value < least:
            raise ValueError(f"{name} = {value!r} must be a whole number >= {least}")
    frequency = given["train_freq"]
    number, unit = frequency if isinstance(frequency, tuple | list) else (frequency, "step")
    if not _is_whole(number) or number < 1 or unit not in UNITS:
        raise ValueError(
            f"train_freq = {frequency!r} must be a whole number of steps >= 1, or such a number "
            f'with its unit: (1, "episode")'
        )
    ratio = given["update_ratio"]
    if ratio is not None and not ratio > 0:
        raise ValueError(f"update_ratio must be positive, got {ratio}")


def device_of(device: torch.device | str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    "cuda" on a machine without any GPU is the CPU, with a warning: agents that were trained on a
    GPU are loaded elsewhere.

    Raises:
        ValueError: If it is not there; the message lists those that are.
    """
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device == "auto":
        return torch.device("cuda" if found else "cpu")
    if str(device) == "cuda" and not found:
        warnings.warn('device = "cuda", and there is no GPU here: using the CPU', stacklevel=2)
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # also a device that torch knows may not be there
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device = {str(device)!r} is not available here; available are "
            f"{', '.join(['auto', 'cpu', *found])}"
        ) from error
    return chosen


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
