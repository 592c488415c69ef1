"""A latent model examined: scores, figures and TensorBoard's view of its codes, in a folder."""

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
_THUMBNAILS = 1_000
_SPRITE_WIDTH = 8_192  # pixels; the most that the projector draws
# TensorBoard's projector reads this text; its proto class would ask for one more dependency.
_PROJECTOR = """embeddings {{
  tensor_name: "codes"
  tensor_path: "projector_codes.tsv"
  metadata_path: "projector_factors.tsv"
  sprite {{
    image_path: "projector_pictures.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""


def write_report(folder: Path, latent: FittedLatent, frames: Frames) -> dict[str, Any]:
    """Examines a latent on held-out frames.

    Args:
        folder: `report.json` and the figures are written here, and TensorBoard's events and
            projector files; what is there of an earlier report is replaced.
        latent: The latent.
        frames: Held out, `(N, H, W, C)`, with factors where they are known.

    Returns:
        What `report.json` says; see `rlkit.analysis.latent.scores.scores`.

    Raises:
        ValueError: If the frames have another shape than the latent's observations.
    """
    codes, deviations = latent.posterior(frames.pictures)
    found = scores(latent, frames, codes, deviations)
    figures = _figures(latent, frames, codes, deviations)
    folder.mkdir(parents=True, exist_ok=True)
    if "distances" not in figures:
        (folder / "distances.png").unlink(missing_ok=True)  # of an earlier report with factors
    events = EventFile(folder)
    for name, figure in figures.items():
        events.add_figure(f"latent/{name}", figure, latent.steps, folder / f"{name}.png")
    events.sync()
    events.close()
    _write_projector(folder, frames, codes)
    replace_file(folder / REPORT, json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")
    return found


def _figures(
    latent: FittedLatent, frames: Frames, codes: NDArray[Any], deviations: NDArray[Any]
) -> dict[str, Figure]:
    figures = {
        "reconstructions": draw.reconstructions(latent, frames.pictures),
        "prior_samples": draw.prior_samples(latent, codes, deviations),
        "traversals": draw.traversals(latent, codes, deviations),
        "dimensions": draw.dimensions(codes, deviations),
    }
    if not frames.factors:
        return figures | {"embedding": draw.embedding(codes, None, "")}
    # The first factor is the place of what the task is about.
    name, truth = next(iter(frames.factors.items()))
    known = _known(frames)
    return figures | {
        "distances": draw.distance_figure(codes[known], truth[known], name),
        "embedding": draw.embedding(codes[known], truth[known], name),
    }


def _known(frames: Frames) -> NDArray[np.bool_]:
    """The frames `(N,)` of which all factors are known."""
    known = np.ones(len(frames), np.bool_)
    for truth in frames.factors.values():
        known &= np.isfinite(truth).all(1)
    return known


def _write_projector(folder: Path, frames: Frames, codes: NDArray[Any]) -> None:
    height, width, _ = frames.pictures.shape[1:]
    # Only what has factors, for a column with gaps is no number to colour by.
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
        "projector_codes.tsv": _tsv([[f"{n:.6g}" for n in row] for row in codes[rows]]),
        # A single column stands without a name, or the projector would take that for a frame.
        "projector_factors.tsv": _tsv([names, *table] if columns else table),
        "projector_pictures.png": png(_sprite(frames.pictures[rows])),
        "projector_config.pbtxt": _PROJECTOR.format(width=width, height=height).encode(),
    }
    for name, data in written.items():
        replace_file(folder / name, data)


def _sprite(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures `(N, H, W, C)` side by side in rows, as many in one as there are rows at most."""
    count, height, width, channels = pictures.shape
    across = min(int(np.ceil(np.sqrt(count))), _SPRITE_WIDTH // width)
    down = -(-count // across)
    sheet = np.full((down * height, across * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // across * height, i % across * width
        shown = picture if channels == 3 else picture[..., :1]
        sheet[y : y + height, x : x + width] = shown
    return sheet


def _tsv(rows: list[list[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()
