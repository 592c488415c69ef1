"""Training: the agent yields after every round; evaluation, pictures and checkpoints follow it."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.experiment import video
from rlkit.experiment.evaluate import (
    EVALUATION_SEED,
    TEST_SEED,
    EpisodeResult,
    EvaluationResult,
    EvaluationStopped,
)
from rlkit.experiment.plots import goal_heat_map, imagined_goals
from rlkit.experiment.progress import ProgressReport
from rlkit.experiment.recipe import Recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import RunLogger, image_summary
from rlkit.experiment.session import Session
from rlkit.experiment.stop_requests import StopRequest, stop_requests
from rlkit.io.checkpoint import CheckpointError, load_latest
from rlkit.trust import trusted_files
from rlkit.vec.vec_env import MakeEnv, goal_names

_SHOWN_METRICS = ("eval/success_rate", "eval/mean_reward")  # beside the settings in TensorBoard


def train(
    recipe: Recipe, make: MakeEnv, path: Path, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Trains a recipe into a new run folder.

    It may be called in any thread and in a child process. SIGINT, SIGTERM and SIGHUP stop it only
    in the main thread of its process, `stop` everywhere.

    Args:
        recipe: What to train.
        make: Builds environments, as `rlkit.envs.make.make` does.
        path: The run's folder.
        stop: Requests from another thread to save and stop.

    Returns:
        The last evaluation as plain data, with `run`, `steps`, `wall_s` and `stopped`: why the run
        was stopped, such as the name of a signal, or None.

    Raises:
        ValueError: If the recipe cannot be trained or the folder holds a run; nothing is written.
        CheckpointError: If the last checkpoint cannot be saved.
    """
    RunFolder(path).require_free()
    session = Session.build(recipe, make, check=recipe.check_env)
    try:
        run = RunFolder.create(path, recipe)
        with run.lock():
            return TrainingLoop(session, run).run(stop)
    finally:
        session.close()


def resume(
    path: Path,
    make: MakeEnv,
    steps: int | None = None,
    stop: StopRequest | None = None,
    *,
    trust: bool = False,
) -> dict[str, Any]:
    """Continues a run from its newest intact checkpoint, exactly as if it had never stopped.

    Args:
        path: The run's folder. Without any checkpoint it starts over.
        make: Builds environments.
        steps: New total of environment steps; None for the recipe's.
        stop: As for `train`.
        trust: Whether the run's files may name any class, which is then imported.

    Returns:
        What `train` returns, without training if the run has finished already.

    Raises:
        ValueError: If the folder holds no run, or its checkpoints do not fit.
        UntrustedError: If its files name others than installed classes and are not trusted.
    """
    run = RunFolder.open(path)
    with trusted_files(trust), run.lock():
        recipe = run.recipe()
        saved = load_latest(run.checkpoints)
        step, state = saved or (0, {})
        last = run.last_evaluation()
        if steps is not None and steps < step:
            raise ValueError(f"{str(path)!r} has {step} steps already; --steps is the new total")
        if last is not None and last["final"] and last["step"] == step and steps in (None, step):
            return _outcome(run, step, state["session"]["wall_s"], None)
        recipe = recipe if steps is None else dataclasses.replace(recipe, steps=steps)
        session = Session.build(recipe, make)
        try:
            restored = session.load_state_dict(state) if saved else {}
            run.rewind(step if saved else -1)
            run.save_recipe(recipe)
            return TrainingLoop(session, run, step, restored).run(stop)
        finally:
            session.close()


@dataclass(frozen=True)
class Period:
    """A period of environment steps, after each of which something is due once.

    It has no state besides the step, so a resumed run does everything at the same steps.

    Attributes:
        every: Steps in a period; a round of training may be longer. 0 is never.
    """

    every: int

    def ends(self, before: int, now: int) -> bool:
        """Whether a period ended after step `before` and up to step `now`."""
        return self.every > 0 and now // self.every > before // self.every


class TrainingLoop:
    """Training from a start or a checkpoint until it ends or a stop is requested.

    Args:
        session: Agent and environments, restored already.
        run: The run's folder, rewound already.
        step: Environment steps done.
        restored: What `session.load_state_dict` returned; empty at a start.
    """

    def __init__(
        self,
        session: Session,
        run: RunFolder,
        step: int = 0,
        restored: dict[str, Any] | None = None,
    ) -> None:
        self._session, self._run, self._step = session, run, step
        self._restored = restored or {}
        self._earlier_s = float(self._restored.get("wall_s", 0.0))
        self._began = time.monotonic()

    def run(self, stop: StopRequest | None = None) -> dict[str, Any]:
        """Trains; see `train` for the argument and for what it returns and raises."""
        self._logger = RunLogger(self._run.path)
        self._logger.restore(self._restored.get("pending", {}))
        self._session.agent.set_logger(self._logger)
        if self._step == 0:
            self._logger.events.add_settings(self._session.recipe.flat(), _SHOWN_METRICS)
        try:
            steps = self._session.recipe.steps
            with ProgressReport(steps, self._step) as self._report, stop_requests(stop) as request:
                device = getattr(self._session.agent, "device", self._session.recipe.device)
                self._report.announce(self._session.recipe, self._run.path, device)
                return self._loop(request)
        finally:
            self._logger.close()

    def _loop(self, stop: StopRequest) -> dict[str, Any]:
        recipe = self._session.recipe
        is_over = self._is_solved() or self._step >= recipe.steps
        result: EvaluationResult | None = None
        for step in () if is_over else self._rounds():
            before, self._step = self._step, step
            self._report.update(step)
            is_over = step >= recipe.steps
            if not is_over and Period(recipe.evaluation.every).ends(before, step):
                result = self._evaluate(recipe.evaluation.episodes, EVALUATION_SEED)
                is_over = self._is_solved()
            if stop.is_set():
                return self._save_and_stop(stop)
            if is_over:
                break
            if Period(recipe.pictures.every).ends(before, step):
                self._draw(result.rows if result else [])
            if Period(recipe.checkpoint.every).ends(before, step):
                self._save_or_warn()
        return self._finish(stop)

    def _rounds(self) -> Iterator[int]:
        remaining = self._session.recipe.steps - self._step
        rounds: Iterator[int] = self._session.agent.iterate(
            remaining, reset_num_timesteps=self._step == 0
        )
        return rounds

    def _is_solved(self) -> bool:
        """Whether an evaluation at the current step reached what the recipe trains for."""
        plan, last = self._session.recipe.evaluation, self._run.last_evaluation()
        if last is None or last["final"] or last["step"] != self._step:
            return False
        targets = {"success_rate": plan.stop_at_success, "return_mean": plan.stop_at_return}
        return any(
            target is not None and last[name] is not None and last[name] >= target
            for name, target in targets.items()
        )

    def _finish(self, stop: StopRequest) -> dict[str, Any]:
        self._report.phase("last evaluation")
        try:
            result = self._evaluate(
                self._session.recipe.evaluation.final_episodes, TEST_SEED, final=True, stop=stop
            )
        except EvaluationStopped:
            # Evaluating changes nothing in the agent: a resumed run begins the evaluation again.
            return self._save_and_stop(stop)
        self._draw(result.rows)
        # Last, because a checkpoint at this step implies that evaluation and pictures exist.
        self._save()
        return self._outcome(None)

    def _save_and_stop(self, stop: StopRequest) -> dict[str, Any]:
        self._save()
        self._report.print(f"stopped at step {self._step:,} by {stop.reason}, and saved")
        return self._outcome(stop.reason)

    def _evaluate(
        self, episodes: int, seed: int, *, final: bool = False, stop: StopRequest | None = None
    ) -> EvaluationResult:
        result = self._session.evaluate(episodes, seed, stop)
        summary = result.summary()
        logger = self._logger
        logger.record("eval/mean_reward", summary["return_mean"])
        logger.record("eval/mean_ep_length", summary["length_mean"])
        if summary["success_rate"] is not None:
            logger.record("eval/success_rate", summary["success_rate"])
        lost = getattr(self._session.venv, "workers_lost", None)
        if lost is not None:
            logger.record("env/workers_lost", lost)
        logger.dump(self._step)
        self._run.add_evaluation({"step": self._step, "final": final, **summary})
        self._report.report(result)
        return result

    def _draw(self, episodes: list[EpisodeResult]) -> None:
        """Draws the heat map and the video; a failure is a warning and does not end training."""
        plan = self._session.recipe
        try:
            goals, success = self._session.agent.goal_outcomes
            title = f"{plan.env}, step {self._step:,}"
            names = goal_names(self._session.venv)
            figure = goal_heat_map(goals, success, episodes, title, names)
            if figure is not None:
                self._logger.events.add_figure("eval/goal_heat_map", figure, self._step)
            self._draw_imagined()
            if plan.pictures.video_episodes > 0:
                path = self._run.videos / f"step-{self._step}.mp4"
                frames = record(self._session, path, plan.pictures.video_episodes)
                height, width = frames[0].shape[:2]
                picture = image_summary("eval/video", video.gif(frames), height, width)
                self._logger.events.add(picture, self._step)
        except Exception as error:
            warnings.warn(f"no pictures at step {self._step}: {error}", stacklevel=2)

    def _save(self) -> None:
        self._logger.sync()
        state = self._session.state_dict(pending=self._logger.pending(), wall_s=self._wall_s())
        self._run.save_checkpoint(self._step, state)

    def _save_or_warn(self) -> None:
        # A later checkpoint may succeed; one failure must not end hours of training.
        try:
            self._save()
        except CheckpointError as error:
            warnings.warn(str(error), stacklevel=2)

    def _draw_imagined(self) -> None:
        """Writes the goals that the agent imagines to TensorBoard and to the run's folder."""
        goals = getattr(self._session.agent, "episode_goals", None)
        shown = None if goals is None else goals.decoded()
        if shown is not None:
            figure, path = imagined_goals(shown), self._run.path / "imagined_goals.png"
            self._logger.events.add_figure("train/imagined_goals", figure, self._step, path)

    def _outcome(self, stopped: str | None) -> dict[str, Any]:
        return _outcome(self._run, self._step, self._wall_s(), stopped)

    def _wall_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began


def _outcome(run: RunFolder, step: int, wall_s: float, stopped: str | None) -> dict[str, Any]:
    nothing = {"episodes": 0, "success_rate": None, "success_ci95": None, "return_mean": None}
    return {
        **(run.last_evaluation() or nothing),
        "run": str(run.path),
        "steps": step,
        "wall_s": round(wall_s, 3),
        "stopped": stopped,
    }


def record(session: Session, path: Path, episodes: int, seed: int = TEST_SEED) -> list[video.Frame]:
    """Records held-out episodes of a session's agent as an mp4 file; returns frames for a GIF.

    Raises:
        ValueError: If the environment draws no pictures.
    """
    recipe = session.recipe
    options = {**recipe.env_options, "render_mode": "rgb_array"}
    env = session.make(recipe.env, **options)
    try:
        return video.record(session.agent, env, path, episodes, seed + recipe.seed, session.rule)
    finally:
        env.close()
