import pytest
import torch
from naive_parallel import example

from rlkit.networks.encoders.bidirectional import Bidirectional


def torch_reference(encoder, vector):
    """torch.nn's own bidirectional GRU with the same weights, for one layer."""
    p = encoder.views(vector)
    reference = torch.nn.GRU(encoder.inputs, encoder.hidden, bidirectional=True, batch_first=True)
    for way, suffix in (("forward", ""), ("backward", "_reverse")):
        weights = {
            "weight_ih_l0": p[f"{way}.0.input.weight"],
            "weight_hh_l0": p[f"{way}.0.recurrent.weight"],
            "bias_ih_l0": p[f"{way}.0.bias"],
            "bias_hh_l0": torch.nn.functional.pad(
                p[f"{way}.0.recurrent.bias"], (2 * encoder.hidden, 0)
            ),
        }
        for name, weight in weights.items():
            getattr(reference, name + suffix).data.copy_(weight)
    return reference


def test_episodes_are_read_in_both_directions_as_torch_reads_each_alone():
    encoder, vector, x, is_first = example(Bidirectional(hidden=4))
    assert is_first[:, 1:].any()
    y, _ = encoder.scan(vector, x, encoder.initial(len(x)), is_first)
    reference = torch_reference(encoder, vector)
    assert y.shape == (3, 21, encoder.features) == (3, 21, 8)
    for row in range(len(x)):
        starts = [t for t in range(1, 21) if is_first[row, t]]
        parts = [reference(part)[0] for part in torch.tensor_split(x[row], starts)]
        torch.testing.assert_close(y[row], torch.cat(parts).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", [Bidirectional(hidden=4), Bidirectional(hidden=4, layers=2)])
def test_boundaries_of_episodes_block_past_and_future(encoder):
    encoder, vector, x, _ = example(encoder, rows=1, steps=12)
    is_first = torch.zeros(1, 12, dtype=torch.bool)
    is_first[0, [0, 4, 9]] = True
    for t, episode in ((0, range(4)), (5, range(4, 9)), (11, range(9, 12))):
        u = x.clone().requires_grad_()
        y, _ = encoder.scan(vector, u, encoder.initial(1), is_first)
        weight = torch.randn(y[0, t].shape, generator=torch.Generator().manual_seed(0))
        (gradient,) = torch.autograd.grad((y[0, t] * weight).sum(), u)
        assert (gradient[0] != 0).any(-1).nonzero().flatten().tolist() == list(episode)


def test_the_forward_memory_goes_on_from_window_to_window():
    encoder, vector, x, is_first = example(Bidirectional(hidden=4))
    whole, end = encoder.scan(vector, x, encoder.initial(3), is_first)
    _, middle = encoder.scan(vector, x[:, :10], encoder.initial(3), is_first[:, :10])
    rest, after = encoder.scan(vector, x[:, 10:], middle, is_first[:, 10:])
    torch.testing.assert_close(rest, whole[:, 10:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after, end, rtol=1e-5, atol=1e-5)


def test_it_says_that_it_cannot_act():
    encoder, vector, x, is_first = example(Bidirectional(hidden=4))
    assert not encoder.causal
    with pytest.raises(TypeError, match=r"cannot act: it reads the future.*choose .*gru.*mingru"):
        encoder.step(vector, x[:, 0], encoder.initial(3), is_first[:, 0])


def test_both_directions_start_fresh_and_differ():
    encoder = Bidirectional(hidden=4).with_inputs(5)
    p = encoder.views(encoder.initial_parameters(torch.Generator().manual_seed(0)))
    assert not torch.equal(p["forward.0.input.weight"], p["backward.0.input.weight"])
    again = encoder.initial_parameters(torch.Generator().manual_seed(0))
    assert torch.equal(p["backward.0.bias"], encoder.views(again)["backward.0.bias"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "Bidirectional: each direction is a GRU: hidden .* got 0"),
        ({"dropout": 1.0}, r"Bidirectional: .* dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Bidirectional(**settings)
