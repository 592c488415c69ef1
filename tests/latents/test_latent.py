import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from discs import discs
from safetensors.torch import load_file

from rlkit.io.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from rlkit.latents import PCA, VAE, Autoencoder, FittedLatent
from rlkit.networks import DivergenceError

SMALL = VAE(dims=3, hidden=(16,), channels=(4, 4, 4))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vectors(count=400, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) * [1, 10, 0.01, 1, 1] + [0, 50, -3, 0, 1]).astype("f4")


def fit(latent, frames, steps=20, seed=1, **settings):
    settings = {"batch_size": 32, "learning_rate": 1e-3, **settings}
    return list(latent.fit(frames, steps=steps, generator=generator(seed), **settings))


def images(shape=(32, 32, 3)):
    return FittedLatent(SMALL.with_shape(shape), generator())


def same(one, two):
    first, second = one.state_dict(), two.state_dict()
    assert first.keys() == second.keys()
    return all(
        torch.equal(value, second[name])
        if isinstance(value, torch.Tensor)
        else value == second[name]
        for name, value in first.items()
    )


def test_latents_keep_any_leading_axes():
    latent = images()
    frames, _ = discs(300, seed=0)
    latents = latent.encode(frames)
    assert latents.shape == (300, 3)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latent.encode(frames[7]), latents[7], atol=1e-5)
    windows = latent.encode(frames.reshape(5, 60, 32, 32, 3))
    assert windows.shape == (5, 60, 3)
    np.testing.assert_allclose(windows.reshape(300, 3), latents, atol=1e-5)
    assert latent.encode(frames[:0]).shape == (0, 3)
    mean, scale = latent.posterior(frames.reshape(5, 60, 32, 32, 3))
    np.testing.assert_array_equal(mean, windows)
    assert scale.shape == (5, 60, 3)
    assert scale.min() > 0


def test_tensors_give_tensors_and_arrays_arrays():
    latent = images()
    frames, _ = discs(4, seed=0)
    latents = latent.encode(torch.from_numpy(frames))
    assert isinstance(latents, torch.Tensor)
    assert not latents.requires_grad
    np.testing.assert_array_equal(latents.numpy(), latent.encode(frames))
    decoded = latent.decode(latents.view(2, 2, 3))
    assert decoded.shape == (2, 2, 32, 32, 3)
    np.testing.assert_array_equal(decoded.numpy(), latent.decode(latents.numpy().reshape(2, 2, 3)))


def test_vectors_are_standardised_and_shown_in_their_own_units():
    frames = vectors()
    latent = FittedLatent(PCA(dims=5).with_shape((5,)), generator())
    fit(latent, frames)
    np.testing.assert_allclose(latent.shift.numpy(), frames.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(1 / latent.scale.numpy(), frames.std(0), rtol=1e-3)
    latents = latent.encode(frames)
    np.testing.assert_allclose(np.cov(latents.T), np.eye(5), atol=0.02)
    np.testing.assert_allclose(latent.decode(latents), frames, rtol=1e-4, atol=1e-3)
    wide = latent.encode(frames.astype(np.float64))
    np.testing.assert_allclose(wide, latents, atol=1e-5)


def test_numbers_that_stand_still_do_no_harm():
    frames = vectors()
    frames[:, 1] = 1e6 / 3
    latent = FittedLatent(Autoencoder(dims=3, hidden=(8,)).with_shape((5,)), generator())
    fit(latent, frames)
    assert latent.scale[1] == 1.0
    assert np.isfinite(latent.encode(frames)).all()
    assert np.abs(latent.encode(frames)).max() < 100


def test_a_version_is_a_finished_fit():
    latent = images()
    frames, _ = discs(100, seed=0)
    assert latent.version == latent.steps == 0
    before = latent.vector.clone()
    started = latent.fit(frames, steps=5, batch_size=8, generator=generator())
    for _ in range(4):
        next(started)
        assert latent.version == 0
        assert torch.equal(latent.vector, before)
    started.close()
    assert latent.version == latent.steps == 0
    assert len(fit(latent, frames, steps=5)) == 5
    assert (latent.version, latent.steps) == (1, 5)
    assert not torch.equal(latent.vector, before)
    fit(latent, frames, steps=3)
    assert (latent.version, latent.steps) == (2, 8)


@pytest.mark.slow
def test_fitting_lowers_the_loss_and_reports_it():
    frames, _ = discs(500, seed=0)
    metrics = fit(images(), frames, steps=60, learning_rate=3e-3)
    assert metrics[0].keys() >= {"loss", "reconstruction", "kl", "kl_per_dim", "error"}
    assert all(not value.requires_grad for value in metrics[0].values())
    assert np.mean([m["loss"] for m in metrics[-10:]]) < np.mean([m["loss"] for m in metrics[:10]])


def test_schedules_go_on_where_the_last_fit_ended():
    frames = vectors()
    latent = FittedLatent(VAE(dims=2, hidden=(8,), annealing=100).with_shape((5,)), generator())
    for start in (0, 50):
        metrics = fit(latent, frames, steps=50)
        for step in (0, 49):
            one = metrics[step]
            share = (start + step) / 100
            total = one["reconstruction"] + share * one["kl"]
            assert float(one["loss"]) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [SMALL, PCA(dims=3), Autoencoder(dims=3, channels=(4, 4, 4), noise=0.1)]
)
def test_fits_repeat_and_go_on_exactly(model):
    frames, _ = discs(200, seed=0)
    one, two, three = (FittedLatent(model.with_shape((32, 32, 3)), generator(7)) for _ in range(3))
    for latent in (one, two):
        fit(latent, frames)
    assert same(one, two)
    three.load_state_dict(one.state_dict())
    assert same(one, three)
    for latent in (one, three):
        fit(latent, frames, seed=2)
    assert same(one, three)
    assert not same(one, two)


@pytest.mark.slow
def test_frames_may_lie_on_disk_or_in_tensors(tmp_path):
    frames, _ = discs(200, seed=0)
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    latents = [images() for _ in range(3)]
    for latent, source in zip(latents, (frames, mapped, torch.from_numpy(frames)), strict=True):
        fit(latent, source)
    assert same(latents[0], latents[1])
    assert same(latents[0], latents[2])
    np.testing.assert_array_equal(latents[0].encode(mapped), latents[0].encode(frames))


def test_a_state_is_a_copy():
    latent = images()
    state = latent.state_dict()
    state["vector"].zero_()
    assert latent.vector.any()
    latent.load_state_dict(kept := latent.state_dict())
    kept["vector"].zero_()
    assert latent.vector.any()


@pytest.mark.slow
@pytest.mark.parametrize("model", [SMALL, Autoencoder(dims=2, linear=True), PCA(dims=2)])
@pytest.mark.parametrize("shape", [(32, 32, 3), (5,)])
def test_what_is_saved_is_loaded(model, shape, tmp_path):
    frames = vectors() if shape == (5,) else discs(200, seed=0)[0]
    latent = FittedLatent(model.with_shape(shape), generator())
    fit(latent, frames)
    latent.save(tmp_path / "deep" / "latent")
    loaded = FittedLatent.load(tmp_path / "deep" / "latent", shape=shape)
    assert same(latent, loaded)
    np.testing.assert_array_equal(loaded.encode(frames), latent.encode(frames))
    for one in (latent, loaded):
        fit(one, frames, seed=3)
        one.save(tmp_path / "deep" / "latent")
    assert same(latent, loaded)
    assert same(latent, FittedLatent.load(tmp_path / "deep" / "latent"))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["latent"]


def test_files_are_for_others_to_read(tmp_path):
    latent = images()
    latent.save(tmp_path / "latent")
    tensors = load_file(tmp_path / "latent" / "weights.safetensors")
    weight = latent.model.views(latent.vector)["encoder.convolution.0.weight"]
    assert torch.equal(tensors["model.encoder.convolution.0.weight"], weight)
    facts = json.loads((tmp_path / "latent" / "state.json").read_text())["state"]["latent"]
    assert facts["model"]["name"] == "vae"
    assert facts["model"]["channels"] == [4, 4, 4]
    assert (facts["shape"], facts["version"]) == ([32, 32, 3], 0)


def test_a_crash_while_saving_leaves_the_last_one(tmp_path, monkeypatch):
    latent = images()
    latent.save(tmp_path / "latent")
    frames, _ = discs(50, seed=0)
    fit(latent, frames, steps=1)

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot save .*latent: no space"):
        latent.save(tmp_path / "latent")
    assert same(images(), FittedLatent.load(tmp_path / "latent"))
    monkeypatch.undo()
    latent.save(tmp_path / "latent")
    assert same(latent, FittedLatent.load(tmp_path / "latent"))


def test_saving_takes_no_other_file_away(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.tex\).*a folder of its own"):
        images().save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["latent"].update(format=9), "was written by rlkit-suite .* read it"),
        (lambda state: state["latent"]["model"].update(dims=4), "have shapes .*its model has"),
        (lambda state: state.update(world=state.pop("latent")), "holds no latent, but weights, wo"),
        (
            lambda state: state["latent"].pop("shape"),
            "what it should: KeyError: 'shape'",
        ),
    ],
)
def test_files_of_others_are_refused(change, message, tmp_path):
    images().save(tmp_path / "latent")
    state = read_checkpoint(tmp_path / "latent")
    change(state)
    write_checkpoint(tmp_path / "latent", state)
    with pytest.raises(ValueError, match=message):
        FittedLatent.load(tmp_path / "latent")


def damage(folder, name, function):
    path = folder / name
    path.write_bytes(function(path.read_bytes()))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "holds no latent: .*manifest.json is missing"),
        (lambda f: (f / "state.json").unlink(), "state.json is missing"),
        (lambda f: damage(f, "state.json", lambda data: data[:40]), "is truncated"),
        (
            lambda f: damage(f, "weights.safetensors", lambda d: d[:-1] + bytes([d[-1] ^ 4])),
            "is damaged",
        ),
    ],
)
def test_damaged_folders_are_refused(spoil, message, tmp_path):
    images().save(tmp_path / "latent")
    spoil(tmp_path / "latent")
    with pytest.raises(ValueError, match=message):
        FittedLatent.load(tmp_path / "latent")


def test_a_latent_of_another_environment_is_refused(tmp_path):
    latent = images()
    latent.save(tmp_path / "latent")
    with pytest.raises(ValueError, match=r"shape \(32, 32, 3\), these have shape \(48, 48, 3\)"):
        FittedLatent.load(tmp_path / "latent", shape=(48, 48, 3))
    other = images((48, 48, 3))
    with pytest.raises(ValueError, match=r"shape \[32, 32, 3\], this one has \[48, 48, 3\]"):
        other.load_state_dict(latent.state_dict())
    other = FittedLatent(replace(SMALL, beta=3.0).with_shape((32, 32, 3)), generator())
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"the saved latent has model .*'beta': 1.0.*'beta': 3.0"):
        other.load_state_dict(latent.state_dict())
    assert torch.equal(before["vector"], other.vector)


def test_a_model_needs_a_shape():
    with pytest.raises(
        ValueError, match=r"VAE has no shape of observations yet: use model.with_shape"
    ):
        FittedLatent(VAE(), generator())


FRAMES = discs(20, seed=0)[0]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.repeat(FRAMES[:1], 20, 0), "all 20 frames are the same"),
        (FRAMES[:1], r"frames have shape \(1, 32, 32, 3\), not \(N, 32, 32, 3\) with N >= 2"),
        (FRAMES[:, :, :, :1], r"frames have shape \(20, 32, 32, 1\), not \(..., 32, 32, 3\)"),
        (np.moveaxis(FRAMES, -1, 1), r"channels last, use numpy.moveaxis\(images, -3, -1\)"),
        (FRAMES.reshape(4, 5, 32, 32, 3), r"not \(N, 32, 32, 3\)"),
        (FRAMES.astype(np.float32), "images as floats are in .*found 2.*divide by 255"),
        (FRAMES / 127.5 - 1.0, r"images as floats are in \[0, 1\], found -"),
        (FRAMES.astype(np.int64), "images are bytes.*got int64"),
        (np.full(FRAMES.shape, np.nan), "must be finite, found nan at index"),
    ],
)
def test_images_that_teach_nothing_are_refused_at_once(frames, message):
    latent = images()
    with pytest.raises(ValueError, match=message):
        latent.fit(frames, steps=1, generator=generator())
    assert latent.version == 0


def test_vectors_that_are_no_numbers_are_refused():
    latent = FittedLatent(PCA(dims=2).with_shape((5,)), generator())
    frames = vectors()
    frames[321, 2] = np.inf
    with pytest.raises(ValueError, match="must be finite, found inf at index"):
        latent.fit(frames, steps=1, generator=generator())
    with pytest.raises(ValueError, match=r"found inf at index \(1, 2\)"):
        latent.encode(frames[320:323])
    with pytest.raises(ValueError, match=r"observations have shape \(3, 4\), not \(..., 5\)"):
        latent.encode(frames[:3, :4])
    with pytest.raises(ValueError, match=r"latents have shape \(3,\), not \(..., 2\)"):
        latent.decode(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="all 9 frames are the same"):
        latent.fit(np.ones((9, 5)), steps=1, generator=generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0, got nan"),
    ],
)
def test_settings_of_a_fit_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        images().fit(FRAMES, generator=generator(), **{"steps": 1, **settings})


@dataclass(frozen=True)
class Exploding(Autoencoder):
    """An autoencoder whose loss is no number from the third step on."""

    def loss(self, vector, x, generator, step):
        loss, metrics = super().loss(vector, x, generator, step)
        return (loss * torch.nan if step >= 2 else loss), metrics


def test_a_loss_that_explodes_ends_the_fit_and_changes_nothing():
    latent = FittedLatent(Exploding(dims=2, hidden=(4,)).with_shape((5,)), generator())
    before = latent.state_dict()
    with pytest.raises(
        DivergenceError, match=r"loss of Exploding is nan .*at step 11; lower learning_rate"
    ):
        fit(latent, vectors())
    assert torch.equal(latent.vector, before["vector"])
    assert latent.version == 0
    assert not latent.shift.any()
