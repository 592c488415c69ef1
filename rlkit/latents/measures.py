"""Measures of latents: what can be read from them, how many dimensions are used, distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
RIDGE = 1e-6
BINS = 20


def linear_probe(
    latents_train: Array, truth_train: Array, latents_test: Array, truth_test: Array
) -> NDArray[np.float64]:
    """How much of the truth a linear map predicts from held-out latents.

    Ridge regression on standardised latents, with a penalty so small that it only regularises
    unused dimensions.

    Args:
        latents_train: `(N, D)`, the map is fitted to these.
        truth_train: `(N, K)`; an angle belongs in as sine and cosine.
        latents_test: `(M, D)`, it is scored on these.
        truth_test: `(M, K)`.

    Returns:
        R2 of each true dimension `(K,)`; 1 is all of its variance, 0 no more than its mean.

    Raises:
        ValueError: If a true dimension does not vary in the test.
    """
    mean, deviation = latents_train.mean(0), latents_train.std(0) + 1e-12
    design, unseen = (
        np.column_stack([(latents - mean) / deviation, np.ones(len(latents))]).astype(np.float64)
        for latents in (latents_train, latents_test)
    )
    truth_train, truth_test = (np.asarray(t, np.float64) for t in (truth_train, truth_test))
    ridge = RIDGE * len(design) * np.eye(design.shape[1])
    weights = np.linalg.solve(design.T @ design + ridge, design.T @ truth_train)
    spread = ((truth_test - truth_test.mean(0)) ** 2).sum(0)
    if not (spread > 0).all():
        still = np.flatnonzero(~(spread > 0)).tolist()
        raise ValueError(f"the true dimensions {still} do not vary; leave them out of the probe")
    score: NDArray[np.float64] = 1 - ((unseen @ weights - truth_test) ** 2).sum(0) / spread
    return score


def active_units(means: Array, threshold: float = 0.01) -> NDArray[np.bool_]:
    """Which dimensions `(D,)` of latents `(N, D)` are used: their mean varies over the data.

    Source: Burda et al. 2016, section 4.2, with its threshold on the variance. It is for models
    with a unit prior; latents of others have no scale of their own.
    """
    active: NDArray[np.bool_] = means.var(0) > threshold
    return active


def kl_per_dim(mean: Array, scale: Array) -> NDArray[np.float64]:
    """Divergence from the standard normal in nats, per dimension `(D,)`, over latents `(N, D)`."""
    mean, scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
    divergence: NDArray[np.float64] = ((mean**2 + scale**2 - 1) / 2 - np.log(scale)).mean(0)
    return divergence


def disentanglement(latents: Array, truth: Array) -> float:
    """The mutual information gap: whether each true dimension lies in one dimension of the latent.

    For each true dimension, the mutual information with the best dimension of the latent, less
    that with the second best, as a share of its entropy; then the mean. 1 is perfect; latents whose
    dimensions are rotated by 45 degrees score 0.

    Source: Chen et al. 2018, equation 6, with latents in 20 bins as in Locatello et al. 2019. Here
    the bins hold equal counts instead of being equally wide, so that a
    rescaled latent scores the same.

    Args:
        latents: `(N, D)`; a few thousand rows, because chance agreement in bins counts as
            information.
        truth: `(N, K)`, continuous.

    Raises:
        ValueError: If there are fewer than two dimensions to compare, or a true one is constant.
    """
    if latents.shape[1] < 2:
        raise ValueError(f"a gap needs two dimensions or more, got latents {latents.shape}")
    binned = [_bins(column) for column in np.asarray(latents).T]
    gaps = []
    for k, column in enumerate(np.asarray(truth).T):
        bins = _bins(column)
        entropy = _information(bins, bins)
        if entropy == 0:
            raise ValueError(f"the true dimension {k} does not vary; leave it out")
        first, second = sorted((_information(part, bins) for part in binned), reverse=True)[:2]
        gaps.append((first - second) / entropy)
    return float(np.mean(gaps))


def distance_correlation(latents: Array, truth: Array, pairs: NDArray[np.integer[Any]]) -> float:
    """Spearman's correlation of distances between latents with true distances, over pairs.

    Args:
        latents: `(N, D)`.
        truth: `(N, K)`, in one unit, metres say.
        pairs: Rows to compare, `(P, 2)`.

    Returns:
        In [-1, 1]; NaN where one of the distances is the same for all pairs.
    """
    one, two = np.asarray(pairs).T
    ranks = [_ranks(np.linalg.norm(rows[one] - rows[two], axis=1)) for rows in (latents, truth)]
    near, far = (rank - rank.mean() for rank in ranks)
    scale = np.sqrt((near**2).sum() * (far**2).sum())
    return float((near * far).sum() / scale) if scale > 0 else float("nan")


def _bins(values: Array) -> NDArray[np.int64]:
    """The bin of each value, in bins of equal counts; equal values share one."""
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    bins: NDArray[np.int64] = np.searchsorted(edges, values, side="right")
    return bins


def _information(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
    """Mutual information of two binned variables, in nats."""
    joint = np.zeros((BINS, BINS))
    np.add.at(joint, (one, two), 1)
    joint /= len(one)
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    occurs = joint > 0
    return float((joint[occurs] * np.log(joint[occurs] / independent[occurs])).sum())


def _ranks(values: Array) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return ranks


def nearness(near: Array, far: Array) -> tuple[float, float]:
    """The distance that separates near pairs from far ones best.

    Args:
        near: Distances between latents of observations that are near each other, `(M,)`.
        far: Distances between latents of any two observations, `(N,)`.

    Returns:
        The threshold, and its balanced accuracy: the mean share of pairs on the right side, 0.5
        without any separation and 1 with a perfect one.

    Raises:
        ValueError: If there are no pairs, or all distances are the same.
    """
    if len(near) == 0 or len(far) == 0:
        raise ValueError(f"pairs of both kinds are needed, got {len(near)} near, {len(far)} far")
    distances = np.unique(np.concatenate([near, far]).astype(np.float64))
    if len(distances) < 2:
        raise ValueError(
            f"all pairs of latents are {distances[0]:.6g} apart, so no distance separates them: "
            f"fit the latent model for longer, or with a lower beta"
        )
    between = (distances[1:] + distances[:-1]) / 2
    is_near = np.searchsorted(np.sort(near), between) / len(near)
    is_far = 1 - np.searchsorted(np.sort(far), between) / len(far)
    best = int(np.argmax(is_near + is_far))
    return float(between[best]), float((is_near[best] + is_far[best]) / 2)
