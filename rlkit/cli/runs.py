"""The commands for trained agents: `rlkit eval`, `record` and `plot`.

Imports wait until a command needs them, so that help answers at once.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rlkit.cli.console import (
    Json,
    Run,
    Trust,
    describe,
    env_maker,
    print_json,
    quiet_output,
    trusting,
)

if TYPE_CHECKING:
    from rlkit.experiment.session import Session


@trusting
def evaluate(
    run: Run,
    episodes: int = 100,
    checkpoint: str = "last",
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Evaluate a trained agent on held-out episodes.

    Args:
        run: Folder of the run.
        episodes: Number of episodes; starts that satisfy their goal are replaced.
        checkpoint: last, best, or the number of a step.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    if episodes < 1:
        raise ValueError(f"--episodes {episodes} must be at least 1")
    with quiet_output(json), _loaded(run, checkpoint) as (session, step):
        from rlkit.experiment.evaluate import TEST_SEED

        summary = session.evaluate(episodes, TEST_SEED).summary()
    outcome = {"run": str(run), "step": step, **summary}
    if json:
        print_json(outcome)
    else:
        print(f"{run}, step {step:,}: {describe(outcome)}")
    return 0


@trusting
def record(
    run: Run,
    episodes: int = 3,
    checkpoint: str = "last",
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    trust: Trust = False,
) -> int:
    """Record a video of a trained agent.

    Args:
        run: Folder of the run.
        episodes: Number of episodes.
        checkpoint: last, best, or the number of a step.
        out: The video, .mp4 or .gif; by default RUN/videos/step-N.mp4.
        trust: Let files name any class or environment, which is then imported and run.
    """
    if episodes < 1:
        raise ValueError(f"--episodes {episodes} must be at least 1")
    if out is not None and out.suffix not in (".mp4", ".gif"):
        raise ValueError(f"--out {out} must end in .mp4 or .gif")
    with _loaded(run, checkpoint) as (session, step):
        path = out or run / "videos" / f"step-{step}.mp4"
        if path.suffix == ".gif":
            _record_gif(session, path, episodes)
        else:
            from rlkit.experiment.train import record as record_video

            record_video(session, path, episodes)
    print(path)
    return 0


def _record_gif(session: Session, path: Path, episodes: int) -> None:
    """Records a small animated picture, beside which no video remains."""
    from rlkit.experiment import train, video

    with tempfile.TemporaryDirectory() as folder:
        frames = train.record(session, Path(folder) / "video.mp4", episodes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(video.gif(frames))


def plot(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN...")],
    out: Path = Path("success.png"),
    group_by: Annotated[tuple[str, ...], arg(metavar="KEY...")] = (),
) -> int:
    """Plot success over steps; runs of one recipe, with other seeds, share a curve.

    Args:
        runs: Folders of runs, or folders that hold runs.
        out: The figure, .png, .svg or .pdf.
        group_by: Settings such as agent_options.learning_rate: runs with equal values share a
            curve, which names the settings that it mixes.
    """
    if not runs:
        raise ValueError("name at least one run")
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--out {out} must end in .png, .svg or .pdf")
    from rlkit.experiment.folders import require_run, runs_in

    for run in runs:
        if not runs_in(run):
            require_run(run)  # before Matplotlib is imported
    from rlkit.experiment.curves import success_curves

    success_curves(runs, group_by).savefig(out)
    print(out)
    return 0


@contextlib.contextmanager
def _loaded(run: Path, checkpoint: str) -> Iterator[tuple[Session, int]]:
    from rlkit.experiment.folders import require_run

    require_run(run)  # before torch is imported
    from rlkit.experiment.run_folder import RunFolder
    from rlkit.experiment.session import Session

    session, step = Session.load(RunFolder.open(run), env_maker(), checkpoint)
    try:
        yield session, step
    finally:
        session.close()
