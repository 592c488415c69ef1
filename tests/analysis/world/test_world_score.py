import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_world_data import fitted_latent

from rlkit.analysis.world.benchmark import Benchmark, BenchmarkSettings
from rlkit.analysis.world.candidates import make_candidates
from rlkit.analysis.world.data import Source, load_data
from rlkit.analysis.world.report import describe_score, score_worlds
from rlkit.analysis.world.score import interval, measure_worlds
from rlkit.analysis.world.training import Fitting, train_world
from rlkit.envs.make import make
from rlkit.world.forecasters.baselines import persistence

TANKS = Source("tanks", gather=1000)
QUICK = BenchmarkSettings(horizons=(1, 5, 15), context=8, windows=40, samples=19)
FIT = Fitting(steps=20, batch_size=32)
SMALL = ("ensemble.members=2", "ensemble.hidden=[8]")


def scored(tmp_path, *names, source=TANKS, **changes):
    arguments = {"protocol": QUICK, "fitting": FIT, **changes}
    return score_worlds(names, source, make, tmp_path / "score", **arguments)


def measured(*names, source=TANKS, **changes):
    arguments = {"protocol": QUICK, "fitting": FIT, **changes}
    return measure_worlds(names, source, make, **arguments)[0]


@pytest.fixture(scope="module")
def tanks(tmp_path_factory):
    """A scorecard of two seeds, and its folder."""
    folder = tmp_path_factory.mktemp("tanks")
    return scored(folder, "ensemble", "trend", settings=SMALL, seeds=(0, 1)), folder / "score"


@pytest.mark.slow
def test_everybody_is_there_with_the_controls(tanks):
    found, folder = tanks
    roles = {name: known["role"] for name, known in found["models"].items()}
    assert roles == {
        "ensemble": "model",
        "trend": "baseline",
        "persistence": "control",
        "arx": "control",
        "linear": "control",
    }
    assert json.loads((folder / "score.json").read_text()) == {
        key: value for key, value in found.items() if key != "folder"
    }
    plan = found["protocol"]
    assert (plan["horizons"], plan["context"], plan["windows"]) == ([1, 5, 15], 8, 40)
    assert plan["columns"][0] == "level 1 in cm"


@pytest.mark.slow
def test_a_model_takes_part_twice_under_names_of_its_own():
    names = ("two=ensemble", "three=ensemble")
    settings = ("two.members=2", "three.members=3", "two.hidden=[8]", "three.hidden=[8]")
    found = measured(*names, settings=settings, controls=False)["models"]
    sizes = [found[name]["cost"]["parameters"] for name in ("two", "three")]
    assert sizes[1] > 1.4 * sizes[0]


@pytest.mark.slow
def test_scores_agree_with_their_definition(tanks):
    found, _ = tanks
    for seed, run in zip((0, 1), found["models"]["persistence"]["runs"], strict=True):
        data = load_data(TANKS, make, seed)
        windows = data.test.forecast_windows(8, 15, 40)
        spread = data.training.observation.std(0)
        off = windows.context_observation[:, -1:] - windows.future_observation
        rmse = np.sqrt(((off / spread) ** 2).mean((0, 2)))
        # Samples add a little to the error of their centre.
        assert np.allclose(run["curve"]["rmse"], rmse, rtol=0.15)
        assert run["horizons"]["15"]["rmse"] == pytest.approx(run["curve"]["rmse"][14], rel=1e-4)


def test_skill_is_relative_to_the_references(tanks):
    models = tanks[0]["models"]
    for step in ("1", "5", "15"):
        assert models["persistence"]["horizons"][step]["skill"] == 0
        assert models["arx"]["horizons"][step]["skill_over_arx"] == 0
    for name in ("ensemble", "linear"):
        for i, run in enumerate(models[name]["runs"]):
            ours = run["horizons"]["15"]["rmse"]
            theirs = models["arx"]["runs"][i]["horizons"]["15"]["rmse"]
            skill = run["horizons"]["15"]["skill_over_arx"]
            assert skill == pytest.approx(1 - (ours / theirs) ** 2, rel=1e-6)
            dimensions = run["dimensions"]
            squares = [row["15"]["rmse"] ** 2 for row in dimensions.values()]
            assert np.sqrt(np.mean(squares)) == pytest.approx(ours, rel=1e-6)
            assert set(dimensions) == set(tanks[0]["protocol"]["columns"])


def test_seeds_are_joined_by_mean_and_interval(tanks):
    known = tanks[0]["models"]["ensemble"]
    values = [run["horizons"]["5"]["crps"] for run in known["runs"]]
    assert values[0] != values[1]
    assert known["horizons"]["5"]["crps"] == pytest.approx(np.mean(values))
    assert known["interval"]["5"]["crps"] == pytest.approx(12.706 * np.ptp(values) / 2, rel=1e-6)
    assert interval([1.0]) == (1.0, None)
    assert interval([1.0, 2.0, 3.0])[1] == pytest.approx(4.303 / 3**0.5)
    assert interval([0.0, 1.0] * 6)[1] == pytest.approx(2.2010 * 0.5222 / 12**0.5, rel=1e-3)


def test_calibration_curves_rise_from_0_to_1(tanks):
    for known in tanks[0]["models"].values():
        for run in known["runs"]:
            assert set(run["calibration"]) == {"raw", "recalibrated"}
            for curves in run["calibration"].values():
                for curve in curves.values():
                    assert len(curve) == 21
                    assert (np.diff(curve) >= 0).all()
                    assert (curve[0], curve[-1]) == (0, pytest.approx(1))


def test_figures_and_curves_are_written(tanks):
    _, folder = tanks
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures == {"errors", "calibration", "fans_ensemble", "fans_trend"}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 300
    events = EventAccumulator(str(folder)).Reload()
    assert {f"world/{name}" for name in pictures} == set(events.Tags()["images"])
    points = events.Scalars("ensemble/rmse")
    assert [point.step for point in points] == [1, 5, 15]


def test_the_tables_name_missing_skill(tanks):
    text = describe_score(tanks[0])
    assert "tanks: 40 windows after 8 steps of context" in text
    assert "15 steps ahead" in text
    assert "means over 2 seeds" in text
    assert any(line.startswith("ensemble ") and "skill" in line for line in text.splitlines()[-4:])


@pytest.mark.slow
def test_forecasts_that_are_not_finite_are_counted():
    found = measured("strange_worlds:Breaks", "linear")
    broken, sound = (found["models"][name] for name in ("strange_worlds:Breaks", "linear"))
    count, all_of = broken["non_finite"].values()
    data = load_data(TANKS, make, 0)
    windows = data.test.forecast_windows(8, 15, 40)
    level = data.training.observation[:, 0]
    high = windows.context_observation[:, -1, 0] > level.mean() + 0.5 * level.std()
    assert 0 < high.sum() == count < all_of == 40
    assert sound["non_finite"]["windows"] == 0
    # Linear dynamics on the same windows: what is left of them is the same forecast.
    assert broken["horizons"]["1"]["rmse"] != sound["horizons"]["1"]["rmse"]
    assert f"is not finite in {count} of 40 windows" in describe_score(found)


@pytest.mark.slow
def test_who_never_gives_a_number_has_no_scores(tmp_path):
    settings = ["strange_worlds:Breaks.above=-99"]
    with pytest.raises(ValueError, match="sets nothing"):
        measured("linear", settings=settings)
    found = scored(tmp_path, "strange_worlds:Breaks", settings=settings)
    known = found["models"]["strange_worlds:Breaks"]
    assert known["non_finite"] == {"windows": 40, "of": 40}
    assert known["horizons"] == {}
    assert (tmp_path / "score" / "errors.png").is_file()
    assert "in 40 of 40 windows" in describe_score(found)


@pytest.mark.slow
def test_recalibration_mends_what_is_too_sure():
    plan = BenchmarkSettings(horizons=(1, 5), context=2, windows=150, samples=40)
    found = measured("strange_worlds:TooSure", protocol=plan, controls=False)
    assert list(found["models"]) == ["strange_worlds:TooSure"]
    row = found["models"]["strange_worlds:TooSure"]["horizons"]["1"]
    assert row["coverage_0.9"] < 0.4
    assert row["coverage_0.9_recalibrated"] == pytest.approx(0.9, abs=0.06)
    assert row["nll_recalibrated"] < row["nll"]
    assert "skill" not in row  # there is no reference


def test_a_core_that_can_be_frozen_gets_its_control():
    names = [one.name for one in make_candidates(["strange_worlds:WithCore"], FIT)]
    assert names[:2] == ["strange_worlds:WithCore", "strange_worlds:WithCore, random core"]
    with_it = make_candidates(
        ["strange_worlds:WithCore"], FIT, [(["strange_worlds:WithCore", "frozen"], True)]
    )
    assert len(with_it) == 4
    assert len(make_candidates(["strange_worlds:WithCore"], FIT, controls=False)) == 1


@pytest.mark.slow
def test_saved_worlds_are_scored_as_they_are(tmp_path):
    train_world(
        "ensemble", TANKS, make, tmp_path / "a", settings=("members=2", "hidden=[8]"), fitting=FIT
    )
    found = measured(str(tmp_path / "a"), "persistence")
    fresh = measured("ensemble", settings=SMALL, controls=False)["models"]["ensemble"]
    assert found["models"]["a"]["horizons"]["5"]["rmse"] == fresh["horizons"]["5"]["rmse"]
    assert found["models"]["a"]["cost"]["training_s"] > 0
    assert found["models"]["persistence"]["role"] == "baseline"
    with pytest.raises(ValueError, match="a world of 3 columns and 2 of actions, the data have"):
        measured(str(tmp_path / "a"), source=Source("Pendulum-v1", gather=400))


@pytest.mark.slow
def test_goals_of_a_plane_have_regions(tmp_path):
    source = Source("rlkit/PlanarReach-v0", 1200, env_options={"max_episode_steps": 60})
    found = scored(tmp_path, "linear", source=source)
    assert found["protocol"]["regions"]["steps_ahead"] == 15
    rows = found["models"]["linear"]["runs"][0]["regions"]
    assert 1 <= len(rows) <= 25
    assert all(row["windows"] >= 4 and row["rmse"] > 0 for row in rows)
    assert sum(row["windows"] for row in rows) <= 40
    persistent = found["models"]["persistence"]["runs"][0]["regions"]
    for ours, theirs in zip(rows, persistent, strict=True):
        assert ours["cell"] == theirs["cell"]
        assert ours["skill"] == pytest.approx(1 - (ours["rmse"] / theirs["rmse"]) ** 2, rel=1e-6)
    assert (tmp_path / "score" / "regions.png").is_file()


@pytest.mark.slow
def test_latents_are_drawn_as_images(tmp_path):
    fitted_latent().save(tmp_path / "latent")
    source = Source("rlkit/PointMaze-U-Pixels-v0", 300, latent=str(tmp_path / "latent"))
    plan = BenchmarkSettings(horizons=(1, 5), context=2, windows=20, samples=19)
    found = scored(tmp_path, "linear", source=source, protocol=plan)
    assert found["protocol"]["columns"] == ["latent 0", "latent 1", "latent 2"]
    with Image.open(tmp_path / "score" / "open_loop_linear.gif") as film:
        assert film.n_frames == 2 * 6
    assert (tmp_path / "score" / "open_loop_linear.png").is_file()


def test_what_the_data_do_not_allow_is_left_out():
    data = load_data(Source("tanks", gather=160), make, 0)  # 40 steps in the held-out parts
    benchmark = Benchmark(
        data, BenchmarkSettings(horizons=(1, 15, 50), context=8, windows=40, samples=19), 0
    )
    assert benchmark.horizons == (1, 15)
    with pytest.raises(ValueError, match="too short to forecast 40 steps after 8 of context"):
        Benchmark(data, BenchmarkSettings(horizons=(40,), context=8, windows=40, samples=19), 0)


def test_constant_columns_are_named_and_not_scored(tmp_path):
    rows = [f"{np.sin(t / 5):.5f},{t % 7},3" for t in range(300)]
    rows[299] = rows[299].replace(",3", ",4")  # it varies in the last part only
    (tmp_path / "series.csv").write_text("\n".join(["level,valve,still", *rows]))
    source = Source(str(tmp_path / "series.csv"), targets=("level", "still"), drivers=("valve",))
    found = measured("ar", source=source)
    assert found["protocol"]["constant_columns"] == ["still"]
    assert list(found["models"]["ar"]["runs"][0]["dimensions"]) == ["level"]
    assert "Constant, and not scored: still." in describe_score(found)


@pytest.mark.slow
def test_everybody_forecasts_the_same_windows():
    data = load_data(TANKS, make, 0)
    benchmarks = [Benchmark(data, QUICK, 0) for _ in range(2)]
    assert np.array_equal(benchmarks[0].test.future_action, benchmarks[1].test.future_action)
    assert Benchmark(data, QUICK, context=11).context == 11
    fitted = persistence(15).fit(data.training)
    assert fitted.context == 0


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (["ensembel"], {}, "Did you mean 'ensemble'?"),
        (["ensembel"], {}, "Baselines: persistence, trend, ar, arx, arima, sarima, tank_filter."),
        (["no.module:Model"], {}, "cannot be imported"),
        ([], {}, "name one model or more"),
        (["arx", "arx"], {}, "each once"),
        (["mine=arx", "mine=ar"], {}, "each once"),
        (["arx=ensemble"], {}, "the name of the baseline arx"),
        (["arx"], {"settings": ["order=3"]}, "write NAME.key=value"),
        (["arx"], {"settings": ["arx.odrer=3"]}, "arx cannot be made of"),
        (["sarima"], {}, "set --set sarima.period=24"),
        (["arx"], {"seeds": ()}, "seeds are whole numbers >= 0"),
        (["arx"], {"seeds": (1, 1)}, "each once"),
        (["linear"], {"source": Source("tanks", gather=40)}, "too short"),
    ],
)
def test_mistakes_leave_nothing(tmp_path, names, changes, message):
    with pytest.raises(ValueError) as error:
        scored(tmp_path, *names, **changes)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_protocols_are_checked():
    for wrong in ({"horizons": (0,)}, {"context": -1}, {"windows": 3}, {"samples": 5}):
        with pytest.raises(ValueError, match="got"):
            BenchmarkSettings(**wrong)
