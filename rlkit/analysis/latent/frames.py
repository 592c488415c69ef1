"""Images for latent models to learn from: an environment's, a file's or a folder's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from rlkit.experiment.evaluate import TEST_SEED
from rlkit.experiment.run_folder import RunFolder
from rlkit.goals import is_image_space
from rlkit.vec.vec_env import GymVecEnv, MakeEnv, make_vec_env

LEAST = 100  # frames; fewer are too few to assess a latent model
DEFAULT_COUNT = 20_000
_ENVS = 16
_STRIDE = 5  # steps between frames that are kept: neighbours in time are nearly the same image
_HELD_OUT = 10  # the last tenth of a file

Factors = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Frames:
    """Images, with their true factors where these are known.

    Attributes:
        images: `(N, H, W, C)` uint8, possibly a memory map.
        factors: True factors of the images by name, `(N, K)`; NaN in rows where they are not
            known, which are the images of goals.
        next_rows: Row of the frame that follows each in its episode `(N,)`, -1 where there is none.
    """

    images: NDArray[np.uint8]
    factors: Factors = field(default_factory=dict)
    next_rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: slice) -> Frames:
        """Some of the frames, without copying them."""
        factors = {name: values[rows] for name, values in self.factors.items()}
        if self.next_rows is None:
            return Frames(self.images[rows], factors)
        kept = np.arange(len(self))[rows]
        # One entry more, for -1: what has no successor, and what is left out.
        place = np.full(len(self) + 1, -1)
        place[kept] = np.arange(len(kept))
        return Frames(self.images[rows], factors, place[self.next_rows[kept]])

    def thinned(self, count: int) -> Frames:
        """At most `count` of the frames, evenly spaced."""
        return self.part(slice(None, None, -(-len(self) // count)))


def training_frames(data: str, make: MakeEnv, count: int | None = None, seed: int = 0) -> Frames:
    """Frames to fit a latent model to.

    Args:
        data: Id of an environment; a `.npy` file of `(N, H, W, C)` uint8; a folder of PNG files;
            or the folder of a run, which stands for its environment. Of files, the last tenth is
            held out.
        make: Builds one environment from its id.
        count: How many, at most; of an environment 20,000 where it is None, of files all.
        seed: Of an environment and of the random actions in it.

    Raises:
        ValueError: If there are no images, too few, or they have different shapes.
    """
    stored = _stored_frames(data, count)
    if stored is None:
        return _environment_frames(data, make, count or DEFAULT_COUNT, seed)
    train = stored.part(slice(len(stored) - len(stored) // _HELD_OUT))
    return train if count is None else train.thinned(count)


def held_out_frames(data: str, make: MakeEnv, count: int = 2_000, seed: int = 0) -> Frames:
    """Frames that `training_frames` leaves out; see there.

    Raises:
        ValueError: If there are no images, too few, or they have different shapes.
    """
    stored = _stored_frames(data, count)
    if stored is None:
        return _environment_frames(data, make, count, TEST_SEED + seed)
    return stored.part(slice(len(stored) - len(stored) // _HELD_OUT, None)).thinned(count)


def gather_frames(
    env_id: str, make: MakeEnv, count: int, seed: int, arguments: dict[str, Any] | None = None
) -> Frames:
    """Observations under random actions, and the images of goals.

    Every fifth step is kept, and the image of the goal at the start of each episode. Factors are
    those of an environment whose `unwrapped` has `simulation.factors(state)`.

    Args:
        env_id: The id.
        make: Builds one environment from its id.
        count: How many frames.
        seed: Of environment and actions.
        arguments: The environment's.

    Raises:
        ValueError: If its observations are no images.
    """
    with closing(make_vec_env(make, env_id, _ENVS, seed=seed, **(arguments or {}))) as venv:
        keys = _image_keys(env_id, venv.observation_space)
        venv.action_space.seed(seed)
        observation: Any = venv.reset()
        started = np.ones(_ENVS, np.bool_)
        kept: list[Frames] = []
        latest = np.full(_ENVS, -1)  # each environment's last kept frame in its running episode
        pairs = []
        total = step = 0
        while total < count:
            new: list[Frames] = []
            if step % _STRIDE == 0:
                new.append(Frames(_images(observation, "observation"), _factors(venv)))
                rows = total + np.arange(_ENVS)
                pairs.append(np.stack([latest, rows])[:, latest >= 0])
                latest = rows
            if "desired_goal" in keys and started.any():
                new.append(Frames(_images(observation, "desired_goal")[started]))
            kept += new
            total += sum(map(len, new))
            actions = np.stack([venv.action_space.sample() for _ in range(_ENVS)])
            observation, _, started, _ = venv.step(actions)
            latest = np.where(started, -1, latest)
            step += 1
    next_rows = np.full(total, -1)
    before, after = np.concatenate(pairs, 1)
    next_rows[before] = after
    return replace(_joined(kept), next_rows=next_rows).part(slice(count))


def _environment_frames(data: str, make: MakeEnv, count: int, seed: int) -> Frames:
    """Frames of an environment, or of a run's environment."""
    path = Path(data)
    if not (path / "recipe.toml").is_file():
        return gather_frames(data, make, count, seed)
    recipe = RunFolder.open(path).recipe()
    return gather_frames(recipe.env, make, count, seed, recipe.env_options)


def _stored_frames(data: str, count: int | None) -> Frames | None:
    """The frames of a file or folder; None where `data` names an environment or a run.

    Raises:
        ValueError: If these are too few, or `count` is.
    """
    if count is not None and count < LEAST:
        raise ValueError(f"{count} frames are too few to fit or assess a model; take {LEAST}")
    path = Path(data)
    if path.is_dir():
        if (path / "recipe.toml").is_file():
            return None
        images = _folder_images(path)
    elif path.is_file() or path.suffix in (".npy", ".npz", ".png"):
        images = _file_images(path)
    else:
        return None
    if len(images) < LEAST:
        raise ValueError(f"{data} holds {len(images)} frames; {LEAST} or more are needed")
    next_rows = np.append(np.arange(1, len(images)), -1)
    return Frames(images, next_rows=next_rows)


def _file_images(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; check the path")
    if path.suffix != ".npy":
        raise ValueError(
            f"{path} is no .npy file: save an array (N, H, W, C) of bytes with numpy.save, or name "
            f"a folder of PNG files"
        )
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array of numbers as numpy.save writes it") from error
    if found.ndim != 4 or found.dtype != np.uint8:
        raise ValueError(
            f"{path} holds {found.dtype} of shape {found.shape}; frames are uint8 (N, H, W, C), "
            f"grey ones with C = 1"
        )
    _require_channels_last(str(path), found.shape[1:])
    images: NDArray[np.uint8] = found
    return images


def _folder_images(path: Path) -> NDArray[np.uint8]:
    files = sorted(path.glob("*.png"))
    if not files:
        raise ValueError(f"{path} holds neither PNG files nor a run (recipe.toml)")
    images: NDArray[np.uint8] = np.empty(0, np.uint8)
    for i, file in enumerate(files):
        one = _read_png(file)
        if i == 0:
            images = np.empty((len(files), *one.shape), np.uint8)
        if one.shape != images.shape[1:]:
            raise ValueError(
                f"images in one folder have one size: {file.name} is {one.shape}, "
                f"{files[0].name} is {images.shape[1:]}"
            )
        images[i] = one
    return images


def _read_png(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            grey = image.mode in ("1", "L")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return pixels[..., None] if grey else pixels


def _image_keys(env_id: str, space: spaces.Space[Any]) -> list[str]:
    """Which entries of an observation are images with the shape of `observation`."""
    parts = dict(space) if isinstance(space, spaces.Dict) else {"observation": space}
    shapes = {name: part.shape for name, part in parts.items() if is_image_space(part)}
    if "observation" not in shapes:
        found = {name: str(part) for name, part in parts.items()}
        raise ValueError(
            f"{env_id} has no images (uint8, three axes) as its observation: {found}. Take "
            f"one that has, such as rlkit/PointMaze-U-Pixels-v0, or wrap it in "
            f"rlkit.envs.wrappers.pixel_observation.PixelObservation"
        )
    wanted = shapes["observation"]
    _require_channels_last(env_id, wanted or ())
    return [name for name, shape in shapes.items() if shape == wanted]


def _require_channels_last(name: str, shape: tuple[int, ...]) -> None:
    if shape[0] <= 4 < shape[2]:
        raise ValueError(
            f"{name} has images of shape {shape}, channels first; they come last here: "
            f"numpy.moveaxis(frames, -3, -1), or TransposeObservation around the environment"
        )


def _images(observation: Any, key: str) -> NDArray[np.uint8]:
    # Copied: a vector environment may write its next observation into the same array.
    return np.array(observation[key] if isinstance(observation, dict) else observation)


def _factors(venv: Any) -> Factors:
    # Found by attribute names, because this layer does not import environments.
    single = [env.unwrapped for env in getattr(venv, "envs", ())]
    worlds = [venv.env.unwrapped] if isinstance(venv, GymVecEnv) else single
    if not worlds or not all(_has_factors(world) for world in worlds):
        return {}
    rows = [world.simulation.factors(world.get_state()["simulation"]) for world in worlds]
    return {name: np.concatenate([row[name] for row in rows]).astype(float) for name in rows[0]}


def _has_factors(world: Any) -> bool:
    return hasattr(world, "get_state") and hasattr(getattr(world, "simulation", None), "factors")


def _joined(parts: list[Frames]) -> Frames:
    """Frames one after another; unknown factors are NaN."""
    widths = {name: rows.shape[1] for part in parts for name, rows in part.factors.items()}

    def rows(part: Frames, name: str) -> NDArray[np.float64]:
        return part.factors.get(name, np.full((len(part), widths[name]), np.nan))

    images = np.concatenate([part.images for part in parts])
    return Frames(
        images, {name: np.concatenate([rows(part, name) for part in parts]) for name in widths}
    )
