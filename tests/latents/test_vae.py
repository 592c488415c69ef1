import math

import numpy as np
import pytest
import torch
from discs import discs

from rlkit.latents import VAE, FittedLatent, active_units, kl_per_dim, linear_probe
from rlkit.latents.vae import LEAST_VARIANCE, divergence

WIDE = torch.linspace(
    -9, 9, 6001, dtype=torch.float64
)  # the prior, and every latent below, ends here
STEP = float(WIDE[1] - WIDE[0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(model):
    vector = model.initial_parameters(generator(3))
    return vector + 0.3 * torch.randn(vector.shape, generator=generator(4))


def log_normal(x, mean, deviation):
    return -(((x - mean) / deviation) ** 2) / 2 - math.log(2 * math.pi) / 2 - np.log(deviation)


def log_likelihood(model, vector, x):
    """log p(x | z) of one observation at the points of the quadrature, in nats."""
    y = model.decode(vector, WIDE.float().unsqueeze(1)).double().flatten(1)
    x = (x / 255 if x.dtype == torch.uint8 else x).double().flatten()
    if model.bernoulli:
        return (x * y.log() + (1 - x) * (1 - y).log()).sum(1)
    variance = model.variance
    if variance is None:
        variance = math.exp(10 * float(model.views(vector)["tenth_log_variance"])) + LEAST_VARIANCE
    return -((x - y) ** 2).sum(1) / (2 * variance) - len(x) / 2 * math.log(2 * math.pi * variance)


TINY = {
    "linear": (VAE(dims=1, hidden=(), variance=0.5), (2,)),
    "one number": (VAE(dims=1, hidden=(), variance=0.2), (1,)),
    "nonlinear": (VAE(dims=1, hidden=(8,), variance=0.3), (2,)),
    "variance learned": (VAE(dims=1, hidden=(8,)), (2,)),
    "bernoulli": (VAE(dims=1, hidden=(), channels=(2, 2, 2), likelihood="bernoulli"), (32, 32, 1)),
    "image": (VAE(dims=1, hidden=(), channels=(2, 2, 2), variance=30.0), (32, 32, 1)),
}


@pytest.mark.parametrize("case", TINY)
def test_the_bound_is_what_quadrature_says(case):
    model, shape = TINY[case]
    model = model.with_shape(shape)
    vector = perturbed(model) if len(shape) == 1 else model.initial_parameters(generator(3))
    x = torch.randn(1, *shape, generator=generator(5))
    if len(shape) == 3:
        x = torch.randint(256, (1, *shape), generator=generator(5), dtype=torch.uint8)
    mean, scale = (float(value) for value in model.encode(vector, x))
    prior = log_normal(WIDE.numpy(), 0.0, 1.0)
    posterior = log_normal(WIDE.numpy(), mean, scale)
    given = log_likelihood(model, vector, x[0]).numpy()
    evidence = np.log((np.exp(given - given.max() + prior)).sum() * STEP) + given.max()
    weights = np.exp(posterior) * STEP
    bound = (weights * given).sum() - (weights * (posterior - prior)).sum()
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert bound < evidence

    rows = 2000 if len(shape) == 3 else 40_000
    with torch.no_grad():
        loss, metrics = model.loss(vector, x.expand(rows, *shape), generator(6), 0)
    spread = math.sqrt(max((weights * given**2).sum() - (weights * given).sum() ** 2, 0.0))
    assert float(-loss) == pytest.approx(
        bound, abs=5 * spread / math.sqrt(rows) + 1e-5 * abs(bound)
    )
    assert float(metrics["kl"]) == pytest.approx((weights * (posterior - prior)).sum(), rel=1e-3)
    assert float(metrics["reconstruction"] + metrics["kl"]) == pytest.approx(float(loss), rel=1e-5)


def test_the_bound_is_the_evidence_where_the_posterior_is_exact():
    model = VAE(dims=1, hidden=(), variance=0.25, initial_scale=1.0).with_shape((1,))
    vector = torch.zeros(model.size)
    p = model.views(vector)
    slope, variance = 0.8, 0.25
    precision = 1 + slope**2 / variance
    p["decoder.0.weight"].fill_(slope)
    p["encoder.0.weight"][0, 0] = slope / variance / precision
    wanted = precision**-0.5 - 1e-4
    p["encoder.0.bias"][0, 0, 1] = math.log(math.expm1(wanted)) - math.log(math.e - 1)
    x = torch.full((200_000, 1), 0.7)
    loss, _ = model.loss(vector, x, generator(), 0)
    evidence = log_normal(0.7, 0.0, math.sqrt(slope**2 + variance))
    assert float(-loss) == pytest.approx(evidence, abs=5e-3)


@pytest.mark.parametrize("scale", [0.03, 0.1, 1.0, 3.0])
def test_latents_start_with_the_initial_scale(scale):
    model = VAE(dims=4, initial_scale=scale).with_shape((5,))
    _, found = model.encode(torch.zeros(model.size), torch.randn(3, 5, generator=generator()))
    torch.testing.assert_close(found, torch.full((3, 4), scale), atol=2e-4, rtol=1e-3)


def test_the_divergence_is_what_sampling_says():
    mean = torch.tensor([[0.0, 1.5, -0.4, 0.2]])
    scale = torch.tensor([[1.0, 0.3, 2.0, 0.9]])
    z = mean + scale * torch.randn(400_000, 4, generator=generator())
    one, two = torch.distributions.Normal(mean, scale), torch.distributions.Normal(0.0, 1.0)
    sampled = (one.log_prob(z) - two.log_prob(z)).mean(0)
    torch.testing.assert_close(divergence(mean, scale)[0], sampled, atol=0.01, rtol=0)
    exact = torch.distributions.kl_divergence(one, two)
    torch.testing.assert_close(divergence(mean, scale), exact)


def terms(step=0, **settings):
    """Loss, reconstruction and divergence per dimension of a VAE on a few vectors."""
    model = VAE(dims=3, hidden=(8,), **settings).with_shape((5,))
    vector = perturbed(VAE(dims=3, hidden=(8,)).with_shape((5,)))[: model.size]
    x = torch.randn(16, 5, generator=generator())
    loss, metrics = model.loss(vector, x, generator(1), step)
    return float(loss), float(metrics["reconstruction"]), metrics["kl_per_dim"].numpy()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 20.0])
def test_beta_weighs_the_divergence(beta):
    loss, reconstruction, kl = terms(beta=beta)
    assert loss == pytest.approx(reconstruction + beta * kl.sum(), rel=1e-5)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (25, 0.25), (100, 1.0), (10_000, 1.0)])
def test_annealing_raises_the_weight_in_a_line(step, share):
    loss, reconstruction, kl = terms(step, beta=2.0, annealing=100)
    assert loss == pytest.approx(reconstruction + share * 2.0 * kl.sum(), rel=1e-5)


def test_free_bits_are_free_per_dimension():
    _, _, kl = terms()
    between = float(np.sort(kl)[:2].mean())
    loss, reconstruction, kl = terms(free_bits=between)
    assert (kl < between).sum() == 1
    assert loss == pytest.approx(reconstruction + np.maximum(kl, between).sum(), rel=1e-5)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (30, 0.3), (100, 1.0), (500, 1.0)])
def test_capacity_is_given_bit_by_bit(step, share):
    loss, reconstruction, kl = terms(step, beta=7.0, capacity=4.0, capacity_steps=100)
    wanted = reconstruction + 7.0 * abs(kl.sum() - share * 4.0)
    assert loss == pytest.approx(wanted, rel=1e-5)
    at_once, reconstruction, kl = terms(step, beta=7.0, capacity=4.0)
    assert at_once == pytest.approx(reconstruction + 7.0 * abs(kl.sum() - 4.0), rel=1e-5)


def wide(count, seed):
    """Vectors of 6 independent numbers."""
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


def fitted(model, frames, steps, learning_rate=3e-3, seed=0):
    latent = FittedLatent(model.with_shape(frames.shape[1:]), generator(seed))
    settings = {"steps": steps, "batch_size": 64, "learning_rate": learning_rate}
    *_, metrics = latent.fit(frames, **settings, generator=generator(seed + 1))
    return latent, metrics


@pytest.mark.slow
def test_a_fitted_latent_has_the_divergence_of_its_capacity():
    small = {"dims": 6, "hidden": (32,), "variance": 0.1}
    frames = wide(2000, 0)
    _, plain = fitted(VAE(**small), frames, 600)
    assert float(plain["kl"]) > 4.0
    held, _ = fitted(VAE(**small, beta=20.0, capacity=3.0), frames, 600)
    assert kl_per_dim(*held.posterior(frames)).sum() == pytest.approx(3.0, abs=0.3)
    _, crushed = fitted(VAE(**small, beta=100.0), frames, 600)
    assert float(crushed["kl"]) < 0.05
    spared, _ = fitted(VAE(**small, beta=100.0, free_bits=0.5), frames, 600)
    kept = kl_per_dim(*spared.posterior(frames))
    assert kept.min() > 0.2
    assert kept.max() < 0.7


@pytest.mark.slow
def test_unused_dimensions_fall_silent():
    plane = np.random.default_rng(1).normal(size=(2, 6))
    frames = (wide(2000, 0)[:, :2] @ plane).astype(np.float32)
    latent, _ = fitted(VAE(dims=5, hidden=(32,), variance=0.1), frames, 1000)
    mean, scale = latent.posterior(frames)
    active = active_units(mean)
    assert active.sum() == 2
    assert scale.mean(0)[~active].min() > 0.9
    assert scale.mean(0)[active].max() < 0.5


@pytest.mark.slow
def test_a_learned_variance_is_the_error_that_is_left():
    plane = np.random.default_rng(1).normal(size=(2, 6))
    rng = np.random.default_rng(2)
    frames = wide(4000, 0)[:, :2] @ plane + 0.5 * rng.normal(size=(4000, 6))
    latent, _ = fitted(VAE(dims=2, hidden=()), frames.astype(np.float32), 1500)
    x = torch.from_numpy(frames.astype(np.float32) - latent.shift.numpy()) * latent.scale
    _, metrics = latent.model.loss(latent.vector, x, generator(), 0)
    assert float(metrics["variance"]) == pytest.approx(float(metrics["error"]), rel=0.1)


@pytest.mark.slow
def test_images_are_decoded_by_both_likelihoods():
    frames, _ = discs(1000, seed=0)
    shown = {}
    for likelihood in ("gaussian", "bernoulli"):
        model = VAE(dims=8, likelihood=likelihood, channels=(8, 16, 16))
        latent, metrics = fitted(model, frames, 60, learning_rate=3e-3)
        shown[likelihood] = latent.decode(latent.encode(frames[:50]))
        average = (frames / 255).mean(0)
        assert 0 < float(metrics["error"]) < 1.5 * ((frames / 255 - average) ** 2).mean()
    for images in shown.values():
        assert images.shape == (50, 32, 32, 3)
        assert np.abs(images.mean(0) - average).mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_latents_of_images_hold_the_position_of_the_disc(seed):
    frames, _ = discs(3000, seed=10 + seed)
    model = VAE(dims=16, variance=0.01).with_shape((32, 32, 3))
    train, test = discs(1000, seed=20 + seed), discs(500, seed=30 + seed)

    def probe(latent):
        return linear_probe(latent.encode(train[0]), train[1], latent.encode(test[0]), test[1])

    untrained = probe(FittedLatent(model, generator(seed)))
    latent, _ = fitted(model, frames, 300, learning_rate=2e-3, seed=seed)
    trained = probe(latent)
    assert trained.min() > 0.8
    assert trained.min() > untrained.max() + 0.1
    assert trained.mean() > untrained.mean() + 0.2
