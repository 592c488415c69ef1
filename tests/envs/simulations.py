"""Checks that the tests of several environment families share."""

import numpy as np


def assert_rows_are_independent(simulation, uniforms, steps, act):
    """A batch of N must equal N batches of one, bit for bit, over a whole episode.

    Args:
        simulation: The simulation.
        uniforms: Random numbers of the reset, `(N, draws)`.
        steps: Length of the episode.
        act: Maps the batch's state to actions `(N, *action)`.
    """
    one_row = [slice(i, i + 1) for i in range(len(uniforms))]
    batch = simulation.initial(uniforms)
    rows = [simulation.initial(uniforms[i]) for i in one_row]
    for _ in range(steps):
        action = act(batch).astype(np.float32)
        batch = simulation.step(batch, action)
        rows = [simulation.step(row, action[i]) for row, i in zip(rows, one_row, strict=True)]
    for key, value in batch.items():
        assert value.tobytes() == np.concatenate([row[key] for row in rows]).tobytes()


def assert_image_changes(simulation, state, action):
    """The image must be RGB, and change with a step."""
    before = simulation.render(state, 96)
    after = simulation.render(simulation.step(state, action), 96)
    assert before.shape == (96, 96, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
