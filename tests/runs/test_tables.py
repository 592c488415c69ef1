import json
from importlib import import_module

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def table():
    return import_module("tables")


def a_run(seed=0, success=None, mean=-200.0, steps=10_000, minutes=2.0, stopped=False):
    return {
        "seed": seed,
        "success_rate": success,
        "return_mean": mean,
        "episodes": 100,
        "steps": steps,
        "minutes": minutes,
        "stopped": stopped,
        "curve": [[0, success, mean], [steps, success, mean]],
    }


def write(folder, name, content):
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("count", [2, 3, 5, 11])
def test_the_interval_is_students(table, count):
    values = np.random.default_rng(count).normal(size=count)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert table.mean_interval(values.tolist()) == pytest.approx(
        (values.mean(), low, high), abs=2e-3
    )


def test_one_value_has_no_interval(table):
    assert table.mean_interval([3.0]) == (3.0, 3.0, 3.0)
    assert table.reached([a_run(mean=-150.4)]) == "-150"


def test_successes_of_all_seeds_count_together(table):
    runs = [a_run(success=0.9), a_run(success=1.0)]
    share, low, high = table.pooled_success(runs)
    expected = stats.binomtest(190, 200).proportion_ci(method="wilson")
    assert (share, low, high) == pytest.approx((0.95, expected.low, expected.high))
    assert table.reached(runs) == "95 % [91, 97]"


def test_arms_become_rows_and_recipes_without_controls_stay_where_they_were(table, tmp_path):
    plan = {"env": "Hidden-v0", "agent": "sac"}
    arms = {
        "recurrent": {"plan": plan, "runs": [a_run(i, mean=-200 + i) for i in range(3)]},
        "oracle": {"plan": plan | {"env": "Full-v0"}, "runs": [a_run(steps=12_000, stopped=True)]},
    }
    write(tmp_path, "hidden", {"env": "Hidden-v0", "agent": "sac", "arms": arms})
    alone = {"agent": {"plan": plan, "runs": [a_run(success=1.0), a_run(1, success=0.97)]}}
    write(tmp_path, "plain", {"env": "Plain-v0", "agent": "td3", "arms": alone})
    write(tmp_path, "bench_speed", {"x": 1})
    assert list(table.memory_rows(tmp_path)) == [
        *[["`hidden`", "recurrent", "`Hidden-v0`, SAC", "-199 [-201, -197]", "3", "10,000", "2.0"]],
        *[["`hidden`", "oracle", "`Full-v0`, SAC", "-200", "1", "12,000 (time was up)", "2.0"]],
    ]
    assert list(table.recipe_rows(tmp_path)) == [
        ["`plain`", "`Plain-v0`, TD3", "10,000", "100 97 %", "2.0"]
    ]


def test_the_first_difference_of_two_plans_is_told(table):
    old = {"env": "A", "options": {"rate": 0.1, "layers": [8]}}
    assert table.change_of(old, json.loads(json.dumps(old))) is None
    new = {"env": "A", "options": {"rate": 0.1, "layers": [9]}}
    assert table.change_of(old, new) == "options.layers was [8] and is [9]"
    assert table.change_of(old, {**old, "more": 1}) == "more was None and is 1"


def test_the_ladder_tells_the_longest_corridor_of_each_seed(table, tmp_path):
    def climb(*shares):
        lengths = zip((10, 50, 100), shares, strict=False)
        return [{"length": length, **a_run(success=share)} for length, share in lengths]

    climbs = {
        "gru": {"0": climb(1.0, 0.96, 0.5), "1": climb(0.97, 0.94)},
        "rnn": {"0": climb(0.4)},
        "lstm": {"0": climb(1.0, 1.0)},
        "conv": {"0": []},
    }
    ladder = {"kind": "ladder", "solved": 0.95, "lengths": [10, 50, 100], "climbs": climbs}
    write(tmp_path, "cue-maze-ladder", ladder)
    assert list(table.ladder_rows(tmp_path)) == [
        ["gru", "50 10", "100: 50 %, 50: 94 %", "2.0"],
        ["rnn", "none", "10: 40 %", "2.0"],
        ["lstm", "50", "not tried beyond 50", "2.0"],
    ]
    assert list(table.recipe_rows(tmp_path)) == []


def test_marks_are_filled_and_unknown_ones_are_named(table, tmp_path):
    text = "a\n<!-- table: ladder -->\nold\n<!-- end -->\nb\n"
    assert table.filled(text, tmp_path) == text.replace("old", "Not measured yet.")
    with pytest.raises(ValueError, match="no table 'leader'; known: recipes, memory"):
        table.filled(text.replace("ladder", "leader"), tmp_path)


def test_the_documents_show_what_was_measured_and_all_of_it(table):
    for path in table.documents():
        text = path.read_text()
        assert table.filled(text) == text, f"{path}: run python runs/tables.py --write"
    assert table.homeless() == [], "measured, but no document has a place for it"


def test_a_table_without_a_place_is_noticed(table, tmp_path):
    write(tmp_path, "cue-maze-ladder", {"kind": "ladder", "solved": 0.95, "climbs": {}})
    assert "ladder" not in table.homeless(tmp_path)
    rows = [{"axis": "a", "choice": "b", "recipe": "c", "runs": [a_run()]}]
    write(tmp_path, "ablation", {"kind": "ablation", "rows": rows})
    placed = {name for path in table.documents() for name in table.marks(path.read_text())}
    assert ("ablation" in table.homeless(tmp_path)) == ("ablation" not in placed)


def test_speeds_become_rows(table, tmp_path):
    update = {"gru": {"ours": 60_000, "floor_encoders": 120_000, "floor_networks": 80_000}}
    training = {"env": "E-v0", "ours": 300, "recurrent_ppo": 200}
    scan = {"32": {"torch.nn.GRU": 5.0, "gru": 6.0, "mingru": 2.0, "lru": 3.0}}
    acting = {"gru": {"1": 90.4, "8": 100.0}}
    result = {"update": update, "training": training, "scan_ms": scan, "acting_us": acting}
    write(tmp_path, "bench_memory_speed", result)
    assert [row[1:] for row in table.bench_rows.bench_rows(tmp_path)] == [
        ["60,000", "120,000 (bare `torch.nn.GRU`, encoders alone)", "0.50 x"],
        ["60,000", "80,000 (bare `torch.nn.GRU`, encoders and heads)", "0.75 x"],
        ["300", "200 (sb3-contrib RecurrentPPO)", "1.5 x"],
    ]
    assert list(table.bench_rows.acting_rows(tmp_path)) == [["gru", "90", "100"]]
    assert list(table.bench_rows.scan_rows(tmp_path)) == [["32", "5.0", "6.0", "2.0", "3.0"]]
    training["recurrent_ppo"] = None
    write(tmp_path, "bench_memory_speed", {"training": training})
    assert list(table.bench_rows.bench_rows(tmp_path)) == []


def test_scorecards_become_one_row_each(table, tmp_path):
    def known(skill, half):
        rows = {"15": {"skill_over_arx": skill}}
        cost = {"parameters": 1200.0, "training_s": 3.2, "us_per_imagined_step": 0.51}
        return {"horizons": rows, "interval": {"15": {"skill_over_arx": half}}, "cost": cost}

    card = {"kind": "scorecard", "set": "pendulum"}
    models = {"ensemble": known(0.984, 0.02), "linear": known(-11.0, None)}
    write(tmp_path, "world-pendulum", {**card, "models": models})
    head, rows = table.world_rows.table_of("skill_over_arx", "15", "{:.2f}")
    (row,) = rows(tmp_path)
    assert len(row) == len(head)
    shown = dict(zip(head, row, strict=True))
    assert (shown["data"], shown["ensemble"]) == ("`pendulum`", "0.98 ± 0.02")
    assert (shown["linear"], shown["seq2seq"]) == ("< -9", "-")
    costs = list(table.world_rows.cost_rows(tmp_path))
    assert costs == [["ensemble", "1,200", "3", "0.5"], ["linear", "1,200", "3", "0.5"]]
