"""`runs/bench/world_speed.py` in small."""

import json
import math
import sys

import pytest
import torch
from bench_scripts import bench_fixture

from rlkit.world import WORLDS

bench = bench_fixture("world_speed")


NAMES = ["ensemble", "mdn_rnn", "rssm gaussian", "rssm categorical", "seq2seq", "seq2seq attention"]


def bare(bench, name, records=64):
    settings = bench.MODELS[name]
    model = WORLDS.make(settings).with_widths(bench.LAYOUT.widths)
    return model, bench.BARE[settings["name"]](model, records)


def test_every_model_is_measured(bench):
    assert list(bench.MODELS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_floor_has_the_weights_of_its_model_and_no_others(bench, name):
    model, layers = bare(bench, name)
    ours = [math.prod(shape) for key, shape in model.shapes().items() if key.endswith("weight")]
    theirs = [p.numel() for p in layers.parameters() if p.ndim == 2]
    assert sum(theirs) == sum(ours)


@pytest.mark.parametrize("name", NAMES)
def test_a_floors_gradient_reaches_every_weight(bench, name):
    _, layers = bare(bench, name)
    for order in ("in_order", "at_once"):
        if hasattr(layers, order):
            gradients = bench.backward(layers, getattr(layers, order))()
            assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", ["rssm gaussian", "seq2seq", "seq2seq attention"])
def test_both_orders_make_the_same_number_of_outputs(bench, name):
    _, layers = bare(bench, name)
    counts = [sum(part.numel() for part in order()) for order in (layers.in_order, layers.at_once)]
    assert counts[0] == counts[1]


def test_a_step_of_a_gru_is_that_of_its_windows(bench):
    gru, x = torch.nn.GRU(3, 5), torch.randn(1, 2, 3)
    torch.testing.assert_close(bench.cell_of(gru)(x[0]), gru(x)[0][0])


def test_the_faster_library_is_the_floor(bench):
    spent = {"ours": 0.5, "floor mkl": 0.2, "floor onednn": 0.25}
    assert bench.rates(100, spent, "tokens_per_s") == {
        "tokens_per_s": 200,
        "floor": 500,
        "ratio_to_floor": 0.4,
    }


def test_works_take_turns(bench):
    calls = []
    found = bench.medians({name: lambda n=name: calls.append(n) for name in "ab"}, 3, 0.0)
    assert "".join(calls[4:]) == "ababab"
    assert all(seconds >= 0 for seconds in found.values())


@pytest.mark.slow
def test_it_writes_what_it_prints(bench, tmp_path, monkeypatch, capsys):
    small = ["--records=64", "--rows=10", "--horizon=2", "--rounds=1", "--slice=0"]
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["world_speed.py", *small, "--out", str(out)])
    bench.main()
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert printed.startswith(out.read_text())
    assert list(written["models"]) == NAMES
    for name, parts in written["models"].items():
        assert list(parts) == ["training", "imagining_10"]
        assert all(row["ratio_to_floor"] > 0 for row in parts.values())
        assert ("at_once" in parts["training"]) == (name.split()[0] in ("rssm", "seq2seq"))
