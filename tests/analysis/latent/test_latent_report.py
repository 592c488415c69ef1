import json
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
import torch
from contrastive import Contrastive
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin

from rlkit.analysis.latent import plots
from rlkit.analysis.latent.frames import Frames, gather_frames
from rlkit.analysis.latent.report import write_report
from rlkit.analysis.latent.scores import neighbour_probe, scores
from rlkit.analysis.latent.training import describe_report
from rlkit.envs.make import make
from rlkit.latents import PCA, VAE, FittedLatent, linear_probe

FIGURES = {"reconstructions", "prior_samples", "traversals", "dimensions", "distances", "embedding"}


@pytest.fixture(scope="module")
def frames():
    return gather_frames("rlkit/PointMaze-U-Pixels-v0", make, 240, seed=0)


def fitted(model, images, steps=3, next_rows=None):
    generator = torch.Generator().manual_seed(0)
    latent = FittedLatent(model.with_shape(images.shape[1:]), generator)
    for _ in latent.fit(
        images, steps=steps, batch_size=8, generator=generator, next_rows=next_rows
    ):
        pass
    return latent


def small_vae(**settings):
    return VAE(channels=(4, 4, 4), hidden=(16,), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("model", [small_vae(dims=3), PCA(dims=5)], ids=["vae", "pca"])
def test_a_report_has_all_figures(tmp_path, frames, model):
    latent = fitted(model, frames.images)
    found = write_report(tmp_path / "new", latent, frames)
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == found
    accumulator = EventAccumulator(str(tmp_path / "new")).Reload()
    assert set(accumulator.Tags()["images"]) == {f"latent/{name}" for name in FIGURES}
    for name in FIGURES:
        with Image.open(tmp_path / "new" / f"{name}.png") as image:
            assert np.asarray(image)[..., :3].std() > 10, name
    assert found["shape"] == [48, 48, 3]
    assert len(found["variance_per_dim"]) == model.dims
    assert found["encoding"]["frames_per_s"] > 0
    assert set(found["factors"]) == {"position", "velocity"}
    assert len(found["factors"]["position"]["linear_r2"]) == 2


@pytest.mark.slow
def test_a_model_without_a_decoder_is_reported_without_reconstructions(tmp_path, frames):
    write_report(tmp_path, fitted(PCA(dims=2), frames.images), frames)
    latent = fitted(Contrastive(), frames.images, next_rows=frames.next_rows)
    found = write_report(tmp_path, latent, frames)
    assert found["error"] is found["explained"] is None
    figures = {path.stem for path in tmp_path.glob("*.png")} - {"projector_images"}
    assert figures == {"dimensions", "distances", "embedding"}
    assert "position: R2 at least" in describe_report(found)


@pytest.mark.slow
def test_a_second_report_replaces_the_first(tmp_path, frames):
    latent = fitted(PCA(dims=2), frames.images)
    write_report(tmp_path, latent, frames)
    before = {path.name for path in tmp_path.iterdir()}
    write_report(tmp_path, latent, Frames(frames.images[:150]))
    assert {path.name for path in tmp_path.iterdir()} == before - {"distances.png"}
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["frames"], found["factors"]) == (150, {})


def test_a_model_of_other_observations_is_refused(tmp_path, frames):
    latent = FittedLatent(PCA(dims=2, shape=(32, 32, 3)), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="observations have shape"):
        write_report(tmp_path / "new", latent, frames)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_scores_match_their_definitions(frames):
    images = frames.images
    latent = fitted(PCA(dims=4, whiten=False), images)
    latents, deviations = latent.posterior(images)
    found = scores(latent, frames, latents, deviations)
    flat = images.reshape(len(images), -1) / 255
    lengths = np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2
    # Clipping to [0, 1] brings decoded images a little nearer.
    assert found["explained"] == pytest.approx(lengths[:4].sum() / lengths.sum(), abs=0.02)
    assert found["error"] == pytest.approx(
        (1 - found["explained"]) * lengths.sum() / flat.size, rel=1e-3
    )
    assert found["kl_per_dim"] is found["active_units"] is None
    assert found["variance_per_dim"] == pytest.approx(lengths[:4] / len(flat), rel=1e-3)


@pytest.mark.slow
def test_probes_are_scored_on_held_out_frames(frames):
    rng = np.random.default_rng(0)
    latent = fitted(PCA(dims=2), frames.images)
    latents = rng.standard_normal((240, 60))
    truth = rng.standard_normal((240, 1))
    factors = {"chance": truth, "still": np.ones((240, 1)), "latent": latents[:, :1]}
    found = scores(latent, Frames(frames.images, factors), latents, 0 * latents)["factors"]
    assert found["chance"]["linear_r2"][0] < 0
    assert found["chance"]["neighbour_r2"][0] < 0.1
    assert found["latent"]["linear_r2"][0] > 0.99
    assert found["still"] == {
        "varies": [False],
        "disentanglement": None,
        "linear_r2": [],
        "neighbour_r2": [],
        "distance_correlation": None,
    }


def test_neighbours_predict_from_nonlinear_latents():
    truth = np.random.default_rng(0).uniform(-1, 1, (600, 1))
    latents = np.hstack([np.cos(9 * truth), np.sin(9 * truth) * (1 + truth)])
    halves = latents[:300], truth[:300], latents[300:], truth[300:]
    assert linear_probe(*halves)[0] < 0.3
    assert neighbour_probe(*halves)[0] > 0.9
    # A latent of the training rows is its own nearest neighbour.
    assert neighbour_probe(latents, truth, latents, truth)[0] > 0.999


def test_traversals_begin_with_what_says_most():
    latent = FittedLatent(small_vae(dims=3, shape=(32, 32, 1)), torch.Generator().manual_seed(0))
    latents = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 0.01, 2.0]
    figure = plots.traversals(latent, latents.astype(np.float32), np.full((50, 3), 0.5))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert [label.split(":")[0] for label in labels] == ["2", "0", "1"]


def test_idle_dimensions_are_pale():
    latents = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 0.01, 2.0]
    figure = plots.dimensions(latents, np.full((50, 3), 0.5))
    colours = [bar.get_facecolor() for bar in figure.axes[0].patches]
    assert colours[0] == colours[1] != colours[2]
    assert figure.axes[0].get_title().startswith("2 of 3 active")


@pytest.mark.slow
def test_samples_without_a_prior_say_so(frames):
    latent = fitted(PCA(dims=1), frames.images)
    latents, deviations = latent.posterior(frames.images)
    title = plots.prior_samples(latent, latents, deviations).axes[0].get_title()
    assert title.startswith("No prior")
    title = plots.prior_samples(latent, latents, deviations + 1).axes[0].get_title()
    assert title == "Decoded samples of the prior N(0, 1)"


def served(folder, path, query):
    """What TensorBoard's projector answers to the browser."""
    plugin = ProjectorPlugin(TBContext(logdir=str(folder)))
    environ = {"QUERY_STRING": query}
    setup_testing_defaults(environ)
    return b"".join(plugin.get_plugin_apps()[path](environ, lambda *_: None))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_the_projector_shows_latents_with_their_images(tmp_path, frames, channels):
    images = np.ascontiguousarray(frames.images[..., :channels])
    latent = fitted(PCA(dims=3), images)
    write_report(tmp_path, latent, Frames(images, frames.factors))
    (shown,) = json.loads(served(tmp_path, "/info", "run=."))["embeddings"]
    known = np.isfinite(frames.factors["position"]).all(1)
    assert shown["tensorShape"] == [known.sum(), 3]
    assert shown["sprite"]["singleImageDim"] == [48, 48]
    served_latents = np.frombuffer(served(tmp_path, "/tensor", "run=.&name=latents"), np.float32)
    latents = latent.encode(images[known])
    assert np.allclose(served_latents.reshape(latents.shape), latents, atol=1e-4)
    lines = served(tmp_path, "/metadata", "run=.&name=latents").decode().splitlines()
    assert lines[0].split("\t") == ["frame", "position 0", "position 1", "velocity 0", "velocity 1"]
    assert len(lines) == 1 + known.sum()
    with Image.open(tmp_path / "projector_images.png") as image:
        sheet = np.asarray(image)
    across = sheet.shape[1] // 48
    assert sheet.shape[1] == 48 * int(np.ceil(np.sqrt(known.sum())))
    number = across + 2  # in the second row
    cell = sheet[48:96, 96:144]
    assert np.array_equal(cell[..., :channels], images[known][number])
