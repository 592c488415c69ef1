import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image
from small_envs import Clock

from rlkit.analysis.latent.frames import gather_frames, held_out_frames, training_frames
from rlkit.envs.make import make
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_folder import RunFolder

MAZE = "rlkit/PointMaze-U-Pixels-v0"


def images(count, shape=(32, 32, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def save_pngs(folder, frames, mode=None):
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame.squeeze()).convert(mode).save(folder / f"{i:04}.png")


class Shades(Clock):
    """An environment without a vector form: the image becomes brighter with each step."""

    def __init__(self, shape=(32, 32, 1), kind=np.uint8):
        super().__init__(spaces.Box(0, 255, shape, kind), spaces.Discrete(2), length=20, start=0)


def shades(env_id, **arguments):
    return Shades(**arguments)


@pytest.mark.slow
def test_frames_of_an_environment_have_true_factors():
    frames = gather_frames(MAZE, make, 300, seed=3)
    assert frames.images.shape == (300, 48, 48, 3)
    assert {name: rows.shape for name, rows in frames.factors.items()} == {
        "position": (300, 2),
        "velocity": (300, 2),
    }
    known = np.isfinite(frames.factors["position"]).all(1)
    assert 200 < known.sum() < 300  # the others are images of goals, with unknown factors
    with make(MAZE) as env:
        rule = env.unwrapped.rule
    places = rule.goal_vector(frames.images[known])
    assert np.abs(places - frames.factors["position"][known]).max() < 0.05


@pytest.mark.slow
def test_frames_of_an_environment_come_again_with_the_seed():
    one, two, other = (gather_frames(MAZE, make, 150, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.images, two.images)
    assert not np.array_equal(one.images, other.images)


@pytest.mark.slow
def test_what_is_held_out_of_an_environment_is_new():
    train, test = training_frames(MAZE, make, 150), held_out_frames(MAZE, make, 150)
    known = {image.tobytes() for image in train.images}
    assert sum(image.tobytes() in known for image in test.images) < 5


def test_images_of_goals_are_among_the_frames():
    frames = gather_frames(MAZE, make, 100, seed=0)
    goals = ~np.isfinite(frames.factors["position"]).all(1)
    assert goals[16:32].all()  # 16 environments start with as many goals
    assert not goals[:16].any()


def test_an_environment_without_a_vector_form_or_factors():
    frames = gather_frames("Shades-v0", shades, 200, seed=0)
    assert frames.images.shape == (200, 32, 32, 1)
    assert set(np.unique(frames.images)) == {0, 5, 10, 15}  # every fifth step
    shade = frames.images[:, 0, 0, 0].astype(int)
    follows = frames.next_rows >= 0
    assert (shade[frames.next_rows[follows]] == shade[follows] + 5).all()
    assert (shade[~follows] == 15)[:-16].all()  # the last of their episodes
    half = frames.part(slice(100))
    assert (half.next_rows < 100).all()
    assert (half.next_rows[:84] == frames.next_rows[:84]).all()
    assert frames.factors == {}


def test_a_run_stands_for_its_environment(tmp_path):
    content = {"env": MAZE, "env_options": {"size": 32}, "agent": "sac", "steps": 10}
    RunFolder.create(tmp_path / "run", make_recipe(content))
    frames = training_frames(str(tmp_path / "run"), make, 120)
    assert frames.images.shape == (120, 32, 32, 3)


def test_a_file_is_mapped_and_its_last_tenth_held_out(tmp_path):
    frames = images(200)
    np.save(tmp_path / "frames.npy", frames)
    path = str(tmp_path / "frames.npy")
    train, test = training_frames(path, make), held_out_frames(path, make)
    assert isinstance(train.images.base, np.memmap)
    assert np.array_equal(train.images, frames[:180])
    assert np.array_equal(test.images, frames[180:])
    assert np.array_equal(training_frames(path, make, 100).images, frames[:180:2])


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3), ("RGBA", 3)])
def test_a_folder_of_pngs(tmp_path, mode, channels):
    frames = images(110, (8, 9, 3))
    save_pngs(tmp_path / "pngs", frames, mode)
    found = training_frames(str(tmp_path / "pngs"), make)
    assert found.images.shape == (99, 8, 9, channels)
    if mode in ("RGB", "RGBA"):
        assert np.array_equal(found.images, frames[:99])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (images(99), "holds 99 frames; 100 or more"),
        (images(120).astype(np.float32), "holds float32 of shape (120, 32, 32, 3)"),
        (images(120)[..., 0], "grey ones with C = 1"),
        (images(120, (3, 32, 32)), "channels first"),
        (np.array([None, {}]), "no array of numbers"),
    ],
)
def test_files_that_do_not_fit(tmp_path, frames, message):
    np.save(tmp_path / "frames.npy", frames)
    with pytest.raises(ValueError) as error:
        training_frames(str(tmp_path / "frames.npy"), make)
    assert message in str(error.value)


def test_other_paths_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        training_frames(str(tmp_path / "missing.npy"), make)
    (tmp_path / "some.txt").write_text("frames")
    with pytest.raises(ValueError, match=r"is no \.npy file"):
        training_frames(str(tmp_path / "some.txt"), make)
    (tmp_path / "torn.npy").write_bytes(b"frames")
    with pytest.raises(ValueError, match="no array of numbers"):
        training_frames(str(tmp_path / "torn.npy"), make)
    with pytest.raises(ValueError, match="neither PNG files nor a run"):
        training_frames(str(tmp_path), make)
    save_pngs(tmp_path / "pngs", images(110))
    Image.fromarray(images(1, (16, 32, 3))[0]).save(tmp_path / "pngs" / "0050.png")
    with pytest.raises(ValueError, match=r"one size: 0050\.png is \(16, 32, 3\)"):
        training_frames(str(tmp_path / "pngs"), make)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (3, 32, 32)}, "channels first"),
        ({"shape": (4,)}, "has no images"),
        ({"kind": np.float32}, "has no images"),
    ],
)
def test_environments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        gather_frames("Shades-v0", shades, 100, 0, arguments)


def test_too_few_frames_are_refused_before_anything_is_drawn():
    with pytest.raises(ValueError, match="99 frames are too few"):
        training_frames(MAZE, make, 99)
