"""A report on a latent model: scores, figures and TensorBoard's projector, in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlkit.analysis.latent import plots as draw
from rlkit.analysis.latent.frames import Frames
from rlkit.analysis.latent.scores import scores
from rlkit.experiment.run_logger import EventFile, png
from rlkit.io.atomic_write import replace_file
from rlkit.latents import FittedLatent

REPORT = "report.json"
FIGURES = {"reconstructions", "prior_samples", "traversals", "distances"}  # not of every model
_THUMBNAILS = 1_000
_SPRITE_WIDTH = 8_192  # pixels; the most that the projector draws
# TensorBoard's projector reads this text; its proto class would need another dependency.
_PROJECTOR = """embeddings {{
  tensor_name: "latents"
  tensor_path: "projector_latents.tsv"
  metadata_path: "projector_factors.tsv"
  sprite {{
    image_path: "projector_images.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""


def write_report(folder: Path, latent: FittedLatent, frames: Frames) -> dict[str, Any]:
    """Evaluates a latent model on held-out frames.

    Args:
        folder: `report.json` and the figures are written here, and TensorBoard's events and
            projector files; those of an earlier report are replaced.
        latent: The latent.
        frames: Held out, `(N, H, W, C)`, with factors where they are known.

    Returns:
        The contents of `report.json`; see `rlkit.analysis.latent.scores.scores`.

    Raises:
        ValueError: If the frames have another shape than the latent's observations.
    """
    latents, deviations = latent.posterior(frames.images)
    found = scores(latent, frames, latents, deviations)
    figures = _figures(latent, frames, latents, deviations)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES - figures.keys():  # of an earlier report
        (folder / f"{name}.png").unlink(missing_ok=True)
    events = EventFile(folder)
    for name, figure in figures.items():
        events.add_figure(f"latent/{name}", figure, latent.steps, folder / f"{name}.png")
    events.sync()
    events.close()
    _write_projector(folder, frames, latents)
    replace_file(folder / REPORT, json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")
    return found


def _figures(
    latent: FittedLatent, frames: Frames, latents: NDArray[Any], deviations: NDArray[Any]
) -> dict[str, Figure]:
    figures = {"dimensions": draw.dimensions(latents, deviations)}
    if latent.decodes:
        figures |= {
            "reconstructions": draw.reconstructions(latent, frames.images),
            "prior_samples": draw.prior_samples(latent, latents, deviations),
            "traversals": draw.traversals(latent, latents, deviations),
        }
    if not frames.factors:
        return figures | {"embedding": draw.embedding(latents, None, "")}
    # The first factor is the position that the task is about.
    name, truth = next(iter(frames.factors.items()))
    known = _known(frames)
    return figures | {
        "distances": draw.distance_figure(latents[known], truth[known], name),
        "embedding": draw.embedding(latents[known], truth[known], name),
    }


def _known(frames: Frames) -> NDArray[np.bool_]:
    """The frames `(N,)` of which all factors are known."""
    known = np.ones(len(frames), np.bool_)
    for truth in frames.factors.values():
        known &= np.isfinite(truth).all(1)
    return known


def _write_projector(folder: Path, frames: Frames, latents: NDArray[Any]) -> None:
    height, width, _ = frames.images.shape[1:]
    # Only rows with factors: the projector cannot colour by a column with gaps.
    rows = np.flatnonzero(_known(frames))
    most = min(_THUMBNAILS, (_SPRITE_WIDTH // width) * (_SPRITE_WIDTH // height))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]
    columns = {
        f"{name} {k}": [f"{n:.5g}" for n in truth[rows, k]]
        for name, truth in frames.factors.items()
        for k in range(truth.shape[1])
    }
    names = ["frame", *columns]
    table = [list(row) for row in zip(map(str, rows), *columns.values(), strict=True)]
    written = {
        "projector_latents.tsv": _tsv([[f"{n:.6g}" for n in row] for row in latents[rows]]),
        # A single column has no header: the projector would read it as a frame.
        "projector_factors.tsv": _tsv([names, *table] if columns else table),
        "projector_images.png": png(_sprite(frames.images[rows])),
        "projector_config.pbtxt": _PROJECTOR.format(width=width, height=height).encode(),
    }
    for name, data in written.items():
        replace_file(folder / name, data)


def _sprite(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images `(N, H, W, C)` tiled into a square, as far as its width allows."""
    count, height, width, channels = images.shape
    across = min(int(np.ceil(np.sqrt(count))), _SPRITE_WIDTH // width)
    down = -(-count // across)
    sheet = np.full((down * height, across * width, 3), 255, np.uint8)
    for i, picture in enumerate(images):
        y, x = i // across * height, i % across * width
        shown = picture if channels == 3 else picture[..., :1]
        sheet[y : y + height, x : x + width] = shown
    return sheet


def _tsv(rows: list[list[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()
