"""Figures of a latent model: reconstructions, samples, and how latents are distributed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlkit.analysis.latent.scores import distances
from rlkit.experiment.plots import COLOURS, COLUMNS, image_grid, remove_spines
from rlkit.latents import FittedLatent, active_units, kl_per_dim

Array = NDArray[np.floating[Any]]
Images = NDArray[Any]
_TRAVERSED = 10  # dimensions
_REACH = 2.5  # standard deviations to either side
_USED, _IDLE = COLOURS[0], "#c9c9c6"


def reconstructions(latent: FittedLatent, images: Images) -> Figure:
    """Images `(N, H, W, C)` above their reconstructions, two blocks of 12."""
    chosen = images[np.linspace(0, len(images) - 1, 2 * COLUMNS).astype(int)]
    shown = latent.decode(latent.encode(chosen))
    rows = [
        *(chosen[:COLUMNS] / 255, shown[:COLUMNS]),
        *(chosen[COLUMNS:] / 255, shown[COLUMNS:]),
    ]
    return image_grid(rows, ["image", "decoded"] * 2, "Held-out images and their reconstructions")


def prior_samples(latent: FittedLatent, latents: Array, deviations: Array, seed: int = 0) -> Figure:
    """Decoded random latents; without a prior, from a Gaussian fitted to the latents."""
    rng = np.random.default_rng(seed)
    count = 4 * COLUMNS
    z = rng.standard_normal((count, latent.dims))
    title = "Decoded samples of the prior N(0, 1)"
    if not (deviations > 0).all():
        mean, covariance = latents.mean(0), np.atleast_2d(np.cov(latents.T))
        z = rng.multivariate_normal(mean, covariance, count)
        title = "No prior: decoded samples of a Gaussian fitted to the latents"
    shown = latent.decode(z.astype(np.float32))
    return image_grid(list(shown.reshape(4, COLUMNS, *latent.shape)), [""] * 4, title)


def traversals(latent: FittedLatent, latents: Array, deviations: Array) -> Figure:
    """What changes along each dimension, around the held-out image nearest to the mean."""
    amount, name = _amounts(latents, deviations)
    order = np.argsort(-amount)[:_TRAVERSED]
    scale = latents.std(0)
    offset = (latents - latents.mean(0)) / (scale + 1e-9)
    middle = latents[np.argmin((offset**2).sum(1))]
    steps = np.linspace(-_REACH, _REACH, COLUMNS - 1)
    rows = []
    for dim in order:
        z = np.repeat(middle[None], len(steps), 0)
        z[:, dim] = latents[:, dim].mean() + steps * scale[dim]
        rows.append(latent.decode(z.astype(np.float32)))
    labels = [f"{dim}: {amount[dim]:.2g}" for dim in order]
    return image_grid(
        rows,
        labels,
        f"One dimension at a time, from {-_REACH:g} to {_REACH:g} deviations (beside: {name})",
    )


def dimensions(latents: Array, deviations: Array) -> Figure:
    """How much each dimension is used: divergence from the prior, or variance without one."""
    amount, name = _amounts(latents, deviations)
    has_prior = bool((deviations > 0).all())
    used = active_units(latents) if has_prior else np.ones(len(amount), np.bool_)
    order = np.argsort(-amount)
    figure, axes = _axes((max(5.0, 2 + 0.28 * len(order)), 3.6))
    axes.bar(
        range(len(order)), amount[order], color=[_USED if used[dim] else _IDLE for dim in order]
    )
    axes.set_xticks(range(len(order)), [str(dim) for dim in order], fontsize=8)
    title = f"{len(order)} dimensions"
    if has_prior:
        title = f"{used.sum()} of {len(used)} active (blue), {amount.sum():.1f} nats in all"
    axes.set(xlabel="dimension of the latent", ylabel=name, title=title)
    remove_spines(axes)
    return figure


def distance_figure(latents: Array, truth: Array, name: str) -> Figure:
    """Distances between latents against true distances, for random pairs."""
    near, far, correlation = distances(latents, truth)
    figure, axes = _axes((5.2, 4.2))
    axes.scatter(far, near, s=5, color=_USED, alpha=0.25, linewidths=0)
    edges = np.quantile(far, np.linspace(0, 1, 13))
    bins = np.searchsorted(edges[1:-1], far)
    middles = [(np.median(far[bins == i]), np.median(near[bins == i])) for i in np.unique(bins)]
    axes.plot(*np.transpose(middles), color=COLOURS[1], linewidth=2, label="median")
    axes.set(
        xlabel=f"true distance: {name}",
        ylabel="distance between latents",
        title=f"Distances of latents and true distances: Spearman {correlation:.2f}",
    )
    axes.set_ylim(0, None)
    axes.legend(frameon=False, loc="lower right")
    remove_spines(axes)
    return figure


def embedding(latents: Array, truth: Array | None, name: str) -> Figure:
    """The first two principal components of latents, coloured by up to four true numbers."""
    centred = latents - latents.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    share = (lengths[:2] ** 2).sum() / (lengths**2).sum()
    flat = centred @ directions[:2].T
    if flat.shape[1] == 1:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    count = 1 if truth is None else min(4, truth.shape[1])
    figure = Figure(figsize=(0.6 + 3.6 * count, 3.9), dpi=100, layout="constrained")
    for i in range(count):
        axes = figure.add_subplot(1, count, i + 1)
        style: dict[str, Any] = {"color": _USED}
        if truth is not None:
            style = {"c": truth[:, i], "cmap": "viridis"}
        drawn = axes.scatter(flat[:, 0], flat[:, 1], s=7, linewidths=0, **style)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="component 1", ylabel="component 2" if i == 0 else "")
        if truth is not None:
            bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
            bar.outline.set_visible(False)
            axes.set_title(f"{name}, number {i}", fontsize=10)
        remove_spines(axes)
    figure.suptitle(f"First two principal components of latents ({share:.0%} of their variance)")
    return figure


def _amounts(latents: Array, deviations: Array) -> tuple[Array, str]:
    if (deviations > 0).all():
        return kl_per_dim(latents, deviations), "KL in nats"
    return latents.var(0).astype(np.float64), "variance"


def _axes(size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    return figure, figure.add_subplot()
