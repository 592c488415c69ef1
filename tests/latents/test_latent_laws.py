"""Every latent model keeps the laws, and each law is broken by a model made to break it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from contrastive import Contrastive

from rlkit.latents import LATENTS, PCA, VAE, Autoencoder, FittedLatent, check_latent
from rlkit.latents.check import LAWS, Observations

PRESETS = {
    "pca": PCA(dims=3),
    "pca as it lies": PCA(dims=3, whiten=False),
    "autoencoder": Autoencoder(dims=3),
    "linear": Autoencoder(dims=3, linear=True),
    "squashed": Autoencoder(dims=3, squash=True),
    "denoising": LATENTS.make({"name": "denoising", "dims": 3}),
    "vae": VAE(dims=3),
    "beta-vae": VAE(dims=3, beta=4.0, variance=0.05),
    "bernoulli": VAE(dims=3, likelihood="bernoulli"),
    "annealed": VAE(dims=3, annealing=1000),
    "free bits": VAE(dims=3, free_bits=0.5),
    "capacity": VAE(dims=3, capacity=5.0, capacity_steps=1000),
    "shallow": VAE(dims=3, hidden=()),
    "spatial": VAE(dims=3, spatial=True),
    "deep": VAE(dims=3, hidden=(16, 8), channels=(4, 8, 6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LATENTS.names())
def test_a_model_as_it_comes_keeps_the_laws(name):
    check_latent(LATENTS.make(name))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(32, 32, 3), (48, 48, 1)])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_the_laws_on_images(preset, shape):
    check_latent(PRESETS[preset].with_shape(shape))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 64, 6), (84, 84, 3)])
def test_large_images_keep_the_laws(shape):
    check_latent(VAE(dims=3).with_shape(shape))


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"bernoulli"}))
def test_presets_keep_the_laws_on_vectors(preset):
    model = PRESETS[preset]
    for width, seed in ((3, 0), (7, 1), (40, 2)):
        check_latent(model, Observations(model, rows=2 + seed, shape=(width,), seed=seed))


MISTAKES = {
    "scale missing": lambda mean, scale: (mean, scale[:, :1]),
    "scale negative": lambda mean, scale: (mean, -scale),
    "not a number": lambda mean, scale: (mean * torch.nan, scale),
    "normalised over rows": lambda mean, scale: (mean - mean.mean(0), scale),
    "latents are sampled": lambda mean, scale: (mean + scale * torch.randn(mean.shape), scale),
}


@dataclass(frozen=True)
class Spoilt(VAE):
    """A VAE with one mistake."""

    mistake: str = ""

    def with_shape(self, shape):
        if self.mistake == "shape forgotten":
            shape = (5,)
        return super().with_shape(shape)

    def initial_parameters(self, generator):
        vector = super().initial_parameters(generator)
        return vector[:-1] if self.mistake == "size wrong" else vector

    def encode(self, vector, x):
        if self.mistake == "observations centred in place":
            x.sub_(x.mean()) if x.is_floating_point() else x.sub_(1)
        if self.mistake == "bytes are not scaled":
            x = x.float()
        return MISTAKES.get(self.mistake, lambda *both: both)(*super().encode(vector, x))

    def decode(self, vector, z):
        y = super().decode(vector, z)
        if self.mistake == "channels first":
            return y.movedim(-1, 1)
        return 2 * y - 1 if self.mistake == "images in [-1, 1]" else y

    def loss(self, vector, x, generator, step):
        if self.mistake == "noise of its own":
            generator = torch.Generator().manual_seed(int(torch.randint(1000, ())))
        if self.mistake == "decoder detached":
            start = self.encoder.size
            vector = torch.cat([vector[:start], vector[start:].detach()])
        if self.mistake == "uphill":
            vector = 2 * vector.detach() - vector
        loss, metrics = super().loss(vector, x, generator, step)
        if self.mistake == "metrics attached":
            metrics["kl"] = loss / 2
        if self.mistake == "no reconstruction":
            del metrics["reconstruction"]
        if self.mistake == "per row":
            loss = loss.expand(len(x))
        return loss, metrics


@dataclass(frozen=True)
class Slow(Autoencoder):
    """An autoencoder whose latents change little from one observation to the next."""

    dims: int = 3

    reads_next: ClassVar[bool] = True

    def loss(self, vector, x, generator, step, next_x):
        loss, metrics = super().loss(vector, x, generator, step)
        step = self.encode(vector, next_x)[0] - self.encode(vector, x)[0]
        slowness = step.square().sum(1).mean()
        return loss + slowness, metrics | {"slowness": slowness.detach()}


@pytest.mark.slow
@pytest.mark.parametrize("model", [Contrastive(), Slow()], ids=["contrastive", "slow"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (7,)])
def test_models_that_compare_neighbours_keep_the_laws(model, shape):
    check_latent(model.with_shape(shape))


def test_a_loss_that_ignores_what_follows_is_found():
    with pytest.raises(ValueError, match="breaks the law 'a loss of neighbours reads them'"):
        check_latent(Contrastive(blind=True).with_shape((7,)))


def walks(episodes=20, steps=10):
    """Vectors `(N, 4)` of short random walks, and the row after each or -1."""
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(episodes, 1, 4)) + rng.normal(0, 0.1, (episodes, steps, 4)).cumsum(1)
    rows = np.arange(episodes * steps).reshape(episodes, steps) + 1
    rows[:, -1] = -1
    return walk.reshape(-1, 4).astype(np.float32), rows.ravel()


@pytest.mark.slow
def test_neighbours_of_one_episode_are_compared():
    frames, next_rows = walks()
    batches = []

    class Recording(Contrastive):
        def loss(self, vector, x, generator, step, next_x):
            batches.append((x, next_x))
            return super().loss(vector, x, generator, step, next_x)

    latent = FittedLatent(Recording(shape=(4,)), torch.Generator().manual_seed(0))
    fit = {"steps": 300, "batch_size": 16, "generator": torch.Generator().manual_seed(1)}
    losses = [float(m["loss"]) for m in latent.fit(frames, next_rows=next_rows, **fit)]
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert not latent.decodes
    with pytest.raises(ValueError, match="Recording has no decoder"):
        latent.decode(latent.encode(frames))
    standard = (frames - latent.shift.numpy()) * latent.scale.numpy()
    first = np.flatnonzero(next_rows >= 0)
    both = np.concatenate([standard[first], standard[next_rows[first]]], 1)
    pairs = {tuple(row) for row in both.round(4)}
    x, after = batches[0]
    assert {tuple(np.round(row, 4)) for row in torch.cat([x, after], 1).numpy()} <= pairs
    for wrong in (None, next_rows[:-1], np.full(len(frames), -1)):
        with pytest.raises(ValueError, match="Recording reads pairs of frames"):
            latent.fit(frames, next_rows=wrong, **fit)


@dataclass(frozen=True)
class SpoiltPCA(PCA):
    """Components whose closed form gives others."""

    def solve(self, frames):
        vector = super().solve(frames)
        self.views(vector)["components"].zero_()
        return vector


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("shape forgotten", "it has the shapes that it promises"),
        ("size wrong", "it has the shapes that it promises"),
        ("scale missing", "it has the shapes that it promises"),
        ("scale negative", "it has the shapes that it promises"),
        ("not a number", "it has the shapes that it promises"),
        ("channels first", "it has the shapes that it promises"),
        ("observations centred in place", "it never writes to what it reads"),
        ("latents are sampled", "latents are the same every time"),
        ("normalised over rows", "rows are separate"),
        ("bytes are not scaled", "images are bytes or floats in [0, 1]"),
        ("images in [-1, 1]", "images are bytes or floats in [0, 1]"),
        ("noise of its own", "the loss follows its generator"),
        ("metrics attached", "the loss follows its generator"),
        ("no reconstruction", "the loss follows its generator"),
        ("per row", "the loss follows its generator"),
        ("decoder detached", "gradients reach every parameter"),
        ("uphill", "fitting lowers the loss"),
    ],
)
def test_each_law_finds_the_model_that_breaks_it(mistake, law):
    model = Spoilt(dims=3, mistake=mistake)
    if mistake not in ("shape forgotten", "size wrong"):
        assert LAWS[law](Observations(model)) is not None
    with pytest.raises((ValueError, RuntimeError)):
        check_latent(model)


@pytest.mark.slow
def test_laws_are_broken_by_name():
    with pytest.raises(
        ValueError, match="Spoilt breaks the law 'rows are separate': latents of row"
    ):
        check_latent(Spoilt(dims=3, mistake="normalised over rows"))
    with pytest.raises(ValueError, match=r"Spoilt breaks .*promises': with_shape.* gave a model"):
        check_latent(Spoilt(dims=3, mistake="shape forgotten"))
    with pytest.raises(ValueError, match="SpoiltPCA breaks the law 'fitting lowers the loss'"):
        check_latent(SpoiltPCA(dims=2).with_shape((4,)))
    check_latent(Spoilt(dims=3))


def test_a_model_without_a_shape_says_so():
    with pytest.raises(ValueError, match=r"VAE has no shape.*with_shape\(\(4,\)\)"):
        VAE().encode(torch.zeros(0), torch.zeros(2, 4))
    model = replace(VAE(), shape=(3,))
    with pytest.raises(ValueError, match=r"shape \(4,\), VAE is configured for \(3,\)"):
        model.encode(torch.zeros(model.size), torch.zeros(2, 4))
