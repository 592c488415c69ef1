import pytest
import torch
from naive_parallel import (
    check_against_loops,
    check_dropout,
    check_laws,
    check_width,
    example,
    influences,
    naive_conv,
)

from rlkit.networks.encoders.convolution import CausalConv

CASES = [
    CausalConv(hidden=4, layers=3),
    CausalConv(hidden=4, kernel=3, layers=2, layer_norm=False),
    CausalConv(hidden=4, layers=6),
]


@pytest.mark.parametrize("encoder", CASES, ids=str)
def test_a_window_equals_plain_loops_over_episodes(encoder):
    check_against_loops(naive_conv, encoder)


@pytest.mark.parametrize("encoder", CASES, ids=str)
def test_the_laws_hold(encoder):
    check_laws(encoder)


@pytest.mark.parametrize(
    ("encoder", "field"),
    [
        (CausalConv(), 32),
        (CausalConv(hidden=4, layers=3), 8),
        (CausalConv(hidden=4, kernel=3, layers=3), 15),
        (CausalConv(hidden=4, kernel=2, layers=1), 2),
    ],
    ids=str,
)
def test_an_output_depends_on_its_receptive_field_and_on_nothing_else(encoder, field):
    assert encoder.receptive_field == field
    encoder, vector, x, is_first = example(encoder, steps=40)
    read = influences(encoder, vector, x, torch.zeros_like(is_first))
    assert read[-field:].all()
    assert not read[:-field].any()


def test_an_episode_that_began_in_the_window_hides_what_came_before():
    encoder, vector, x, is_first = example(CausalConv(hidden=4), steps=40)
    is_first = torch.zeros_like(is_first)
    is_first[:, -7] = True
    read = influences(encoder, vector, x, is_first)
    assert read[-7:].all()
    assert not read[:-7].any()


def test_the_carry_is_what_the_oldest_tap_of_each_block_still_needs():
    encoder = CausalConv(hidden=4, kernel=3, layers=3)
    assert [tuple(part.shape) for part in encoder.initial(2)] == [(2, 2, 4), (2, 4, 4), (2, 8, 4)]


def test_no_gradient_flows_into_the_hidden_state():
    encoder, vector, x, is_first = example(CausalConv(hidden=4, layers=2))
    hidden_state = tuple(part.requires_grad_() for part in encoder.initial(len(x)))
    y, _ = encoder.scan(vector, x, hidden_state, is_first)
    assert not y.requires_grad
    _, after = encoder.scan(vector.requires_grad_(), x, hidden_state, is_first)
    assert not any(part.requires_grad for part in after)


def test_dropout_needs_a_generator_and_repeats_with_its_seed():
    check_dropout(CausalConv(hidden=4, layers=2, dropout=0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": -3}, "CausalConv: hidden must be a whole number >= 1, got -3"),
        ({"kernel": 1}, "kernel must be a whole number >= 2, got 1"),
        ({"layers": 0}, "layers must be a whole number >= 1, got 0"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\), got 1.5"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CausalConv(**settings)


def test_inputs_of_a_wrong_width_are_named():
    check_width(CausalConv(hidden=4))
