import math

import numpy as np
import pytest
import torch

from rlkit.latents import PCA, Autoencoder, Denoising, FittedLatent


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(model, frames, steps=800, rates=(1e-2, 1e-3), batch_size=256):
    latent = FittedLatent(model.with_shape(frames.shape[1:]), generator())
    for rate in rates:
        metrics = list(
            latent.fit(
                frames,
                steps=steps,
                batch_size=batch_size,
                learning_rate=rate,
                generator=generator(1),
            )
        )
    return latent, metrics[-1]


def principal_angles(one, two):
    """Angles in degrees between the spans of the columns of two matrices."""
    bases = [np.linalg.qr(matrix)[0] for matrix in (one, two)]
    return np.degrees(np.arccos(np.linalg.svd(bases[0].T @ bases[1])[1].clip(max=1.0)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_linear_one_finds_the_subspace_of_the_principal_components(seed):
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(2000, 3)) * [3.0, 2.0, 1.5]
    frames = strong @ rng.normal(size=(3, 10)) + 0.3 * rng.normal(size=(2000, 10))
    frames = frames.astype(np.float32)
    linear, _ = fitted(Autoencoder(dims=3, linear=True), frames)
    principal, _ = fitted(PCA(dims=3), frames, rates=(1e-3,))
    decoder = linear.model.views(linear.vector)["decoder.0.weight"].numpy().T
    components = principal.model.views(principal.vector)["components"].numpy().T
    assert principal_angles(decoder, components).max() < 1.5
    untrained = FittedLatent(linear.model, generator())
    fresh = untrained.model.views(untrained.vector)["decoder.0.weight"].numpy().T
    assert principal_angles(fresh, components).max() > 15
    errors = [
        ((latent.decode(latent.encode(frames)) - frames) ** 2).mean()
        for latent in (linear, principal)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def circle(count, seed, width=8):
    """Points of a circle in a space of many dimensions, about 1 in each."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * math.pi, count)
    plane = np.random.default_rng(9).normal(size=(2, width))
    return (np.stack([np.cos(angle), np.sin(angle)], 1) @ plane).astype(np.float32)


@pytest.mark.slow
def test_denoising_takes_noise_away():
    latent, _ = fitted(Denoising(dims=2, hidden=(32,), noise=0.4), circle(2000, 0), steps=600)
    clean = circle(500, 1)
    noise = np.random.default_rng(2).normal(size=clean.shape).astype(np.float32)
    noisy = clean + 0.4 / latent.scale.numpy() * noise
    left = latent.decode(latent.encode(noisy)) - clean
    assert (left**2).mean() < 0.4 * ((noisy - clean) ** 2).mean()


def test_noise_is_encoded_and_the_clean_observation_decoded():
    x = torch.from_numpy(circle(64, 0))
    plain = Autoencoder(dims=2, hidden=()).with_shape((8,))
    noisy = Denoising(dims=2, hidden=(), noise=0.5).with_shape((8,))
    vector = plain.initial_parameters(generator())
    perturbed = x + 0.5 * torch.randn(x.shape, generator=generator(3))
    z, _ = plain.encode(vector, perturbed)
    loss, metrics = noisy.loss(vector, x, generator(3), 0)
    torch.testing.assert_close(loss, (plain.decode(vector, z) - x).square().sum(1).mean())
    torch.testing.assert_close(metrics["error"], loss / 8)
    assert not torch.equal(loss, plain.loss(vector, x, generator(3), 0)[0])
    torch.testing.assert_close(*(model.encode(vector, x) for model in (plain, noisy)))


def test_without_noise_chance_plays_no_part():
    model = Autoencoder(dims=2).with_shape((32, 32, 1))
    x = torch.randint(256, (4, 32, 32, 1), generator=generator(), dtype=torch.uint8)
    vector = model.initial_parameters(generator())
    source = generator(5)
    before = source.get_state()
    model.loss(vector, x, source, 0)
    assert torch.equal(source.get_state(), before)


def test_the_loss_sums_over_pixels_and_averages_over_rows():
    model = Autoencoder(dims=2).with_shape((32, 32, 3))
    x = torch.randint(256, (5, 32, 32, 3), generator=generator(), dtype=torch.uint8)
    vector = model.initial_parameters(generator())
    loss, _ = model.loss(vector, x, generator(), 0)
    y = model.decode(vector, model.encode(vector, x)[0])
    torch.testing.assert_close(loss, (y - x / 255).square().sum() / 5)


def test_squashed_latents_have_one_scale():
    frames = torch.rand(64, 8, generator=generator())
    model = Autoencoder(dims=4, squash=True).with_shape((8,))
    vector = 50 * model.initial_parameters(generator())
    latents, _ = model.encode(vector, frames)
    assert latents.abs().max() < 1
    before = latents.atanh()
    torch.testing.assert_close(before.mean(1), torch.zeros(64), atol=1e-3, rtol=0)
    torch.testing.assert_close(before.std(1, correction=0), torch.ones(64), atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match="squash"):
        Autoencoder(squash=1)
