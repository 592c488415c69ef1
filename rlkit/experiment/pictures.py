"""Pictures of a training: heat maps of goals and videos; no failure of them ends it."""

from __future__ import annotations

import contextlib
import functools
import warnings
from pathlib import Path

from rlkit.experiment import video
from rlkit.experiment.evaluate import TEST_SEED, EpisodeResult, EvaluationStopped
from rlkit.experiment.plots import goal_heat_map, imagined_goals, value_figure
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import EventFile, image_summary
from rlkit.experiment.session import Session
from rlkit.experiment.stop_requests import StopRequest
from rlkit.vec.separate import drawable_env, separate_env
from rlkit.vec.vec_env import goal_names


def draw(
    session: Session,
    run: RunFolder,
    events: EventFile,
    step: int,
    episodes: list[EpisodeResult],
    stop: StopRequest | None = None,
) -> None:
    """Draws the heat map and the video; a failure is a warning and does not end training.

    Args:
        session: Whose agent.
        run: Where videos go.
        events: TensorBoard's file.
        step: Environment steps so far.
        episodes: Evaluated episodes, for the heat map.
        stop: Ends the video once it is set.

    Raises:
        EvaluationStopped: If `stop` is set.
    """
    plan = session.recipe
    try:
        goals, success = session.agent.goal_outcomes
        title = f"{plan.env}, step {step:,}"
        figure = goal_heat_map(goals, success, episodes, title, goal_names(session.venv))
        if figure is not None:
            events.add_figure("eval/goal_heat_map", figure, step)
        _draw_imagined(session, run, events, step)
        _draw_values(session, run, events, step, title)
        if plan.pictures.video_episodes > 0:
            path = run.videos / f"step-{step}.mp4"
            frames = record(session, path, plan.pictures.video_episodes, stop=stop)
            height, width = frames[0].shape[:2]
            events.add(image_summary("eval/video", video.gif(frames), height, width), step)
    except EvaluationStopped:
        raise
    except Exception as error:
        warnings.warn(f"no pictures at step {step}: {error}", stacklevel=2)


def record(
    session: Session,
    path: Path,
    episodes: int,
    seed: int = TEST_SEED,
    stop: StopRequest | None = None,
) -> list[video.Frame]:
    """Records held-out episodes of a session's agent as an mp4 file; returns frames for a GIF.

    The environment is in a process of its own: if drawing crashes it, the training goes on.

    Raises:
        ValueError: If the environment draws no pictures.
        RuntimeError: If it crashes, or hangs longer than `worker_timeout_s`.
        EvaluationStopped: If `stop` is set.
    """
    recipe = session.recipe
    options = {**recipe.env_options, "render_mode": "rgb_array"}
    build = functools.partial(drawable_env, session.make, recipe.env, options)

    def check() -> None:
        if stop is not None and stop.is_set():
            raise EvaluationStopped

    try:
        env = separate_env(build, recipe.worker_timeout_s, check)
    except RuntimeError as error:
        raise ValueError(f"{recipe.env} cannot be drawn: {error}") from error
    with contextlib.closing(env):
        first, repeat = seed + recipe.seed, recipe.action_repeat
        return video.record(session.agent, env, path, episodes, first, session.rule, repeat)


def _draw_values(
    session: Session, run: RunFolder, events: EventFile, step: int, title: str
) -> None:
    """Writes the values against steps to the goal, which agents of other kinds may not tell."""
    tell = getattr(session.agent, "value_curve", None)
    curve = None if tell is None else tell()
    if curve is not None:
        steps, value, achieved = curve
        figure = value_figure(steps, value, achieved, title)
        path = run.path / "value_against_steps.png"
        events.add_figure("eval/value_against_steps", figure, step, path)


def _draw_imagined(session: Session, run: RunFolder, events: EventFile, step: int) -> None:
    """Writes the goals that the agent imagines to TensorBoard and to the run's folder."""
    goals = getattr(session.agent, "episode_goals", None)
    shown = None if goals is None else goals.decoded()
    if shown is not None:
        figure, path = imagined_goals(shown), run.path / "imagined_goals.png"
        events.add_figure("train/imagined_goals", figure, step, path)
