import json
from dataclasses import dataclass

import pytest

from rlkit.latents import (
    LATENTS,
    PCA,
    VAE,
    Autoencoder,
    Denoising,
    LatentModel,
)


@dataclass(frozen=True)
class Mine(VAE):
    """A user's model."""

    sharpness: float = 2.0


def test_names_tables_and_objects_lead_to_models():
    assert LATENTS.names() == ["autoencoder", "denoising", "pca", "vae"]
    assert LATENTS.make("pca") == PCA()
    assert LATENTS.make("denoising") == Denoising(noise=0.1)
    assert LATENTS.make({"name": "vae", "dims": 4, "channels": [8, 16, 16]}) == VAE(
        4, channels=(8, 16, 16)
    )
    configured = Autoencoder(dims=3)
    assert LATENTS.make(configured) is configured
    assert LATENTS.make_optional(None) is LATENTS.make_optional("none") is None


@pytest.mark.parametrize("name", LATENTS.names())
def test_every_name_leads_to_a_model_that_can_be_written_down(name):
    model = LATENTS.make(name)
    assert isinstance(model, LatentModel)
    plain = LATENTS.describe(model.with_shape((32, 32, 3)))
    assert plain["name"] == name
    assert "shape" not in plain
    assert LATENTS.make(json.loads(json.dumps(plain))) == model


def test_a_model_of_ones_own_is_written_with_its_module():
    plain = LATENTS.describe(Mine(sharpness=3.0))
    assert plain["name"] == f"{__name__}:Mine"
    assert LATENTS.make(json.loads(json.dumps(plain))) == Mine(sharpness=3.0)
    assert LATENTS.describe(None) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "vea",
            r"unknown latent model 'vea'\. Did you mean 'vae'\?.*of your own is written",
        ),
        ({"name": "vae", "betta": 3}, r"no option 'betta'\. Did you mean 'beta'\?"),
        ({"name": "vae", "shape": [3]}, "no option 'shape'"),
        ({"dims": 3}, r"needs a name \(.*vae.* got {'dims': 3}"),
        ({"name": "none", "dims": 3}, "latent model none has no settings, got dims"),
        (VAE, r"VAE is a class; configure it: VAE\(\)"),
        (3, r"3 is no latent model: it lacks shape, dims, .*loss\. Give a name \(autoencoder"),
        ({"name": "vae", "dims": 0}, "VAE: dims must be a whole number >= 1, got 0"),
        ({"name": "vae", "dims": True}, "VAE: dims must be a whole number >= 1, got True"),
        ({"name": "vae", "hidden": 64}, "VAE: hidden must be a sequence of whole.*got 64"),
        ({"name": "vae", "channels": [8, 8]}, "VAE: channels must be three widths"),
        ({"name": "vae", "beta": -1}, "VAE: beta must be a number >= 0, got -1"),
        ({"name": "vae", "beta": float("nan")}, "VAE: beta must be a number >= 0, got nan"),
        ({"name": "vae", "free_bits": "much"}, "VAE: free_bits must be .*got 'much'"),
        ({"name": "vae", "annealing": 0.5}, "VAE: annealing must be a whole number >= 0"),
        (
            {"name": "vae", "likelihood": "mse"},
            "likelihood must be gaussian or bernoulli, got 'mse'",
        ),
        ({"name": "vae", "variance": 0}, "VAE: variance must be a number > 0, or None"),
        ({"name": "vae", "variance": 1.0, "likelihood": "bernoulli"}, "set variance = None"),
        ({"name": "vae", "capacity": -2}, "capacity must be a number of nats >= 0 or None, got -2"),
        ({"name": "vae", "capacity": 5, "annealing": 9}, "capacity = 5 sets .*annealing = 9"),
        ({"name": "vae", "capacity_steps": 9}, "capacity_steps = 9 without a capacity"),
        ({"name": "autoencoder", "noise": -1}, "Autoencoder: noise must be a number >= 0, got -1"),
        ({"name": "autoencoder", "linear": 1}, "Autoencoder: linear must be true or false, got 1"),
        ({"name": "denoising", "noise": 0}, "Denoising: noise must be a number > 0, .*got 0"),
    ],
)
def test_what_is_no_latent_model_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        LATENTS.make(value)
