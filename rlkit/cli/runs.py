"""The commands for trained agents: `rlkit eval`, `record` and `plot`.

Imports wait until a command needs them, so that help answers at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rlkit.cli.console import Json, Run, describe, env_maker, print_json, quiet_output

if TYPE_CHECKING:
    from rlkit.experiment.session import Session


def evaluate(run: Run, episodes: int = 100, checkpoint: str = "last", json: Json = False) -> int:
    """Evaluate a trained agent on held-out episodes.

    Args:
        run: Folder of the run.
        episodes: Number of episodes; starts that satisfy their goal are replaced.
        checkpoint: last, best, or the number of a step.
        json: Print one JSON object on standard output and nothing else.
    """
    if episodes < 1:
        raise ValueError(f"--episodes {episodes} must be at least 1")
    from rlkit.experiment.evaluate import TEST_SEED

    with quiet_output(json), _loaded(run, checkpoint) as (session, step):
        summary = session.evaluate(episodes, TEST_SEED).summary()
    outcome = {"run": str(run), "step": step, **summary}
    if json:
        print_json(outcome)
    else:
        print(f"{run}, step {step:,}: {describe(outcome)}")
    return 0


def record(
    run: Run,
    episodes: int = 3,
    checkpoint: str = "last",
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Record a video of a trained agent.

    Args:
        run: Folder of the run.
        episodes: Number of episodes.
        checkpoint: last, best, or the number of a step.
        out: The .mp4 file; by default RUN/videos/step-N.mp4.
    """
    if episodes < 1:
        raise ValueError(f"--episodes {episodes} must be at least 1")
    from rlkit.experiment import train

    with _loaded(run, checkpoint) as (session, step):
        path = out or run / "videos" / f"step-{step}.mp4"
        train.record(session, path, episodes)
    print(path)
    return 0


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
    from rlkit.experiment.curves import success_curves

    success_curves(runs, group_by).savefig(out)
    print(out)
    return 0


@contextlib.contextmanager
def _loaded(run: Path, checkpoint: str) -> Iterator[tuple[Session, int]]:
    from rlkit.experiment.run_folder import RunFolder
    from rlkit.experiment.session import Session

    session, step = Session.load(RunFolder.open(run), env_maker(), checkpoint)
    try:
        yield session, step
    finally:
        session.close()
