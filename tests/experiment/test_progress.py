import io
import re
import sys
import time

from rlkit.experiment import progress
from rlkit.experiment.evaluate import EpisodeResult, EvaluationResult
from rlkit.experiment.progress import ProgressReport
from rlkit.experiment.recipe import make_recipe

RECIPE = make_recipe(
    {"env": "rlkit/PointMaze-Open-v0", "num_envs": 8, "steps": 1_000_000, "description": "A task"}
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_terminal(monkeypatch):
    """A terminal of 80 columns instead of standard error; pytest would undo it after a fixture."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    return stream


def result(success):
    rows = [EpisodeResult(i, 50, -1_234.5, success) for i in range(100)]
    return EvaluationResult(rows, 0)


def shown(stream):
    """The lines that reach a terminal, without what moves its cursor and colours."""
    return [CONTROL.sub("", line).rstrip() for line in re.split(r"[\r\n]+", stream.getvalue())]


def test_everything_fits_into_80_columns(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with ProgressReport(1_000_000) as report:
        report.announce(RECIPE, "runs/out/rlkit-PointMaze-Open-v0/sac/goal-seed0", "cpu")
        for step in (1, 500_000, 1_000_000):
            report.update(step)
            time.sleep(0.25)  # the bar is drawn ten times per second
            report.report(result(True))
        report.phase("last evaluation")
    lines = shown(terminal)
    assert max(map(len, lines)) <= 80
    (half,) = {line for line in lines if " 50% 500,000/1,000,000" in line and "left" in line}
    assert half.startswith("training ")
    assert any(line.startswith("last evaluation ") for line in lines)
    assert "step 500,000: success 100% (95 % interval 96% to 100%), return -1234.50" in lines


def test_a_pipe_gets_plain_lines(capsys):
    with ProgressReport(100, start=20) as report:
        report.announce(RECIPE, "my run", "cuda")
        for step in range(20, 101, 4):
            report.update(step)
        report.report(result(None))
        report.phase("last evaluation")
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[:5] == [
        "A task",
        "sac on rlkit/PointMaze-Open-v0: from step 20 to 100 steps, 8 environments, seed 0, cuda",
        "run folder: my run",
        "curves: tensorboard --logdir 'my run'",
        "Ctrl-C saves and stops.",
    ]
    assert 5 <= sum("steps/s" in line for line in lines) <= 10
    assert lines[-1] == "step 100: return -1234.50 over 100 episodes"
