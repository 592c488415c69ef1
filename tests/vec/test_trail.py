import sys

import numpy as np

from rlkit.vec.trail import Trail


def test_a_training_that_never_seeds_again_keeps_little():
    trail, most = Trail(), 0
    trail.reset(0)
    for step in range(150_000):
        trail.step(np.zeros(2, np.float32))
        if step % 1000 == 0:
            most = max(most, sum(map(sys.getsizeof, trail.actions)))
    assert 4e6 < most < 8.1e6
    assert not trail.is_complete
    trail.reset(1)
    assert (trail.is_complete, trail.actions, trail.seed) == (True, [], 1)
