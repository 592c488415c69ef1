"""Scores of a latent model on held-out frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlkit.analysis.latent.frames import Frames
from rlkit.latents import (
    LATENTS,
    FittedLatent,
    active_units,
    disentanglement,
    distance_correlation,
    kl_per_dim,
    linear_probe,
)

NEIGHBOURS = 8
PAIRS = 4_000
_CHUNK = 256
_SECONDS = 0.2  # that each throughput is measured for
Array = NDArray[np.floating[Any]]


def scores(
    latent: FittedLatent, frames: Frames, latents: Array, deviations: Array
) -> dict[str, Any]:
    """All scores, as JSON values.

    `error` is the mean squared error of a number in [0, 1], `explained` the share of the images'
    variance that is explained; both are None without a decoder. Under `factors`, two probes predict
    the true factors from latents; each is fitted to the first half of the frames and scored by its
    R2 on the second.

    Args:
        latent: The latent.
        frames: Held out, `(N, H, W, C)`.
        latents: Their mean latents `(N, D)`.
        deviations: Those of the latents `(N, D)`; 0 where the model has none.
    """
    error, explained = _reconstruction(latent, frames) if latent.decodes else (None, None)
    has_prior = bool((deviations > 0).all())
    return {
        "model": LATENTS.describe(latent.model),
        "shape": list(latent.shape),
        "version": latent.version,
        "steps": latent.steps,
        "frames": len(frames),
        "error": error,
        "explained": explained,
        "active_units": int(active_units(latents).sum()) if has_prior else None,
        "kl_per_dim": kl_per_dim(latents, deviations).tolist() if has_prior else None,
        "variance_per_dim": latents.var(0).tolist(),
        "factors": {name: _factor(latents, truth) for name, truth in frames.factors.items()},
        "encoding": throughput(latent, frames),
    }


def neighbour_probe(
    latents_train: Array, truth_train: Array, latents_test: Array, truth_test: Array
) -> NDArray[np.float64]:
    """How well the nearest latents predict the truth, which need not be linear: R2 `(K,)`.

    The mean over the 8 nearest latents, weighted by one over their distance. Latents are not
    standardised: their own scale separates used dimensions from unused ones.

    Args:
        latents_train: `(N, D)`, whose truth is known.
        truth_train: `(N, K)`.
        latents_test: `(M, D)`.
        truth_test: `(M, K)`.
    """
    guess = np.empty(truth_test.shape)
    squares = (latents_train**2).sum(1)
    for start in range(0, len(latents_test), _CHUNK):
        rows = latents_test[start : start + _CHUNK]
        distance = squares - 2 * rows @ latents_train.T + (rows**2).sum(1, keepdims=True)
        near = np.argpartition(distance, min(NEIGHBOURS, len(latents_train)) - 1)[:, :NEIGHBOURS]
        squared = np.take_along_axis(distance, near, 1).clip(0)
        weight = 1 / (np.sqrt(squared) + 1e-6)
        weight /= weight.sum(1, keepdims=True)
        guess[start : start + _CHUNK] = (weight[..., None] * truth_train[near]).sum(1)
    spread = ((truth_test - truth_test.mean(0)) ** 2).sum(0)
    score: NDArray[np.float64] = 1 - ((guess - truth_test) ** 2).sum(0) / spread
    return score


def distances(latents: Array, truth: Array) -> tuple[Array, Array, float]:
    """Distances of latents and true ones `(P,)` of random pairs, and Spearman's correlation."""
    pairs = np.random.default_rng(0).integers(len(latents), size=(PAIRS, 2))
    one, two = pairs[pairs[:, 0] != pairs[:, 1]].T
    near, far = (np.linalg.norm(rows[one] - rows[two], axis=1) for rows in (latents, truth))
    return near, far, distance_correlation(latents, truth, np.stack([one, two], 1))


def throughput(latent: FittedLatent, frames: Frames) -> dict[str, Any]:
    """Frames per second through `encode`, and through its network alone.

    The network alone reads a batch of floats that is on the device; `encode` adds the checks, the
    conversion of bytes and the copies.
    """
    images = np.array(frames.images[:_CHUNK])
    floats = torch.from_numpy(images).to(latent.device).float() / 255
    network = getattr(latent.model, "encoder", None)

    def bare() -> None:
        with torch.no_grad():
            if network is None:
                latent.model.encode(latent.vector, floats)
            else:
                network(latent.vector[: network.size], floats)

    return {
        "frames_per_s": round(_rate(lambda: latent.encode(images), latent) * len(images)),
        "network_frames_per_s": round(_rate(bare, latent) * len(images)),
        "batch_size": len(images),
        "device": str(latent.device),
        "threads": torch.get_num_threads(),
    }


def _rate(call: Callable[[], Any], latent: FittedLatent) -> float:
    def wait() -> None:
        if latent.device.type == "cuda":
            torch.cuda.synchronize(latent.device)

    call()
    wait()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        call()
        wait()
        calls += 1
    return calls / (time.perf_counter() - began)


def _reconstruction(latent: FittedLatent, frames: Frames) -> tuple[float, float]:
    """Mean squared error, and the share of variance that is explained."""
    mean = np.zeros(latent.shape)
    for start in range(0, len(frames), _CHUNK):
        mean += frames.images[start : start + _CHUNK].sum(0, dtype=np.float64) / 255 / len(frames)
    error = variance = 0.0
    for start in range(0, len(frames), _CHUNK):
        rows = frames.images[start : start + _CHUNK]
        shares = rows / np.float32(255)
        error += float(((latent.decode(latent.encode(rows)) - shares) ** 2).sum(dtype=np.float64))
        variance += float(((shares - mean) ** 2).sum())
    numbers = len(frames) * mean.size
    return error / numbers, 1 - error / variance if variance else 0.0


def _factor(latents: Array, truth: Array) -> dict[str, Any]:
    known = np.isfinite(truth).all(1)
    latents, truth = latents[known].astype(np.float64), truth[known]
    half = len(truth) // 2
    varies = (truth[:half].std(0) > 0) & (truth[half:].std(0) > 0)
    truth = truth[:, varies]
    found: dict[str, Any] = {"varies": varies.tolist(), "disentanglement": None}
    if not varies.any():
        return found | {"linear_r2": [], "neighbour_r2": [], "distance_correlation": None}
    halves = latents[:half], truth[:half], latents[half:], truth[half:]
    if latents.shape[1] > 1:
        found["disentanglement"] = disentanglement(latents, truth)
    *_, correlation = distances(latents, truth)
    return found | {
        "linear_r2": linear_probe(*halves).tolist(),
        "neighbour_r2": neighbour_probe(*halves).tolist(),
        "distance_correlation": correlation if np.isfinite(correlation) else None,
    }
