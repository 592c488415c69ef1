"""Videos of an agent: an mp4 file, and an animated GIF for TensorBoard."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlkit.experiment.evaluate import Predicts, is_successful
from rlkit.goals import GoalRule
from rlkit.vec.checked_vec_env import require_finite_actions

Frame = NDArray[np.uint8]
_PAUSE = 0.5  # seconds for which an episode is shown after its success or its end
_GIF_RATE, _GIF_WIDTH, _GIF_FRAMES = 10, 240, 120
_WITHOUT_DISPLAY = (
    "Without a display, MuJoCo needs the environment variable MUJOCO_GL=egl or MUJOCO_GL=osmesa, "
    "and that library"
)
_ENCODER = (
    "`rlkit doctor` tests the encoder, `pip install --force-reinstall imageio-ffmpeg` brings it; "
    "--set pictures.video_episodes=0 trains without videos"
)
_LONGEST_VIDEO = 3_000  # frames


def frames_of(
    agent: Predicts,
    env: gym.Env[Any, Any],
    episodes: int,
    seed: int,
    rule: GoalRule | None = None,
    action_repeat: int = 1,
) -> Iterator[Frame]:
    """Runs episodes and yields images `(H, W, 3)`, one per step.

    An episode ends half a second after its goal was reached and held, since the rest of it would
    show an agent at rest.

    Args:
        agent: The policy; its actions are deterministic.
        env: Made with `render_mode="rgb_array"`.
        episodes: Number of episodes.
        seed: Seed of the first episode, increased by one for each further one.
        rule: Tells success where infos hold no `is_success`.
        action_repeat: Steps for which the agent's actions are held; all of them are shown.

    Raises:
        ValueError: If the environment renders no images.
    """
    pause = round(_PAUSE * frames_per_second(env))
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        action, hidden_state, done, held = None, None, False, 0
        yield _frame(env)
        for step in itertools.count():
            if done or held >= max(1, pause):
                break
            if step % action_repeat == 0:
                action, hidden_state = agent.predict(
                    observation, hidden_state, np.array([step == 0]), deterministic=True
                )
                require_finite_actions(np.asarray(action)[None])
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            held = held + 1 if is_successful(info, observation, rule) else 0
            yield _frame(env)
        last = _frame(env)
        for _ in range(pause - held):
            yield last


def _frame(env: gym.Env[Any, Any]) -> Frame:
    try:
        image: Any = env.render()
    except Exception as error:
        is_graphics = any(word in str(error).lower() for word in ("gl", "display", "mujoco"))
        advice = f". {_WITHOUT_DISPLAY}" if is_graphics else ""
        raise ValueError(f"{env} cannot render: {error}{advice}") from error
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise ValueError(
            f"{env} renders no images: render() returned {type(image).__name__}. It must support "
            f'render_mode="rgb_array" and return an array (H, W, 3)'
        )
    return np.asarray(image[..., :3], np.uint8)


def frames_per_second(env: gym.Env[Any, Any]) -> int:
    """The frame rate of an environment's images, in Hz."""
    return int(env.metadata.get("render_fps") or 30)


def record(
    agent: Predicts,
    env: gym.Env[Any, Any],
    path: Path,
    episodes: int,
    seed: int,
    rule: GoalRule | None = None,
    action_repeat: int = 1,
) -> list[Frame]:
    """Records episodes as an mp4 file, frame by frame, which needs little memory.

    Returns:
        A few small frames for `gif`.

    Raises:
        ValueError: If the environment renders no images.
    """
    rate = frames_per_second(env)
    path.parent.mkdir(parents=True, exist_ok=True)
    small: list[Frame] = []
    played = frames_of(agent, env, episodes, seed, rule, action_repeat)
    frames = itertools.islice(played, _LONGEST_VIDEO)
    first = _even(next(frames))
    with _encoder(path, first.shape[1], first.shape[0], rate) as stream:
        for number, frame in enumerate(itertools.chain([first], map(_even, frames))):
            stream.write(frame.tobytes())
            if number % max(1, round(rate / _GIF_RATE)) == 0 and len(small) < _GIF_FRAMES:
                small.append(_shrunk(frame))
    return small


@contextlib.contextmanager
def _encoder(path: Path, width: int, height: int, rate: int) -> Iterator[IO[bytes]]:
    """A pipe for raw frames, which become an mp4 file when it is closed."""
    staged = path.with_name(f".{path.name}")
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate} -i -"
    # The pixel format that all browsers support; the index at the start, for streaming.
    target = "-an -c:v libx264 -crf 20 -pix_fmt yuv420p -movflags +faststart -f mp4"
    program = [_encoder_program(), "-y", "-loglevel", "error"]
    # Without `file:`, a colon in the path would end the name of a protocol.
    command = [*program, *source.split(), *target.split(), f"file:{staged}"]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            try:
                yield process.stdin
                process.stdin.close()
            except BrokenPipeError:  # the error output of the encoder has the reason
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # writes what is still buffered, and fails again
            message = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            reason = message.splitlines()[0] if message else f"exit code {process.returncode}"
            raise ValueError(
                f"{path} cannot be encoded: {reason} (of the encoder {program[0]}). {_ENCODER}"
            )
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def _encoder_program() -> str:
    """The path of ffmpeg.

    Raises:
        ValueError: If there is none.
    """
    import imageio_ffmpeg

    try:
        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ValueError(f"there is no video encoder: {error}. {_ENCODER}") from error
    if not os.access(path, os.X_OK):
        raise ValueError(f"the video encoder {path} cannot be run. {_ENCODER}")
    return path


def _even(frame: Frame) -> Frame:
    # The usual pixel format halves the colour planes, so it needs even sides.
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _shrunk(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    if width <= _GIF_WIDTH:
        return frame
    size = (_GIF_WIDTH, round(height * _GIF_WIDTH / width))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def gif(frames: list[Frame]) -> bytes:
    """Frames `(H, W, 3)` as an animated GIF in a loop, 10 frames per second."""
    # One palette for all frames: static areas do not flicker, and the file is small.
    montage = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 8)]))
    palette = montage.quantize(128)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    stream = BytesIO()
    images[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / _GIF_RATE),
        loop=0,
        optimize=False,
    )
    return stream.getvalue()
