"""Pictures of a red disc on white, and where it is: what a small VAE can learn in seconds."""

import numpy as np

RADIUS = 3.5


def discs(count, seed, side=32):
    """Images `(N, S, S, 3)` uint8 and the discs' centres `(N, 2)` in pixels."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(RADIUS, side - RADIUS, (count, 2))
    pixels = np.arange(side) + 0.5
    across = pixels[None, None, :] - centres[:, 0, None, None]
    down = pixels[None, :, None] - centres[:, 1, None, None]
    cover = np.clip(RADIUS + 0.5 - np.hypot(across, down), 0, 1)[..., None]
    images = (1 - cover) * np.array([0.9, 0.9, 0.9]) + cover * np.array([0.8, 0.1, 0.1])
    return (255 * images).astype(np.uint8), centres
