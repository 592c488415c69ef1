import math

import numpy as np
import pytest
import torch
from scipy import stats

from rlkit.latents import (
    active_units,
    disentanglement,
    distance_correlation,
    kl_per_dim,
    linear_probe,
)


def places(count=4000, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2))


def rotated(latents, degrees):
    angle = math.radians(degrees)
    return latents @ np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )


def test_a_probe_reads_what_is_linear_and_no_more():
    truth = places(2000)
    rng = np.random.default_rng(1)
    mixed = rotated(truth, 30) * [100.0, 0.01] + [5.0, -3.0]
    latents = np.column_stack([mixed, rng.normal(size=(2000, 3)), np.zeros(2000)])
    wanted = np.column_stack([truth, truth[:, 0] ** 2, rng.normal(size=2000)])
    scores = linear_probe(latents[:1000], wanted[:1000], latents[1000:], wanted[1000:])
    np.testing.assert_allclose(scores[:2], 1.0, atol=1e-6)
    np.testing.assert_allclose(scores[2:], 0.0, atol=0.03)


def test_a_probe_is_scored_on_held_out_rows():
    rng = np.random.default_rng(0)
    latents, truth = rng.normal(size=(60, 50)), rng.normal(size=(60, 1))
    fitted = linear_probe(latents, truth, latents, truth)
    unseen = linear_probe(latents, truth, rng.normal(size=(60, 50)), rng.normal(size=(60, 1)))
    assert fitted > 0.7
    assert unseen < 0


def test_a_probe_reports_the_share_of_variance():
    truth = places(20_000)
    noise = np.random.default_rng(1).normal(size=truth.shape)
    latents = truth + noise * truth.std(0)  # as much noise as signal
    half = slice(10_000), slice(10_000, None)
    scores = linear_probe(latents[half[0]], truth[half[0]], latents[half[1]], truth[half[1]])
    np.testing.assert_allclose(scores, 0.5, atol=0.03)


def test_a_truth_that_does_not_vary_is_refused():
    latents = places(50)
    with pytest.raises(ValueError, match=r"true dimensions \[1\] do not vary"):
        linear_probe(latents, latents, latents, latents * [1, 0])
    with pytest.raises(ValueError, match="true dimension 1 does not vary"):
        disentanglement(latents, latents * [1, 0])
    with pytest.raises(ValueError, match=r"two dimensions or more, got latents \(50, 1\)"):
        disentanglement(latents[:, :1], latents)


def test_active_units_are_those_whose_mean_varies():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5000, 4)) * [1.0, 0.2, 0.05, 0.0] + [0.0, 1.0, 9.0, 9.0]
    assert active_units(means).tolist() == [True, True, False, False]
    assert active_units(means, threshold=0.1).tolist() == [True, False, False, False]


def test_divergence_per_dimension_averages_over_the_data():
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=(100, 3)), rng.uniform(0.1, 2.0, (100, 3))
    one = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(scale))
    exact = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(kl_per_dim(mean, scale), exact.numpy())


def test_a_disentangled_latent_scores_one_and_a_rotated_one_zero():
    truth = places()
    noise = np.random.default_rng(1).normal(size=(4000, 3))
    perfect = np.column_stack([noise, truth[:, ::-1] * [-3.0, 0.1]])
    assert disentanglement(perfect, truth) > 0.95
    assert disentanglement(np.column_stack([rotated(truth, 45), noise]), truth) < 0.05
    scores = [disentanglement(rotated(truth, degrees), truth) for degrees in (0, 5, 15, 30, 45)]
    assert scores == sorted(scores, reverse=True)
    assert disentanglement(noise, truth) < 0.05


def test_disentanglement_is_about_information_not_scale():
    truth = places()
    stretched = np.column_stack([np.exp(3 * truth[:, 0]), -(truth[:, 1] ** 3)])
    assert disentanglement(stretched, truth) == pytest.approx(disentanglement(truth, truth))
    twice = np.column_stack([truth[:, 0], truth[:, 0], truth[:, 1], truth[:, 1]])
    assert disentanglement(twice, truth) == pytest.approx(0.0)
    assert disentanglement(np.column_stack([truth, np.zeros(4000)]), truth) > 0.95


def test_distances_are_compared_by_rank():
    truth = places(500)
    pairs = np.random.default_rng(1).integers(0, 500, (3000, 2))
    assert distance_correlation(rotated(truth, 70) * 9 + 4, truth, pairs) == pytest.approx(1.0)
    assert abs(distance_correlation(places(500, seed=3), truth, pairs)) < 0.1
    coarse = np.round(truth * 2)
    distances = [np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1) for x in (coarse, truth)]
    expected = stats.spearmanr(*distances).statistic
    assert distance_correlation(coarse, truth, pairs) == pytest.approx(expected)
    assert math.isnan(distance_correlation(np.zeros((500, 2)), truth, pairs))
