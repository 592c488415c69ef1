"""The loop of a training: after every round come evaluation, pictures and checkpoint.

The last checkpoint is saved before the last evaluation: whatever fails afterwards, in the
environment, in drawing or on a full disk, leaves a complete training, and `resume` evaluates it.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlkit.experiment import pictures
from rlkit.experiment.evaluate import (
    EVALUATION_SEED,
    TEST_SEED,
    EpisodeResult,
    EvaluationResult,
    EvaluationStopped,
)
from rlkit.experiment.failure import is_out_of_memory, write_failure
from rlkit.experiment.progress import ProgressReport
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import RunLogger
from rlkit.experiment.session import Session
from rlkit.experiment.stop_requests import PATIENCE_S, NotHeeded, StopRequest, stop_requests
from rlkit.goals.failure import EnvironmentFailed
from rlkit.io.checkpoint import CheckpointError, saved_steps
from rlkit.vec.trail import Trail

_SHOWN_METRICS = ("eval/success_rate", "eval/mean_reward")  # beside the settings in TensorBoard


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
        self._saved = step if restored else None  # step of the newest checkpoint
        # Step after which evaluation, pictures and checkpoint have not been due yet.
        self._before = int(self._restored.get("before", step))
        self._is_evaluating = False
        self._earlier_s = float(self._restored.get("wall_s", 0.0))
        self._began = time.monotonic()

    def run(self, stop: StopRequest | None = None) -> dict[str, Any]:
        """Trains; see `rlkit.experiment.train.train` for what it takes, returns and raises."""
        self._logger = RunLogger(self._run.path)
        self._logger.restore(self._restored.get("pending", {}))
        if self._step == 0:
            self._logger.events.add_settings(self._session.recipe.flat(), _SHOWN_METRICS)
        self._session.agent.set_logger(self._logger)
        try:
            steps = self._session.recipe.steps
            with ProgressReport(steps, self._step) as self._report, stop_requests(stop) as request:
                device = getattr(self._session.agent, "device", self._session.recipe.device)
                self._report.announce(self._session.recipe, self._run.path, device)
                try:
                    return self._loop(request)
                except NotHeeded:
                    return self._abandoned(request)
                except EnvironmentFailed as error:
                    kind, told = type(error), self._after_failure(error)
                    raise kind(told) from error
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise MemoryError(self._after_failure(error)) from error
                except FloatingPointError as error:
                    raise FloatingPointError(f"{error}. {self._advice()}") from error
        finally:
            self._logger.close()

    def _loop(self, stop: StopRequest) -> dict[str, Any]:
        for before, step in self._rounds():
            self._before, self._step = before, step
            self._report.update(step)
            try:
                is_over = self._after_round(before, step, stop)
            except EvaluationStopped:
                # Evaluating changes nothing in the agent: a resumed run begins it again.
                return self._save_and_stop(stop, before=before)
            self._before = step
            if is_over:
                break
            if stop.is_set():
                return self._save_and_stop(stop)
        return self._finish(stop)

    def _rounds(self) -> Iterator[tuple[int, int]]:
        """Environment steps before and after each round; first of one that was not completed."""
        if "before" in self._restored:
            yield int(self._restored["before"]), self._step
        if self._is_solved() or self._step >= self._session.recipe.steps:
            return
        before = self._step
        remaining = self._session.recipe.steps - before
        for step in self._session.agent.iterate(remaining, reset_num_timesteps=before == 0):
            yield before, step
            before = step

    def _after_round(self, before: int, step: int, stop: StopRequest) -> bool:
        """Evaluates, draws and saves what is due; returns whether the training is over."""
        plan, episodes = self._session.recipe, list[EpisodeResult]()
        if step >= plan.steps:
            return True
        if Period(plan.evaluation.every).ends(before, step):
            result = self._evaluate(plan.evaluation.episodes, EVALUATION_SEED, stop)
            self._add_evaluation(result, final=False)
            episodes = result.rows
            if self._is_solved():
                return True
        if Period(plan.pictures.every).ends(before, step) and not stop.is_set():
            with contextlib.suppress(EvaluationStopped):  # left out: saving comes first
                self._draw(episodes, stop)
        if Period(plan.checkpoint.every).ends(before, step) and not stop.is_set():
            self._save_or_warn()
        return False

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
        if self._saved != self._step:
            stop.heeded()
            self._save()
        if stop.is_set():
            return self._stopped(stop)
        self._report.phase("last evaluation")
        try:
            episodes = self._session.recipe.evaluation.final_episodes
            result = self._evaluate(episodes, TEST_SEED, stop)
            self._draw(result.rows, stop)
        except EvaluationStopped:
            return self._stopped(stop)
        # Last, because it says that a resumed run has nothing left to do.
        self._add_evaluation(result, final=True)
        return self._outcome(None)

    def _save_and_stop(self, stop: StopRequest, **facts: Any) -> dict[str, Any]:
        stop.heeded()
        self._save(**facts)
        return self._stopped(stop)

    def _stopped(self, stop: StopRequest) -> dict[str, Any]:
        stop.heeded()
        self._report.print(f"stopped at step {self._step:,} by {stop.reason}, and saved")
        return self._outcome(stop.reason)

    def _after_failure(self, error: Exception) -> str:
        """Saves what was collected before a failure; returns what to tell the user."""
        step = int(getattr(self._session.agent, "num_timesteps", self._step))
        facts = [f"{str(error) or 'no memory is left'}, after step {step:,} of the training"]
        is_of_env = isinstance(error, EnvironmentFailed)
        if isinstance(error, EnvironmentFailed) and isinstance(error.trail, Trail):
            with contextlib.suppress(OSError):
                index = self._session.index_of(error.trail)
                recipe, saved = self._session.recipe, self._saved
                path = write_failure(self._run, recipe, step, error, index, saved)
                facts.append(
                    f"`python -m rlkit.cli.repeat_failure {path}{self._trust()}` repeats it"
                )
        try:
            # An update is written when it is complete, so that without memory nothing is broken.
            if not self._is_evaluating and (not is_of_env or self._session.renew_environments()):
                self._step = step
                self._save(before=self._before)
            elif self._is_evaluating and self._saved != self._step:
                self._save(before=self._before)
        except Exception as second:
            facts.append(f"no checkpoint could be made of it ({type(second).__name__}: {second})")
        if self._saved == self._step:
            anew = "goes on with new episodes" if is_of_env else "goes on"
            anew = "evaluates again" if self._is_evaluating else anew
            facts.append(f"what came before is saved, and `{self._resume_command()}` {anew}")
        elif saved_steps(self._run.checkpoints):
            facts.append(f"`{self._resume_command()}` goes on from the newest checkpoint")
        if not is_of_env:
            facts.append("lower agent_options.batch_size with --set when resuming, or free memory")
        return "; ".join(facts)

    def _advice(self) -> str:
        """What can be done after the training has failed."""
        saved = saved_steps(self._run.checkpoints)
        if not saved:
            return "No checkpoint was saved yet: train again with other settings"
        return (
            f"The newest checkpoint, step-{saved[-1]}, is from before; go on from it with other "
            f"settings: `{self._resume_command()} --set agent_options.learning_rate=...`"
        )

    def _resume_command(self) -> str:
        return f"rlkit resume {self._run.path}{self._trust()}"

    def _trust(self) -> str:
        return " --trust" if ":" in self._session.recipe.env else ""

    def _abandoned(self, stop: StopRequest) -> dict[str, Any]:
        """The outcome where what was in progress could not be completed."""
        saved = saved_steps(self._run.checkpoints)
        kept = (
            f"the newest checkpoint is of step {saved[-1]:,}" if saved else "nothing was saved yet"
        )
        self._report.print(
            f"stopped after step {self._step:,} by {stop.reason}: what was in progress did not end "
            f"within {PATIENCE_S:g} s, so it is left out; {kept}"
        )
        return self._outcome(stop.reason)

    def _evaluate(self, episodes: int, seed: int, stop: StopRequest) -> EvaluationResult:
        self._is_evaluating = True
        result = self._session.evaluate(episodes, seed, stop)
        self._is_evaluating = False
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
        self._report.report(result)
        return result

    def _add_evaluation(self, result: EvaluationResult, *, final: bool) -> None:
        self._run.add_evaluation({"step": self._step, "final": final, **result.summary()})

    def _draw(self, episodes: list[EpisodeResult], stop: StopRequest) -> None:
        pictures.draw(self._session, self._run, self._logger.events, self._step, episodes, stop)

    def _save(self, **facts: Any) -> None:
        self._logger.sync()
        state = self._session.state_dict(
            pending=self._logger.pending(),
            wall_s=self._wall_s(),
            written={**self._logger.sizes(), "evaluations": len(self._run.evaluations())},
            **facts,
        )
        self._run.save_checkpoint(self._step, state)
        self._saved = self._step

    def _save_or_warn(self) -> None:
        # A later checkpoint may succeed; one failure must not end hours of training.
        try:
            self._save()
        except CheckpointError as error:
            self._saved = None  # and the environments were put into a state that is not saved
            warnings.warn(str(error), stacklevel=2)

    def _outcome(self, stopped: str | None) -> dict[str, Any]:
        return outcome(self._run, self._step, self._wall_s(), stopped)

    def _wall_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began


def outcome(run: RunFolder, step: int, wall_s: float, stopped: str | None) -> dict[str, Any]:
    """What a training returns; see `rlkit.experiment.train.train`."""
    nothing = {"episodes": 0, "success_rate": None, "success_ci95": None, "return_mean": None}
    return {
        **(run.last_evaluation() or nothing),
        "run": str(run.path),
        "steps": step,
        "wall_s": round(wall_s, 3),
        "stopped": stopped,
    }
