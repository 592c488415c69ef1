import pytest
import torch
from naive_parallel import (
    by_episode,
    check_against_loops,
    check_dropout,
    check_laws,
    check_width,
    example,
    influences,
    naive_transformer,
)

from rlkit.networks.encoders.transformer import CausalTransformer

SMALL = CausalTransformer(hidden=8, heads=2, layers=2, context=5)
CASES = [
    SMALL,
    CausalTransformer(hidden=6, heads=3, layers=1, context=2),
    CausalTransformer(hidden=8, heads=1, layers=3, context=64),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", CASES, ids=str)
def test_a_window_equals_plain_loops_over_episodes(encoder):
    check_against_loops(naive_transformer, encoder)


@pytest.mark.parametrize("encoder", CASES, ids=str)
def test_the_laws_hold(encoder):
    check_laws(encoder)


@pytest.mark.slow
def test_a_window_longer_than_a_piece_equals_plain_loops():
    encoder, vector, x, is_first = example(SMALL, steps=75)
    naive = by_episode(naive_transformer, encoder, vector, x, is_first)
    y, _ = encoder.scan(vector, x, encoder.initial(3), is_first)
    torch.testing.assert_close(y, naive, rtol=1e-5, atol=1e-5)


def test_gradients_flow_from_piece_to_piece():
    encoder, vector, x, is_first = example(SMALL, steps=34)
    read = influences(encoder, vector, x, torch.zeros_like(is_first))
    assert read[-encoder.receptive_field :].all()


def test_an_output_depends_on_its_receptive_field_and_on_nothing_else():
    assert SMALL.receptive_field == 9
    encoder, vector, x, is_first = example(SMALL, steps=20)
    read = influences(encoder, vector, x, torch.zeros_like(is_first))
    assert read[-9:].all()
    assert not read[:-9].any()


def test_a_single_layer_depends_on_its_context():
    encoder, vector, x, is_first = example(
        CausalTransformer(hidden=8, heads=2, layers=1, context=5), steps=20
    )
    read = influences(encoder, vector, x, torch.zeros_like(is_first))
    assert read[-5:].all()
    assert not read[:-5].any()


def test_an_episode_that_began_in_the_window_hides_what_came_before():
    encoder, vector, x, is_first = example(SMALL, steps=20)
    is_first = torch.zeros_like(is_first)
    is_first[:, -3] = True
    read = influences(encoder, vector, x, is_first)
    assert read[-3:].all()
    assert not read[:-3].any()


def test_rows_out_of_step_are_each_as_if_alone():
    """Actors whose episodes began at other times must not read each other's part of the cache."""
    encoder, vector, x, _ = example(SMALL, rows=4, steps=16)
    starts = (0, 3, 7, 15)
    is_first = torch.zeros(4, 16, dtype=torch.bool)
    for row, start in enumerate(starts):
        is_first[row, start] = True
    hidden_state, steps = encoder.initial(4), []
    for t in range(16):
        y, hidden_state = encoder.step(vector, x[:, t], hidden_state, is_first[:, t])
        steps.append(y)
    together = torch.stack(steps, dim=1)
    for row, start in enumerate(starts):
        alone = naive_transformer(encoder, encoder.views(vector), x[row, start:])
        torch.testing.assert_close(together[row, start:], alone, rtol=1e-5, atol=1e-5)
    assert hidden_state[-1].tolist() == [4, 4, 4, 1]


def test_what_is_not_valid_in_the_cache_changes_nothing():
    encoder, vector, x, is_first = example(SMALL, rows=2, steps=12)
    *caches, valid = encoder.scan(vector, x[:, :2], encoder.initial(2), is_first[:, :2] & False)[1]
    assert valid.tolist() == [2, 2]
    planted = tuple(cache.clone() for cache in caches)
    for cache in planted:
        assert torch.equal(cache[:, :2], torch.zeros_like(cache[:, :2]))
        cache[:, :2] = 1e3
    none = torch.zeros(2, 10, dtype=torch.bool)
    clean = encoder.scan(vector, x[:, 2:], (*caches, valid), none)[0]
    assert torch.equal(clean, encoder.scan(vector, x[:, 2:], (*planted, valid), none)[0])
    for cache in planted:
        cache[:, 2:] = 1e3
    assert not torch.allclose(clean, encoder.scan(vector, x[:, 2:], (*planted, valid), none)[0])


def test_positions_are_relative_however_long_the_episode():
    encoder, vector, x, _ = example(SMALL, rows=1, steps=9)
    none = torch.zeros(1, 9, dtype=torch.bool)
    _, hidden_state = encoder.scan(
        vector, x.repeat(1, 200, 1), encoder.initial(1), none.repeat(1, 200)
    )
    late, _ = encoder.scan(vector, x, hidden_state, none)
    early, _ = encoder.scan(vector, x.repeat(1, 2, 1), encoder.initial(1), none.repeat(1, 2))
    torch.testing.assert_close(late[:, -1], early[:, -1], rtol=1e-5, atol=1e-5)


def test_no_gradient_flows_into_the_hidden_state():
    encoder, vector, x, is_first = example(SMALL)
    hidden_state = tuple(part.requires_grad_() for part in encoder.initial(len(x)))
    assert not encoder.scan(vector, x, hidden_state, is_first)[0].requires_grad
    _, after = encoder.scan(vector.requires_grad_(), x, hidden_state, is_first)
    assert not any(part.requires_grad for part in after)


def test_dropout_needs_a_generator_and_repeats_with_its_seed():
    check_dropout(CausalTransformer(hidden=8, heads=2, context=5, dropout=0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 0}, "CausalTransformer: heads must be a whole number >= 1, got 0"),
        ({"context": 1}, "context must be a whole number >= 2, got 1"),
        ({"hidden": 30, "heads": 4}, "got hidden = 30 and heads = 4; the nearest is 32"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CausalTransformer(**settings)


def test_inputs_of_a_wrong_width_are_named():
    check_width(SMALL)
