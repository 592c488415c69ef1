import numpy as np
import pytest
import torch
from discs import discs

from rlkit.latents import PCA


def correlated(count, width, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * 0.7 ** np.arange(width)[:, None]
    return (rng.normal(size=(count, width)) @ mixing + rng.normal(size=width)).astype(np.float32)


def exact(frames, dims):
    """Mean, components `(D, F)` and deviations by a singular value decomposition."""
    flat = frames.reshape(len(frames), -1).astype(np.float64)
    flat = flat / 255 if frames.dtype == np.uint8 else flat
    _, values, directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return flat.mean(0), directions[:dims], values[:dims] / np.sqrt(len(flat))


def solved(frames, **settings):
    model = PCA(**settings).with_shape(frames.shape[1:])
    return model, model.solve(frames)


def test_vectors_match_a_singular_value_decomposition():
    frames = correlated(1500, 12)
    model, vector = solved(frames, dims=5)
    mean, components, deviations = exact(frames, 5)
    p = {name: view.numpy() for name, view in model.views(vector).items()}
    np.testing.assert_allclose(p["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(p["scales"], deviations, rtol=1e-4)
    np.testing.assert_allclose(np.abs(p["components"] @ components.T), np.eye(5), atol=1e-4)


@pytest.mark.slow
def test_images_too_wide_for_a_covariance_match_one_as_well():
    frames, _ = discs(600, seed=0)
    model, vector = solved(frames, dims=6)
    mean, components, deviations = exact(frames, 6)
    p = {name: view.numpy() for name, view in model.views(vector).items()}
    np.testing.assert_allclose(p["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(p["scales"], deviations, rtol=1e-3)
    overlap = np.linalg.svd(p["components"] @ components.T)[1]
    assert np.degrees(np.arccos(overlap.min().clip(max=1))) < 1.0


def test_whitened_latents_have_unit_scale_and_others_their_own():
    frames = correlated(2000, 8)
    model, vector = solved(frames, dims=4)
    latents, scale = model.encode(vector, torch.from_numpy(frames))
    torch.testing.assert_close(latents.T.cov(correction=0), torch.eye(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    assert not scale.any()
    model, vector = solved(frames, dims=4, whiten=False)
    plain, _ = model.encode(vector, torch.from_numpy(frames))
    np.testing.assert_allclose(plain.std(0, correction=0), exact(frames, 4)[2], rtol=1e-3)


@pytest.mark.parametrize("whiten", [True, False])
def test_all_components_lose_nothing(whiten):
    frames = correlated(300, 6)
    model, vector = solved(frames, dims=6, whiten=whiten)
    x = torch.from_numpy(frames)
    torch.testing.assert_close(
        model.decode(vector, model.encode(vector, x)[0]), x, atol=1e-4, rtol=0
    )


def test_the_loss_is_the_variance_that_is_left():
    frames = correlated(1000, 9)
    model, vector = solved(frames, dims=3)
    loss, metrics = model.loss(vector, torch.from_numpy(frames), torch.Generator(), 0)
    left = (exact(frames, 9)[2][3:] ** 2).sum()
    assert float(loss) == pytest.approx(left, rel=1e-3)
    assert float(metrics["error"]) == pytest.approx(left / 9, rel=1e-3)


def test_directions_without_variance_stay_small():
    rng = np.random.default_rng(0)
    frames = np.outer(rng.normal(size=200), rng.normal(size=6)).astype(np.float32)
    model, vector = solved(frames, dims=4)
    latents, _ = model.encode(vector, torch.from_numpy(frames))
    assert latents[:, 0].std() == pytest.approx(1.0, rel=1e-2)
    assert latents[:, 1:].abs().max() < 0.1


@pytest.mark.slow
def test_a_solution_is_the_same_every_time_and_from_a_memory_map(tmp_path):
    frames, _ = discs(300, seed=1)
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    vectors = [solved(one, dims=3)[1] for one in (frames, frames, mapped)]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])
    assert torch.equal(vectors[0], solved(torch.from_numpy(frames), dims=3)[1])


def test_more_components_than_numbers_are_refused():
    with pytest.raises(ValueError, match=r"observations of 4 numbers have at most 4 .*dims <= 4"):
        PCA(dims=5).with_shape((4,))


def test_decoded_images_stay_in_range():
    frames, _ = discs(100, seed=2)
    model, vector = solved(frames, dims=4)
    y = model.decode(vector, 20 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert y.shape == (8, 32, 32, 3)
    assert y.min() == 0.0
    assert y.max() == 1.0
