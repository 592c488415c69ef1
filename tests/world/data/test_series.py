import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.world.data.series import read_csv

GOOD = [
    "time,level,heat,valve,note",
    "0,1.0,20,0.5,a",
    "10,2.0,21,0.6,b",
    "20,4.0,22,0.7,",
    "30,8.0,23,0.8,d",
]


@pytest.fixture
def table(tmp_path):
    """Writes lines to a file and gives its path."""

    def write(lines, encoding="utf-8"):
        path = tmp_path / "series.csv"
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


def replaced(line, text):
    return [text if i == line else one for i, one in enumerate(GOOD)]


def test_targets_become_observations_and_drivers_actions(table):
    found = read_csv(table(GOOD), ["level", "heat"], ["valve"], time="time")
    np.testing.assert_array_equal(found.episodes.observation, [[1, 20], [2, 21], [4, 22], [8, 23]])
    np.testing.assert_array_equal(found.episodes.action, [[0.5], [0.6], [0.7]])
    assert found.episodes.spans[:, 2].tolist() == [3]
    assert (found.step, found.rows, found.missing, found.short) == (10, 4, 0, 0)
    assert (found.targets, found.drivers) == (("level", "heat"), ("valve",))


def test_neither_drivers_nor_times_are_needed(table):
    found = read_csv(table(GOOD, "utf-8-sig"), ["level"])
    assert found.episodes.action.shape == (3, 0)
    assert found.step is None


def test_other_delimiters_and_blank_lines_are_read(table):
    lines = [one.replace(",", ";") for one in [*GOOD, ""]]
    assert read_csv(table(lines), ["level"], delimiter=";").rows == 4


@pytest.mark.parametrize("empty", ["", "  ", "NaN", "NA", "null"])
@pytest.mark.parametrize("column", [1, 3])
def test_a_missing_value_parts_the_series(table, empty, column):
    rows = [[str(10 * t), str(t * t), "0", str(t), "x"] for t in range(9)]
    rows[4][column] = empty
    found = read_csv(table([GOOD[0], *map(",".join, rows)]), ["level"], ["valve"], time="time")
    assert found.episodes.spans[:, 2].tolist() == [3, 3]
    assert found.episodes.observation[:, 0].tolist() == [0, 1, 4, 9, 25, 36, 49, 64]
    assert found.episodes.action[:, 0].tolist() == [0, 1, 2, 5, 6, 7]
    assert (found.missing, found.short) == (1, 0)


def test_a_missing_value_in_a_column_that_is_not_read_is_nothing(table):
    assert read_csv(table(replaced(2, "10,2.0,what,0.6,b")), ["level"]).missing == 0


def test_a_pause_parts_the_series_and_short_pieces_are_left_out(table):
    times = [0, 1, 2, 3, 10, 20, 21, 22]
    lines = ["t,y", *(f"{t},{t % 5}" for t in times)]
    found = read_csv(table(lines), ["y"], time="t")
    assert found.episodes.spans[:, 2].tolist() == [3, 2]
    assert (found.step, found.missing, found.short) == (1, 0, 1)
    assert read_csv(table(lines), ["y"], time="t", shortest=4).episodes.steps == 3
    with pytest.raises(ValueError, match=r"no 5 rows in a row without a gap, .* 4 of 8 rows"):
        read_csv(table(lines), ["y"], time="t", shortest=5)


def test_dates_are_times(table):
    lines = ["when,y"] + [f"2024-03-31T0{h}:30:00,{h}" for h in range(5)]  # no summer time in UTC
    assert read_csv(table(lines), ["y"], time="when").step == 3600


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, "10,2.0,much,0.6,b", "line 3, column 'heat': 'much' is no finite number"),
        (2, "10,2.0,1_000,0.6,b", "line 3, column 'heat': '1_000' is no finite number"),
        (3, "20,inf,22,0.7,c", "line 4, column 'level': 'inf' is no finite number"),
        (3, "20,4.0,22,0.7", "line 4: 4 values, but 5 column names"),
        (2, "soon,2.0,21,0.6,b", "line 3, column 'time': 'soon' is neither a number nor an ISO"),
        (2, ",2.0,21,0.6,b", "line 3, column 'time': '' is no time"),
        (2, "0,2.0,21,0.6,b", "line 3, column 'time': 0 after the row before, where 10 is usual"),
        (3, "5,4.0,22,0.7,c", "line 4, column 'time': -5 after"),
        (3, "22,4.0,22,0.7,c", "line 4, column 'time': 12 after the row before"),
        (0, "time,level,heat,valve,level", "2 columns named 'level'"),
        (0, "time,level,warm,valve,note", "0 columns named 'heat', needed is one; its first row"),
    ],
)
def test_errors_name_the_line_and_the_column(table, line, text, message):
    with pytest.raises(ValueError, match=message):
        read_csv(table(replaced(line, text)), ["level", "heat"], ["valve"], time="time")


def test_the_tolerance_is_for_steps_that_are_about_equal(table):
    lines = replaced(3, "20.4,4.0,22,0.7,c")
    with pytest.raises(ValueError, match=r"raise the tolerance of 0\.01"):
        read_csv(table(lines), ["level"], time="time")
    assert read_csv(table(lines), ["level"], time="time", tolerance=0.05).episodes.steps == 3


def test_a_constant_target_is_refused_and_a_constant_driver_is_not(table):
    lines = ["y,z", "1,5", "2,5", "3,5"]
    assert read_csv(table(lines), ["y"], ["z"]).episodes.action.tolist() == [[5], [5]]
    with pytest.raises(ValueError, match="target 'z' is 5 in every row"):
        read_csv(table(lines), ["y", "z"])


@pytest.mark.parametrize("lines", [["y"], ["y", "nan"]])
def test_a_file_without_rows_is_refused(table, lines):
    with pytest.raises(ValueError, match="none of them with all of"):
        read_csv(table(lines), ["y"])


def test_one_row_is_no_series(table):
    with pytest.raises(ValueError, match="no 2 rows in a row"):
        read_csv(table(["t,y", "0,1"]), ["y"], time="t")


@pytest.mark.parametrize(
    "options",
    [{"targets": []}, {"targets": ["level", "level"]}, {"targets": ["level"], "time": "level"}],
)
def test_columns_are_named_once(table, options):
    with pytest.raises(ValueError, match="give one target or more, and each column once"):
        read_csv(table(GOOD), **options)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=2, max_size=30))
def test_pieces_hold_every_pair_of_neighbours_and_no_other(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("pieces") / "series.csv"
    path.write_text(
        "\n".join(["y,d", *(f"{'' if v is None else repr(v)},{i}" for i, v in enumerate(values))])
    )
    wanted = [
        (a, b, i)
        for i, (a, b) in enumerate(itertools.pairwise(values))
        if a is not None and b is not None
    ]
    ends = {value for a, b, _ in wanted for value in (a, b)}
    if len(ends) < 2:
        with pytest.raises(ValueError, match=r"none of them|in a row|in every row"):
            read_csv(path, ["y"], ["d"])
        return
    data = read_csv(path, ["y"], ["d"]).episodes
    windows = data.observation[:, 0].tolist()
    found = [
        (windows[first + t], windows[first + t + 1], data.action[record + t, 0])
        for first, record, steps in data.spans
        for t in range(steps)
    ]
    assert found == wanted
