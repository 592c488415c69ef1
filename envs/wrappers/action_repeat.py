"""Actions held for several steps.

The wrapper is part of `rlkit.goals`: vector environments use it, and import no environment.
"""

from rlkit.goals import ActionRepeat as ActionRepeat
