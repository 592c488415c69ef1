import numpy as np
import pytest

from rlkit.envs.rendering.raster import Raster, View, centred_view

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def blank(raster, rows):
    return np.repeat(raster.filled(BLACK), rows, axis=0)


def coverage(pictures):
    return pictures[..., 0] / 255


def sampled(raster, inside, finer=20):
    """The share of each pixel inside a shape, estimated from a grid of points."""
    fine = (np.arange(raster.size * finer) + 0.5) / finer
    positions = raster.view.to_world(np.stack(np.meshgrid(fine, fine), axis=-1), raster.size)
    grid = inside(positions).astype(float)
    return grid.reshape(raster.size, finer, raster.size, finer).mean(axis=(1, 3))


def test_the_view_maps_to_pixels_and_back():
    view = View(-1.0, 2.0, 4.0)
    corners = [[-1, 2], [3, 6], [-1, 6], [1, 4]]
    pixels = view.to_pixels(corners, 40)
    np.testing.assert_allclose(pixels, [[0, 40], [40, 0], [0, 0], [20, 20]])
    np.testing.assert_allclose(view.to_world(pixels, 40), corners)
    assert centred_view(3.0) == View(-1.5, -1.5, 3.0)
    with pytest.raises(ValueError, match="side must be positive, got 0"):
        View(0.0, 0.0, 0.0)


def test_the_coverage_of_a_disc():
    raster = Raster(centred_view(2.0), 32)
    centres = np.random.default_rng(0).uniform(-0.7, 0.7, (6, 2))
    pictures = blank(raster, 6)
    raster.disc(pictures, centres, 0.25, WHITE)
    for picture, centre in zip(pictures, centres, strict=True):
        truth = sampled(raster, lambda p, c=centre: ((p - c) ** 2).sum(-1) <= 0.25**2)
        assert np.abs(coverage(picture) - truth).max() < 0.1
        area = coverage(picture).sum() * raster.pixel**2
        assert area == pytest.approx(np.pi * 0.25**2, rel=0.02)


@pytest.mark.slow
def test_the_coverage_of_a_bar():
    raster = Raster(centred_view(2.0), 48)
    rng = np.random.default_rng(1)
    start = rng.uniform(-0.4, 0.4, (8, 2))
    angle = rng.uniform(0, 2 * np.pi, 8)
    angle[:2] = 0, np.pi / 2
    end = start + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    pictures = blank(raster, 8)
    raster.bar(pictures, start, end, 0.2, WHITE)
    for picture, one, other in zip(pictures, start, end, strict=True):

        def inside(positions, one=one, other=other):
            along = np.clip((positions - one) @ (other - one) / 0.25, 0, 1)
            return ((positions - one - along[..., None] * (other - one)) ** 2).sum(-1) <= 0.1**2

        assert np.abs(coverage(picture) - sampled(raster, inside)).max() < 0.12


def test_adjacent_squares_have_no_seam():
    raster = Raster(centred_view(3.3), 48)
    tiles = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
    pictures = blank(raster, 2)
    raster.squares(pictures, tiles, 1.0, WHITE)
    whole = blank(raster, 2)
    raster.squares(whole, [[0, 0]], 3.0, WHITE)
    np.testing.assert_array_equal(pictures, whole)
    assert coverage(whole[0]).sum() * raster.pixel**2 == pytest.approx(9, rel=1e-3)


@pytest.mark.parametrize("centre", [(-1.0, 0.2), (1.0, 1.0), (0.0, -1.1), (5.0, 5.0)])
def test_shapes_are_clipped_at_the_edge(centre):
    small, large = Raster(centred_view(2.0), 20), Raster(centred_view(4.0), 40)
    cut, whole = blank(small, 1), blank(large, 1)
    position = np.array([centre])
    for raster, pictures in ((small, cut), (large, whole)):
        raster.disc(pictures, position, 0.3, WHITE)
        raster.bar(pictures, position, position + np.array([[0.4, 0.3]]), 0.2, WHITE)
    assert np.abs(cut.astype(int) - whole[:, 10:30, 10:30]).max() <= 1


def test_a_shape_larger_than_the_image():
    raster = Raster(centred_view(1.0), 16)
    pictures = blank(raster, 1)
    raster.disc(pictures, np.zeros((1, 2)), 5.0, WHITE)
    assert (pictures == 255).all()


def test_an_empty_batch_stays_empty():
    raster = Raster(centred_view(1.0), 16)
    pictures, none = blank(raster, 0), np.zeros((0, 2))
    raster.disc(pictures, none, 0.2, WHITE)
    raster.bar(pictures, none, none, 0.2, WHITE)
    assert pictures.shape == (0, 16, 16, 3)


def test_later_shapes_hide_earlier_ones_and_edges_are_mixtures():
    raster = Raster(centred_view(2.0), 32)
    pictures, centre = raster.filled((10, 20, 30)), np.zeros((1, 2))
    raster.disc(pictures, centre, 0.6, (200, 100, 0))
    raster.disc(pictures, centre, 0.3, (0, 50, 250))
    assert pictures[0, 16, 16].tolist() == [0, 50, 250]
    assert pictures[0, 16, 24].tolist() == [200, 100, 0]
    assert pictures[0, 0, 0].tolist() == [10, 20, 30]
    red, green = pictures[0, ..., 0].astype(float), pictures[0, ..., 1].astype(float)
    ring = red > 10
    assert (np.abs((green - 20) / 80 - (red - 10) / 190)[ring & (green < 100)] < 0.02).any()
