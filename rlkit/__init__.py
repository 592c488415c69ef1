"""Goal-conditioned, recurrent and model-based reinforcement learning.

Importing this package imports nothing heavy: `rlkit.envs` must stay usable without torch.
"""

from rlkit.version import VERSION as __version__

__all__ = ["__version__"]
