import json

import numpy as np
import pytest

from rlkit.experiment.curves import bootstrap_interval, interquartile_mean, success_curves
from rlkit.experiment.recipe import make_recipe


def write_run(path, successes, every=10, finished=True, **settings):
    path.mkdir(parents=True)
    recipe = {"env": "E", "agent": "sac"} | settings
    (path / "recipe.toml").write_text(make_recipe(recipe).to_toml())
    rows = [
        {"step": every * (i + 1), "success_rate": value, "return_mean": -1.0 - i, "final": False}
        for i, value in enumerate(successes)
    ]
    if rows:
        rows[-1]["final"] = finished
    (path / "evaluations.json").write_text(json.dumps(rows))
    return path


def lines(figure):
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}


def test_runs_that_differ_in_their_seed_alone_share_a_curve(tmp_path):
    runs = [write_run(tmp_path / f"s{i}", [0.0, 0.3 * i, 1.0], seed=i) for i in range(3)]
    other = write_run(tmp_path / "t", [0.5], agent="td3")
    drawn = lines(success_curves([*runs, other]))
    assert drawn["E, sac (IQM of 3, 95 % interval)"] == [[10, 0], [20, pytest.approx(0.3)], [30, 1]]
    assert drawn["E, td3"] == [[10, 0.5]]


def test_a_run_that_stopped_early_keeps_its_last_value(tmp_path):
    runs = [write_run(tmp_path / "a", [0.2, 1.0]), write_run(tmp_path / "b", [0.2, 0.2, 0.6])]
    assert lines(success_curves(runs))["E, sac (mean and range of 2)"][-1] == [30, 0.8]


def test_a_curve_ends_where_one_of_its_runs_was_interrupted(tmp_path):
    runs = [
        write_run(tmp_path / "a", [0.2, 0.4], finished=False),
        write_run(tmp_path / "b", [0.2, 0.2, 0.6]),
    ]
    drawn = lines(success_curves(runs))["E, sac (mean and range of 2)"]
    assert drawn == [[10, 0.2], [20, pytest.approx(0.3)]]


def test_without_success_returns_are_drawn(tmp_path):
    assert lines(success_curves([write_run(tmp_path / "a", [None, None])]))["E, sac"] == [
        [10, -1],
        [20, -2],
    ]


def test_nothing_to_plot_is_named(tmp_path):
    with pytest.raises(ValueError, match="is no run"):
        success_curves([tmp_path / "none"])
    with pytest.raises(ValueError, match="no evaluations"):
        success_curves([write_run(tmp_path / "a", [])])


def test_interquartile_mean_and_its_interval():
    values = np.array([[0.0], [1.0], [2.0], [100.0]])
    assert interquartile_mean(values) == pytest.approx([1.5])
    assert interquartile_mean(values[:3]) == pytest.approx([1.0])
    low, high = bootstrap_interval(np.random.default_rng(0).normal(size=(40, 1)))
    assert low < 0 < high
    assert high - low < 1.2


def rates(tmp_path):
    """Three runs at a high learning rate, and one at a low one with another number of steps."""
    for i in range(3):
        options = {"learning_rate": 1e-3, "encoder": "gru"}
        write_run(tmp_path / f"seed-{i}", [0.5], seed=i, agent_options=options)
    low = {"learning_rate": 3e-4}
    return write_run(tmp_path / "low" / "seed-0", [0.1], steps=7, agent_options=low)


def test_runs_of_other_settings_are_other_curves_named_by_them(tmp_path):
    rates(tmp_path)
    assert list(lines(success_curves([tmp_path]))) == [
        "E, sac, steps=7, learning_rate=0.0003, encoder=default",
        "E, sac, steps=100000, learning_rate=0.001, encoder=gru (IQM of 3, 95 % interval)",
    ]


def test_a_chosen_grouping_says_what_it_mixes(tmp_path):
    rates(tmp_path)
    assert list(lines(success_curves([tmp_path], ["agent_options.learning_rate"]))) == [
        "E, sac, learning_rate=0.0003",
        "E, sac, learning_rate=0.001 (IQM of 3, 95 % interval)",
    ]
    (mixed,) = lines(success_curves([tmp_path], ["agent"]))
    assert " ".join(mixed.split()) == (
        "E, sac, mixed: steps, agent_options.learning_rate, agent_options.encoder "
        "(IQM of 4, 95 % interval)"
    )
    with pytest.raises(ValueError, match=r"gama.*agent_options"):
        success_curves([tmp_path], ["agent_options.gama"])
