"""Pictures for latent models to learn from: an environment's, a file's or a folder's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
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

LEAST = 100  # frames; fewer say nothing about a latent model
DEFAULT_COUNT = 20_000
_ENVS = 16
_STRIDE = 5  # steps between frames that are kept: neighbours in time are nearly the same picture
_HELD_OUT = 10  # the last tenth of a file

Factors = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Frames:
    """Pictures, and what is true of them where that is known.

    Attributes:
        pictures: `(N, H, W, C)` uint8, possibly a memory map.
        factors: True numbers behind the pictures by name, `(N, K)`; NaN in rows where they are not
            known, which are the pictures of goals.
    """

    pictures: NDArray[np.uint8]
    factors: Factors = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    def part(self, rows: slice) -> Frames:
        """Some of the frames, without copying them."""
        return Frames(self.pictures[rows], {k: v[rows] for k, v in self.factors.items()})

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
        ValueError: If there are no pictures, too few, or they have no shape in common.
    """
    _require_count(count)
    found = _stored_frames(data)
    if found is None:
        env_id, arguments = _environment(data)
        return gather_frames(env_id, make, count or DEFAULT_COUNT, seed, arguments)
    train = found.part(slice(len(found) - len(found) // _HELD_OUT))
    return train if count is None else train.thinned(count)


def held_out_frames(data: str, make: MakeEnv, count: int = 2_000, seed: int = 0) -> Frames:
    """Frames that `training_frames` does not give; see there.

    Raises:
        ValueError: If there are no pictures, too few, or they have no shape in common.
    """
    _require_count(count)
    found = _stored_frames(data)
    if found is None:
        env_id, arguments = _environment(data)
        return gather_frames(env_id, make, count, TEST_SEED + seed, arguments)
    return found.part(slice(len(found) - len(found) // _HELD_OUT, None)).thinned(count)


def gather_frames(
    env_id: str, make: MakeEnv, count: int, seed: int, arguments: dict[str, Any] | None = None
) -> Frames:
    """What random actions make an environment show, with the pictures of goals.

    Every fifth step is kept, and the picture of the goal at the start of each episode. Factors are
    those of an environment whose `unwrapped` has `simulation.factors(state)`.

    Args:
        env_id: The id.
        make: Builds one environment from its id.
        count: How many frames.
        seed: Of environment and actions.
        arguments: The environment's.

    Raises:
        ValueError: If its observations are no pictures.
    """
    with closing(make_vec_env(make, env_id, _ENVS, seed=seed, **(arguments or {}))) as venv:
        keys = _picture_keys(env_id, venv.observation_space)
        venv.action_space.seed(seed)
        observation: Any = venv.reset()
        started = np.ones(_ENVS, np.bool_)
        kept: list[Frames] = []
        total = step = 0
        while total < count:
            new: list[Frames] = []
            if step % _STRIDE == 0:
                new.append(Frames(_seen(observation, "observation"), _factors(venv)))
            if "desired_goal" in keys and started.any():
                new.append(Frames(_seen(observation, "desired_goal")[started]))
            kept += new
            total += sum(map(len, new))
            actions = np.stack([venv.action_space.sample() for _ in range(_ENVS)])
            observation, _, started, _ = venv.step(actions)
            step += 1
    return _joined(kept).part(slice(count))


def _require_count(count: int | None) -> None:
    if count is not None and count < LEAST:
        raise ValueError(f"{count} frames are too few to learn or tell anything; take {LEAST}")


def _environment(data: str) -> tuple[str, dict[str, Any]]:
    path = Path(data)
    if (path / "recipe.toml").is_file():
        recipe = RunFolder.open(path).recipe()
        return recipe.env, recipe.env_options
    return data, {}


def _stored_frames(data: str) -> Frames | None:
    """The frames of a file or folder; None where `data` stands for an environment."""
    path = Path(data)
    if path.is_dir():
        if (path / "recipe.toml").is_file():
            return None
        pictures = _folder_pictures(path)
    elif path.is_file() or path.suffix in (".npy", ".npz", ".png"):
        pictures = _file_pictures(path)
    else:
        return None
    if len(pictures) < LEAST:
        raise ValueError(f"{data} holds {len(pictures)} frames; {LEAST} or more are needed")
    return Frames(pictures)


def _file_pictures(path: Path) -> NDArray[np.uint8]:
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
    pictures: NDArray[np.uint8] = found
    return pictures


def _folder_pictures(path: Path) -> NDArray[np.uint8]:
    files = sorted(path.glob("*.png"))
    if not files:
        raise ValueError(f"{path} holds neither PNG files nor a run (recipe.toml)")
    pictures: NDArray[np.uint8] = np.empty(0, np.uint8)
    for i, file in enumerate(files):
        one = _read_png(file)
        if i == 0:
            pictures = np.empty((len(files), *one.shape), np.uint8)
        if one.shape != pictures.shape[1:]:
            raise ValueError(
                f"pictures in one folder have one size: {file.name} is {one.shape}, "
                f"{files[0].name} is {pictures.shape[1:]}"
            )
        pictures[i] = one
    return pictures


def _read_png(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        grey = image.mode in ("1", "L")
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _picture_keys(env_id: str, space: spaces.Space[Any]) -> list[str]:
    """Which entries of an observation are pictures of the same kind as `observation`."""
    parts = dict(space) if isinstance(space, spaces.Dict) else {"observation": space}
    shapes = {name: part.shape for name, part in parts.items() if is_image_space(part)}
    if "observation" not in shapes:
        seen = {name: str(part) for name, part in parts.items()}
        raise ValueError(
            f"{env_id} does not show pictures (uint8, three axes) as its observation: {seen}. Take "
            f"one that does, such as rlkit/PointMaze-U-Pixels-v0, or wrap it in "
            f"rlkit.envs.wrappers.pixel_observation.PixelObservation"
        )
    wanted = shapes["observation"]
    _require_channels_last(env_id, wanted or ())
    return [name for name, shape in shapes.items() if shape == wanted]


def _require_channels_last(name: str, shape: tuple[int, ...]) -> None:
    if shape[0] <= 4 < shape[2]:
        raise ValueError(
            f"{name} has pictures of shape {shape}, channels first; they come last here: "
            f"numpy.moveaxis(frames, -3, -1), or TransposeObservation around the environment"
        )


def _seen(observation: Any, key: str) -> NDArray[np.uint8]:
    # Copied: a vector environment may write its next observation into the same array.
    return np.array(observation[key] if isinstance(observation, dict) else observation)


def _factors(venv: Any) -> Factors:
    # By their names alone: which environments there are is no business of this layer.
    single = [env.unwrapped for env in getattr(venv, "envs", ())]
    worlds = [venv.env.unwrapped] if isinstance(venv, GymVecEnv) else single
    if not worlds or not all(_tells_factors(world) for world in worlds):
        return {}
    rows = [world.simulation.factors(world.get_state()["simulation"]) for world in worlds]
    return {name: np.concatenate([row[name] for row in rows]).astype(float) for name in rows[0]}


def _tells_factors(world: Any) -> bool:
    return hasattr(world, "get_state") and hasattr(getattr(world, "simulation", None), "factors")


def _joined(parts: list[Frames]) -> Frames:
    """Frames one after another; factors that a part does not know are NaN there."""
    widths = {name: rows.shape[1] for part in parts for name, rows in part.factors.items()}

    def rows(part: Frames, name: str) -> NDArray[np.float64]:
        return part.factors.get(name, np.full((len(part), widths[name]), np.nan))

    pictures = np.concatenate([part.pictures for part in parts])
    return Frames(
        pictures, {name: np.concatenate([rows(part, name) for part in parts]) for name in widths}
    )
