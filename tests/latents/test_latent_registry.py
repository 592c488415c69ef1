import json
from dataclasses import dataclass

import pytest

from rlkit.latents import (
    PCA,
    VAE,
    Autoencoder,
    Denoising,
    LatentModel,
    describe_latent,
    latent_names,
    make_latent,
)


@dataclass(frozen=True)
class Mine(VAE):
    """A user's model."""

    sharpness: float = 2.0


def test_names_tables_and_objects_lead_to_models():
    assert latent_names() == ["autoencoder", "denoising", "pca", "vae"]
    assert make_latent("pca") == PCA()
    assert make_latent("denoising") == Denoising(noise=0.1)
    assert make_latent({"name": "vae", "dims": 4, "channels": [8, 16, 16]}) == VAE(
        4, channels=(8, 16, 16)
    )
    configured = Autoencoder(dims=3)
    assert make_latent(configured) is configured
    assert make_latent(None) is make_latent("none") is None


@pytest.mark.parametrize("name", latent_names())
def test_every_name_leads_to_a_model_that_can_be_written_down(name):
    model = make_latent(name)
    assert isinstance(model, LatentModel)
    plain = describe_latent(model.with_shape((32, 32, 3)))
    assert plain["name"] == name
    assert "shape" not in plain
    assert make_latent(json.loads(json.dumps(plain))) == model


def test_a_model_of_ones_own_is_written_with_its_module():
    plain = describe_latent(Mine(sharpness=3.0))
    assert plain["name"] == f"{__name__}:Mine"
    assert make_latent(json.loads(json.dumps(plain))) == Mine(sharpness=3.0)
    assert describe_latent(None) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("vea", r"unknown latent 'vea'\. Did you mean 'vae'\?.*A latent of your own is written"),
        ({"name": "vae", "betta": 3}, r"no setting 'betta'\. Did you mean 'beta'\?"),
        ({"name": "vae", "shape": [3]}, "no setting 'shape'"),
        ({"dims": 3}, r"a latent's table needs a name, .*\"vae\".* got {'dims': 3}"),
        ({"name": "none", "dims": 3}, r"no latent \(none\) has no settings, got dims"),
        (VAE, r"VAE is a class; configure it: VAE\(\)"),
        (3, r"3 is no latent model: it lacks shape, dims, .*loss\. Give a name \(autoencoder"),
        ({"name": "vae", "dims": 0}, "VAE: dims must be a whole number >= 1, got 0"),
        ({"name": "vae", "dims": True}, "VAE: dims must be a whole number >= 1, got True"),
        ({"name": "vae", "hidden": 64}, "VAE: hidden must be a sequence of whole.*got 64"),
        ({"name": "vae", "channels": [8, 8]}, "VAE: channels must be three widths"),
        ({"name": "vae", "beta": -1}, "VAE: beta must be a number >= 0, got -1"),
        ({"name": "vae", "beta": float("nan")}, "VAE: beta must be a number >= 0, got nan"),
        ({"name": "vae", "free_bits": "much"}, "VAE: free_bits must be .*got 'much'"),
        ({"name": "vae", "annealing": 0.5}, "VAE: annealing must be a whole number of steps"),
        (
            {"name": "vae", "likelihood": "mse"},
            "likelihood must be gaussian or bernoulli, got 'mse'",
        ),
        ({"name": "vae", "variance": 0}, "VAE: variance must be a number > 0, or None"),
        ({"name": "vae", "variance": 1.0, "likelihood": "bernoulli"}, "set variance = None"),
        ({"name": "vae", "capacity": -2}, "capacity must be a number of nats >= 0 or None, got -2"),
        ({"name": "vae", "capacity": 5, "annealing": 9}, "capacity = 5 says .*annealing = 9"),
        ({"name": "vae", "capacity_steps": 9}, "capacity_steps = 9 without a capacity"),
        ({"name": "autoencoder", "noise": -1}, "Autoencoder: noise must be a number >= 0, got -1"),
        ({"name": "autoencoder", "linear": 1}, "Autoencoder: linear must be true or false, got 1"),
        ({"name": "denoising", "noise": 0}, "Denoising: noise must be a number > 0, .*got 0"),
    ],
)
def test_what_is_no_latent_model_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        make_latent(value)
