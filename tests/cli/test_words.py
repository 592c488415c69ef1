import json
import resource
import subprocess
import sys

import pytest
import wrong_lines
from wrong_lines import WRONG

from rlkit.cli.main import COMMANDS
from rlkit.cli.words import one_setting_per_flag, resolved, whole_number


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each wrong line does in an empty folder, all in one fresh process; and the folder."""
    folder = tmp_path_factory.mktemp("wrong")
    done = subprocess.run(
        [sys.executable, wrong_lines.__file__],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), folder


def test_there_are_a_hundred_wrong_lines():
    assert len({line for line, _ in WRONG}) == len(WRONG) >= 100


@pytest.mark.parametrize(("place", "line"), list(enumerate(line for line, _ in WRONG)))
def test_a_wrong_line_is_one_message(outcomes, place, line):
    found, code, out, err, _ = outcomes[0]["rows"][place]
    assert found == line
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1, "one line"
    assert WRONG[place][1] in err
    assert "Traceback" not in err


def test_wrong_lines_cost_no_torch_and_leave_nothing(outcomes):
    report, folder = outcomes
    assert not report["torch"]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_wrong_lines_answer_at_once(outcomes):
    # The first lines import what all need; the slowest are those that import Gymnasium.
    slow = {row[0]: row[4] for row in outcomes[0]["rows"] if row[4] > 0.5}
    assert slow == {}


@pytest.mark.slow
@pytest.mark.parametrize("line", ["tain quickstart", "train quikstart", "eval nowhere"])
def test_a_mistake_answers_at_once_in_a_process_of_its_own(tmp_path, line):
    def seconds():
        # Of the processor: the wall clock of a loaded machine tells little.
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = seconds()
    command = [sys.executable, "-m", "rlkit", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert seconds() - before < 0.5


@pytest.mark.parametrize(
    ("text", "value"), [("20", 20), ("20_000", 20_000), ("1e5", 100_000), ("2.5e3", 2500)]
)
def test_whole_numbers_may_be_written_with_an_exponent(text, value):
    assert whole_number("--steps", text) == value
    program, command, rest = resolved(["train", "quickstart", "--steps", text], COMMANDS)
    assert (program, rest) == ("rlkit train", ["quickstart", "--steps", str(value)])
    assert command is COMMANDS["train"]


def test_options_are_found_in_every_spelling():
    words = ["world", "score", "a", "b", "--data", "tanks", "--batch_size=1e2", "--no-controls"]
    program, _, rest = resolved([*words, "--horizons", "1", "5"], COMMANDS)
    assert program == "rlkit world score"
    assert rest == [
        *("a", "b", "--data", "tanks", "--batch-size=100", "--no-controls", "--horizons", "1", "5")
    ]


def test_help_is_never_a_mistake():
    assert resolved(["train", "--stpes", "--help"], COMMANDS)[2] == ["--help"]
    assert resolved([], COMMANDS)[0] == "rlkit"


def test_several_settings_may_follow_one_flag():
    assert one_setting_per_flag(["x", "--set", "a=1", "b=2", "--json", "c=3"]) == [
        *("x", "--set", "a=1", "--set", "b=2", "--json", "c=3")
    ]


def test_the_version_is_printed(rlkit):
    import rlkit as package

    assert rlkit("--version") == (0, f"rlkit-suite {package.__version__}\n", "")


def test_the_command_alone_prints_help(rlkit):
    code, out, err = rlkit()
    assert (code, err) == (0, "")
    assert "train" in out
    assert "usage: rlkit world" in rlkit("world")[1]


def test_python_runs_the_package():
    done = subprocess.run(
        [sys.executable, "-m", "rlkit", "list", "agents"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sac" in done.stdout.split()
