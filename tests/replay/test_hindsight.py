from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from rlkit.replay.relabelling import STRATEGIES, choose_positions, mixture


@pytest.mark.parametrize("name", ["future", "final", "episode", "random"])
def test_a_name_leaves_a_fifth_of_the_original_goals(name):
    weights = mixture(name)
    assert set(weights) == set(STRATEGIES)
    assert weights[name] == pytest.approx(0.8)
    assert weights["original"] == pytest.approx(0.2)
    assert sum(weights.values()) == pytest.approx(1)


def test_original_alone_is_all_original():
    assert mixture("original") == {name: float(name == "original") for name in STRATEGIES}


@given(st.dictionaries(st.sampled_from(STRATEGIES), st.floats(0, 1e6), min_size=1))
def test_weights_are_normalised_in_proportion(weights):
    if sum(weights.values()) == 0:
        with pytest.raises(ValueError, match="positive"):
            mixture(weights)
        return
    normal, total = mixture(weights), sum(weights.values())
    assert sum(normal.values()) == pytest.approx(1)
    for name in STRATEGIES:
        assert normal[name] == pytest.approx(weights.get(name, 0) / total)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("futur", "unknown hindsight strategy 'futur'"),
        ({"best": 1.0}, "unknown hindsight strategy 'best'"),
        ({"future": -1.0}, "'future' must be finite and >= 0, got -1.0"),
        ({"future": float("nan")}, "got nan"),
        ({}, "at least one positive weight"),
    ],
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        mixture(weights)


@pytest.mark.parametrize(
    ("name", "choices"),
    [("future", range(6, 11)), ("final", [10]), ("episode", range(4, 11))],
)
def test_positions_are_uniform_over_the_strategy_s_own_range(name, choices):
    # The episode's observations are 3..10 and the step is 5: its achieved goal is observed at 6.
    rows = 7000
    chosen = choose_positions(
        np.full(rows, STRATEGIES.index(name)),
        np.full(rows, 5),
        np.full(rows, 3),
        np.full(rows, 10),
        np.random.default_rng(0),
    )
    values, counts = np.unique(chosen, return_counts=True)
    assert list(values) == list(choices)
    assert len(counts) == 1 or chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("old", "new"), [("played", "original"), ("imagined", "generated")])
def test_former_names_are_answered_with_the_new_ones(old, new):
    with pytest.raises(ValueError, match=f"{old!r}.*{new!r}"):
        mixture({"future": 0.8, old: 0.2})
