"""What the studies of corridor lengths and of single choices train, without training it."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from rlkit.experiment.recipe import load_recipe

TASK, GOAL_TASK = "pendulum-hidden-velocity", "point-maze-hidden-velocity"


def a_run(length, share):
    return {
        "length": length,
        "success_rate": share,
        "return_mean": 0.0,
        "curve": [[0, share, 0.0]],
        "stopped": False,
    }


def test_lengths_end_at_the_first_failure_or_the_longest():
    next_length = import_module("corridor_lengths").next_length
    lengths = [10, 50, 100]
    assert next_length([], lengths, 0.95) == 10
    assert next_length([a_run(10, 0.95)], lengths, 0.95) == 50
    assert next_length([a_run(10, 1.0), a_run(50, 0.94)], lengths, 0.95) is None
    assert next_length([a_run(length, 1.0) for length in lengths], lengths, 0.95) is None


@pytest.mark.slow
def test_the_lengths_continue_where_they_were(tmp_path):
    study = import_module("corridor_lengths")
    budget = {"lengths": [10, 50], "steps": 500, "minutes": 1.0, "solved": 0.95, "settings": []}
    path = tmp_path / "cue-maze-lengths.json"
    results = study.CorridorLengths(path, budget)
    ((first, length),) = results.next_run("lstm", 3, tmp_path)
    plan = first.plan()
    assert (plan.env_options, plan.steps, plan.seed, length) == ({"length": 10}, 500, 3, 10)
    assert plan.agent_options["encoder"]["name"] == "lstm"
    results.add("lstm", 3, a_run(10, 1.0))
    again = study.CorridorLengths(path, budget)
    ((second, length),) = again.next_run("lstm", 3, tmp_path)
    assert length == 50
    assert second.folder != first.folder
    again.add("lstm", 3, a_run(50, 0.5))
    assert list(again.next_run("lstm", 3, tmp_path)) == []
    assert (tmp_path / "cue-maze-lengths.png").stat().st_size > 1_000
    with pytest.raises(ValueError, match="holds steps = 500, not 600; remove it"):
        study.CorridorLengths(path, {**budget, "steps": 600})


@pytest.mark.parametrize("length", [10, 50, 100, 200])
def test_encoders_of_limited_reach_cover_the_whole_corridor(length):
    settings = import_module("corridor_lengths").encoder_settings
    options = load_recipe("cue-maze", settings("conv", length)).agent_options["encoder"]
    assert 2 ** options["layers"] >= length + 2
    options = load_recipe("cue-maze", settings("transformer", length)).agent_options["encoder"]
    assert options["context"] >= length + 2
    for name in ("gru", "lstm", "mingru"):
        options = load_recipe("cue-maze", settings(name, length)).agent_options["encoder"]
        assert options["time_scale"] >= length + 2
    options = load_recipe("cue-maze", settings("lru", length)).agent_options["encoder"]
    assert 1 / (1 - options["slowest"]) >= length + 2
    options = load_recipe("cue-maze", settings("rnn", length)).agent_options["encoder"]
    assert options == {"name": "rnn", "hidden": 64}


def test_each_row_of_the_ablation_changes_one_thing():
    ablation = import_module("ablation")
    rows = ablation.rows_of(TASK, GOAL_TASK)
    assert {row["recipe"] for row in rows if row["axis"] == "goal"} == {GOAL_TASK}
    assert {row["recipe"] for row in rows if row["axis"] != "goal"} == {TASK}
    for row in rows:
        usual = ablation.resolved(load_recipe(row["recipe"]))["agent_options"]
        options = row["plan"]["agent_options"]
        if row["axis"] == "hidden state at a window's start":
            usual["start"] = "zero"
        changed = {key for key in options if options[key] != usual[key]}
        if row["axis"] == "goal":  # which decides how windows may start
            changed -= {"start"}
        assert len(changed) <= 1, row["choice"]
    for axis in {row["axis"] for row in rows}:
        plans = [row["plan"] for row in rows if row["axis"] == axis]
        assert all(plan != other for i, plan in enumerate(plans) for other in plans[:i])


@pytest.mark.slow
def test_equal_choices_are_trained_once_and_found_again():
    ablation = import_module("ablation")
    rows = ablation.rows_of(TASK, GOAL_TASK)
    todo = ablation.missing_runs(rows, [0, 1], Path("out"))
    plans = [plan for one, plan in todo.items() if one.seed == 1]
    assert all(plan != other for i, plan in enumerate(plans) for other in plans[:i])
    assert len(plans) < len(rows)
    assert len({run.folder for run in todo}) == len(todo)
    for row in rows:
        assert row["plan"] in plans
        row["runs"] = [{"seed": 0}]
    fresh = ablation.with_runs(ablation.rows_of(TASK, GOAL_TASK), json.loads(json.dumps(rows)))
    assert {one.seed for one in ablation.missing_runs(fresh, [0, 1], Path("out"))} == {1}
    changed = ablation.with_runs(ablation.rows_of(TASK, GOAL_TASK, ["steps=77"]), rows)
    assert all(row["runs"] == [] for row in changed)


def test_a_curve_ends_where_a_run_was_stopped_for_time():
    figures = import_module("figures")
    runs = [
        {"curve": [[10, 0.0, -9.0], [20, 1.0, -5.0]], "stopped": False},
        {"curve": [[10, 0.5, -7.0], [20, 0.5, -7.0], [30, 1.0, -1.0]], "stopped": False},
    ]
    steps, values = figures.seed_curves(runs, 1)
    assert steps.tolist() == [10, 20, 30]
    np.testing.assert_allclose(values, [[0, 1, 1], [0.5, 0.5, 1]])
    runs[0]["stopped"] = True
    steps, values = figures.seed_curves(runs, 2)
    assert steps.tolist() == [10, 20]
    np.testing.assert_allclose(values, [[-9, -5], [-7, -7]])


@pytest.mark.parametrize("success", [True, False])
def test_each_variant_has_a_curve_of_its_own_look(success):
    def run(seed):
        share = 0.1 * seed if success else None
        curve = [[step, share, -1.0 * seed] for step in (10, 20)]
        return {"seed": seed, "success_rate": share, "curve": curve, "stopped": False}

    variants = {
        name: {"runs": [run(i) for i in range(3)]} for name in ("recurrent", "oracle", "new")
    }
    figure = import_module("figures").variant_curves({"env": "E-v0", "variants": variants})
    (axes,) = figure.axes
    assert axes.get_title() == "E-v0"
    assert axes.get_ylabel().startswith("success" if success else "return")
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(looks) == 3
    assert axes.get_lines()[0].get_label() == "recurrent"
    assert "range of 3 seeds" in axes.get_xlabel()
