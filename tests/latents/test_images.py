import numpy as np
import pytest
import torch

from rlkit.latents import PCA, VAE, Autoencoder
from rlkit.latents.networks import ImageDecoder, ImageEncoder

SIDES = (8, 28, 32, 36, 40, 48, 64, 84, 96)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_the_decoder_mirrors_the_encoder(side, channels):
    shape = (side, side, channels)
    encoder = ImageEncoder(shape, (4, 6, 8), (10,), 5)
    decoder = ImageDecoder(shape, (4, 6, 8), (10,), 5)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *shape, generator=generator)
    z = encoder(encoder.initial_parameters(generator), x)
    assert z.shape == (2, 5)
    assert decoder(decoder.initial_parameters(generator), z).shape == x.shape
    assert encoder.innermost == decoder.innermost == (encoder.innermost[0],) * 2 + (8,)
    assert 2 <= encoder.innermost[0] <= 7


@pytest.mark.parametrize("side", SIDES)
def test_every_pixel_is_encoded_and_decoded_in_its_place(side):
    encoder = ImageEncoder((side, side, 2), (4, 4, 4), (), 3)
    decoder = ImageDecoder((side, side, 2), (4, 4, 4), (), 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, side, side, 2, generator=generator).requires_grad_()
    vector = encoder.initial_parameters(generator)
    for name, view in encoder.views(vector).items():
        if name.startswith("convolution") and name.endswith("bias"):
            view.fill_(10.0)  # no ReLU is idle
    encoder(vector, x).square().sum().backward()
    assert (x.grad != 0).all()
    vector = decoder.initial_parameters(generator)
    # Only the upper left corner of the innermost feature map is not zero, so the image's must be.
    p = decoder.views(vector)
    for name, view in p.items():
        if name.endswith("bias"):
            view.zero_()
        else:
            view.abs_()  # no ReLU is idle
    p["dense.0.weight"][:, 4:] = 0.0
    y = decoder(vector, torch.tensor([[3.0, 2.0, 1.0]]))[0].detach()
    lit = (y != 0).any(-1).nonzero()
    share = encoder.innermost[0]
    assert lit.min(0).values.tolist() == [0, 0]
    assert lit.max() < 0.95 * side if share > 2 else lit.max() < side


@pytest.mark.parametrize("side", SIDES)
def test_fresh_networks_keep_the_scale_of_what_they_see(side):
    encoder = ImageEncoder((side, side, 3), (16, 32, 32), (), 64)
    generator = torch.Generator().manual_seed(0)
    z = encoder(
        encoder.initial_parameters(generator),
        torch.rand(8, side, side, 3, generator=generator),
    )
    assert 0.05 < z.std() < 5


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 48, 48), r"channels last, got shape \(3, 48, 48\); \(48, 48, 3\) is meant"),
        ((50, 50, 3), r"multiple of 4 pixels.*got shape \(50, 50, 3\); resize them"),
        ((48, 64, 3), "images are square"),
        ((48, 48), r"vectors \(F,\) or images \(H, W, C\).*grey image.*\(48, 48, 1\)"),
        ((2, 48, 48, 3), r"got shape \(2, 48, 48, 3\)"),
        ((0,), r"got shape \(0,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(shape, message):
    for model in (VAE(), Autoencoder()):
        with pytest.raises(ValueError, match=message):
            model.with_shape(shape)


def test_linear_models_take_images_of_any_size():
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 2), dtype=np.uint8)
    for model in (PCA(dims=2), Autoencoder(dims=2, linear=True)):
        model = model.with_shape((20, 30, 2))
        vector = model.initial_parameters(torch.Generator().manual_seed(0))
        z, scale = model.encode(vector, torch.from_numpy(frames))
        assert not scale.any()
        assert model.decode(vector, z).shape == frames.shape


def test_bernoulli_is_refused_for_vectors():
    with pytest.raises(ValueError, match=r"'bernoulli' is for images.*shape \(4,\)"):
        VAE(likelihood="bernoulli").with_shape((4,))
