import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables():
    return import_module("render_tables")


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
def test_the_interval_is_students(tables, count):
    values = np.random.default_rng(count).normal(size=count)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert tables.mean_interval(values.tolist()) == pytest.approx(
        (values.mean(), low, high), abs=2e-3
    )


def test_one_value_has_no_interval(tables):
    assert tables.mean_interval([3.0]) == (3.0, 3.0, 3.0)
    assert tables.reached([a_run(mean=-150.4)]) == "-150"


def test_successes_of_all_seeds_count_together(tables):
    runs = [a_run(success=0.9), a_run(success=1.0)]
    share, low, high = tables.pooled_success(runs)
    expected = stats.binomtest(190, 200).proportion_ci(method="wilson")
    assert (share, low, high) == pytest.approx((0.95, expected.low, expected.high))
    assert tables.reached(runs) == "95 % [91, 97]"


def test_each_variant_becomes_a_row(tables, tmp_path):
    plan = {"env": "Hidden-v0", "agent": "sac"}
    variants = {
        "recurrent": {"plan": plan, "runs": [a_run(i, mean=-200 + i) for i in range(3)]},
        "oracle": {"plan": plan | {"env": "Full-v0"}, "runs": [a_run(steps=12_000, stopped=True)]},
    }
    write(tmp_path, "hidden", {"env": "Hidden-v0", "agent": "sac", "variants": variants})
    alone = {"agent": {"plan": plan, "runs": [a_run(success=1.0), a_run(1, success=0.97)]}}
    write(tmp_path, "plain", {"env": "Plain-v0", "agent": "td3", "variants": alone})
    write(tmp_path, "bench_speed", {"x": 1})
    assert list(tables.recurrent_rows(tmp_path)) == [
        *[["`hidden`", "recurrent", "`Hidden-v0`, SAC", "-199 [-201, -197]", "3", "10,000", "2.0"]],
        *[["`hidden`", "oracle", "`Full-v0`, SAC", "-200", "1", "12,000 (time limit)", "2.0"]],
    ]
    assert list(tables.recipe_rows(tmp_path)) == [
        ["`plain`", "`Plain-v0`, TD3", "10,000", "100 97 %", "2.0"]
    ]


def test_the_first_difference_of_two_plans_is_named(tables):
    old = {"env": "A", "options": {"rate": 0.1, "layers": [8]}}
    assert tables.change_of(old, json.loads(json.dumps(old))) is None
    new = {"env": "A", "options": {"rate": 0.1, "layers": [9]}}
    assert tables.change_of(old, new) == "options.layers was [8] and is [9]"
    assert tables.change_of(old, {**old, "more": 1}) == "more was None and is 1"
    more = {"env": "A", "options": {**old["options"], "more": 1}}
    assert tables.change_of(old, more) == "options.more was None and is 1"
    assert tables.change_of(old, more, {"options": {"rate": 5, "more": 1}}) is None


def test_corridors_have_the_longest_solved_length_of_each_seed(tables, tmp_path):
    def attempt(*shares):
        lengths = zip((10, 50, 100), shares, strict=False)
        return [{"length": length, **a_run(success=share)} for length, share in lengths]

    attempts = {
        "gru": {"0": attempt(1.0, 0.96, 0.5), "1": attempt(0.97, 0.94)},
        "rnn": {"0": attempt(0.4)},
        "lstm": {"0": attempt(1.0, 1.0)},
        "conv": {"0": []},
    }
    lengths = {
        "kind": "corridor lengths",
        "solved": 0.95,
        "lengths": [10, 50, 100],
        "attempts": attempts,
    }
    write(tmp_path, "cue-maze-lengths", lengths)
    assert list(tables.corridor_rows(tmp_path)) == [
        ["gru", "50 10", "100: 50 %, 50: 94 %", "2.0"],
        ["rnn", "none", "10: 40 %", "2.0"],
        ["lstm", "50", "not tried beyond 50", "2.0"],
    ]
    assert list(tables.recipe_rows(tmp_path)) == []


def test_marks_are_filled_and_unknown_ones_are_named(tables, tmp_path):
    text = "a\n<!-- table: corridors -->\nold\n<!-- end -->\nb\n"
    assert tables.filled(text, tmp_path) == text.replace("old", "Not measured yet.")
    with pytest.raises(ValueError, match="no table 'corridor'; known: recipes, recurrent"):
        tables.filled(text.replace("corridors", "corridor"), tmp_path)


@pytest.mark.slow
def test_the_documents_contain_all_measurements(tables):
    for path in tables.documents():
        text = path.read_text()
        assert tables.filled(text) == text, (
            f"{path}: run python runs/studies/render_tables.py --write"
        )
    assert tables.unplaced() == [], "measured, but in no document"


def test_a_table_in_no_document_is_reported(tables, tmp_path):
    write(
        tmp_path, "cue-maze-lengths", {"kind": "corridor lengths", "solved": 0.95, "attempts": {}}
    )
    assert "corridors" not in tables.unplaced(tmp_path)
    rows = [{"axis": "a", "choice": "b", "recipe": "c", "runs": [a_run()]}]
    write(tmp_path, "ablation", {"kind": "ablation", "rows": rows})
    placed = {name for path in tables.documents() for name in tables.marks(path.read_text())}
    assert ("ablation" in tables.unplaced(tmp_path)) == ("ablation" not in placed)


def test_speeds_become_rows(tables, tmp_path):
    update = {"gru": {"ours": 60_000, "floor_encoders": 120_000, "floor_networks": 80_000}}
    training = {"env": "E-v0", "ours": 300, "recurrent_ppo": 200}
    scan = {"32": {"torch.nn.GRU": 5.0, "gru": 6.0, "mingru": 2.0, "lru": 3.0}}
    acting = {"gru": {"1": 90.4, "8": 100.0}}
    result = {"update": update, "training": training, "scan_ms": scan, "acting_us": acting}
    write(tmp_path, "bench_recurrent_speed", result)
    assert [row[1:] for row in tables.benchmark_rows.bench_rows(tmp_path)] == [
        ["60,000", "120,000 (bare `torch.nn.GRU`, encoders alone)", "0.50 x"],
        ["60,000", "80,000 (bare `torch.nn.GRU`, encoders and heads)", "0.75 x"],
        ["300", "200 (sb3-contrib RecurrentPPO)", "1.5 x"],
    ]
    assert list(tables.benchmark_rows.acting_rows(tmp_path)) == [["gru", "90", "100"]]
    assert list(tables.benchmark_rows.scan_rows(tmp_path)) == [["32", "5.0", "6.0", "2.0", "3.0"]]
    training["recurrent_ppo"] = None
    write(tmp_path, "bench_recurrent_speed", {"training": training})
    assert list(tables.benchmark_rows.bench_rows(tmp_path)) == []


def test_scorecards_become_one_row_each(tables, tmp_path):
    def known(skill, half):
        rows = {"15": {"skill_over_arx": skill}}
        cost = {"parameters": 1200.0, "training_s": 3.2, "us_per_imagined_step": 0.51}
        return {"horizons": rows, "interval": {"15": {"skill_over_arx": half}}, "cost": cost}

    card = {"kind": "scorecard", "set": "pendulum"}
    models = {"ensemble": known(0.984, 0.02), "linear": known(-11.0, None)}
    write(tmp_path, "world-pendulum", {**card, "models": models})
    head, rows = tables.world_rows.table_of("skill_over_arx", "15", "{:.2f}")
    (row,) = rows(tmp_path)
    assert len(row) == len(head)
    shown = dict(zip(head, row, strict=True))
    assert (shown["data"], shown["ensemble"]) == ("`pendulum`", "0.98 ± 0.02")
    assert (shown["linear"], shown["seq2seq"]) == ("< -9", "-")
    costs = list(tables.world_rows.cost_rows(tmp_path))
    assert costs == [["ensemble", "1,200", "3", "0.5"], ["linear", "1,200", "3", "0.5"]]


def test_every_test_named_in_the_table_of_faults_exists():
    matrix = import_module("matrix_rows")
    named = {name for row in matrix.cases().values() for name in row["where"]}
    missing = sorted(name for name in named if not (ROOT / name).is_file())
    assert missing == []


def test_figures_of_faults_are_marked_where_they_failed(tmp_path):
    matrix = import_module("matrix_rows")
    rows = [
        {"row": 7, "figure": "1 of 2", "passed": False},
        {"row": 14, "figure": "0.1 s", "passed": True},
    ]
    (tmp_path / "bench_soak.json").write_text(json.dumps({"matrix": rows}))
    (tmp_path / "bench_other.json").write_text(json.dumps([1]))
    found = {row[0]: row[-1] for row in matrix.matrix_rows(tmp_path)}
    assert (found["7"], found["14"], found["8"]) == ("1 of 2 (failed)", "0.1 s", "")
