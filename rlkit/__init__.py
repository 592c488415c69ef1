"""Reinforcement learning for goals, memory and imagination.

Importing this package imports nothing heavy: `rlkit.envs` must stay usable without torch.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rlkit-suite")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"
