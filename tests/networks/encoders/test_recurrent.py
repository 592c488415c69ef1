import pytest
import torch
from naive_recurrent import scan as naive_scan
from torch import nn

from rlkit.networks.encoders import GRU, LSTM, RNN
from rlkit.networks.encoders.check import Sequences

KINDS = [RNN, GRU, LSTM]
MODULES = {RNN: nn.RNN, GRU: nn.GRU, LSTM: nn.LSTM}


def sequences(encoder, rows=3, steps=9, resets=True, dtype=torch.float64):
    """Vector, inputs, hidden state and resets; some in the middle, some at the start."""
    case = Sequences(encoder, rows, steps, seed=1)
    is_first = case.is_first.clone()
    is_first[0, 0] = False
    is_first[1, 4:6] = True
    if not resets:
        is_first[:] = False
    hidden_state = tuple(part.to(dtype) for part in case.used())
    return case.encoder, case.vector.to(dtype), case.x.to(dtype), hidden_state, is_first


def weights_like(y):
    """Random weights, the same in both precisions."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)


def gradients(scan, vector, x, hidden_state, is_first):
    """Features, and gradients of a weighted sum of them for the parameters and the inputs."""
    leaves = [vector.clone().requires_grad_(), x.clone().requires_grad_()]
    y, after = scan(*leaves, hidden_state, is_first)
    weights = weights_like(y)
    return y, after, *torch.autograd.grad((y * weights).sum(), leaves)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scans_and_their_gradients_are_those_of_plain_loops(kind, layer_norm, layers):
    encoder = kind(hidden=6, layers=layers, layer_norm=layer_norm)
    encoder, *arguments = sequences(encoder)
    ours = gradients(encoder.scan, *arguments)
    loops = gradients(lambda *rest: naive_scan(encoder, *rest), *arguments)
    for one, two in zip(ours, loops, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_within_rounding_of_plain_loops_in_float64(kind):
    encoder, vector, x, hidden_state, is_first = sequences(kind(hidden=16, layers=2), steps=50)
    exact, _, *slopes = gradients(
        lambda *rest: naive_scan(encoder, *rest), vector, x, hidden_state, is_first
    )
    single = vector.float(), x.float(), tuple(part.float() for part in hidden_state), is_first
    y, _, *ours = gradients(encoder.scan, *single)
    assert (y - exact).abs().max() < 1e-5
    for one, two in zip(ours, slopes, strict=True):
        assert (one - two).abs().max() < 1e-5 * two.abs().max().clamp(min=1)


def module_like(encoder, vector):
    """PyTorch's own module with the encoder's weights."""
    module = MODULES[type(encoder)](encoder.inputs, encoder.hidden, encoder.layers)
    module = module.to(vector.dtype)
    for name, view in encoder.views(vector).items():
        layer, _, rest = name.partition(".")
        kind = {"input.weight": "weight_ih", "recurrent.weight": "weight_hh", "bias": "bias_ih"}
        target = getattr(module, f"{kind.get(rest, 'bias_hh')}_l{layer}").data
        if rest == "bias":
            getattr(module, f"bias_hh_l{layer}").data.zero_()
        target[-len(view) :] = view
    return module


@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_scans_are_those_of_torch(kind, layers, steps):
    encoder, vector, x, hidden_state, is_first = sequences(
        kind(hidden=6, layers=layers), 3, max(steps, 6), resets=False
    )
    x, is_first = x[:, :steps], is_first[:, :steps]
    leaf = x.clone().requires_grad_()
    module = module_like(encoder, vector)
    states = tuple(torch.stack(hidden_state[i :: encoder.states]) for i in range(encoder.states))
    theirs, _ = module(leaf.transpose(0, 1), states if len(states) > 1 else states[0])
    y, _, slope, x_slope = gradients(encoder.scan, vector, x, hidden_state, is_first)
    torch.testing.assert_close(y, theirs.transpose(0, 1), rtol=1e-9, atol=1e-9)
    weights = weights_like(y)
    (theirs.transpose(0, 1) * weights).sum().backward()
    torch.testing.assert_close(x_slope, leaf.grad, rtol=1e-9, atol=1e-9)
    p = encoder.views(slope)
    for layer in range(layers):
        for name, other in (("input.weight", "weight_ih"), ("recurrent.weight", "weight_hh")):
            expected = getattr(module, f"{other}_l{layer}").grad
            torch.testing.assert_close(p[f"{layer}.{name}"], expected, rtol=1e-9, atol=1e-9)
        expected = getattr(module, f"bias_ih_l{layer}").grad
        torch.testing.assert_close(p[f"{layer}.bias"], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind):
    encoder, vector, x, hidden_state, is_first = sequences(kind(hidden=3, layers=2), 2, 7)
    leaves = vector.requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda vector, x: encoder.scan(vector, x, hidden_state, is_first)[0], leaves
    )


@pytest.mark.parametrize("chunk", [1, 3, 4, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_gradients_are_those_of_detached_loops(kind, chunk):
    """A chunk of 9 covers the sequence: there the gradient is that of the whole sequence."""
    encoder, vector, x, hidden_state, is_first = sequences(
        kind(hidden=5, layers=2, layer_norm=True)
    )

    def in_chunks(scan, vector, x, hidden_state, is_first):
        parts = []
        for t in range(0, x.shape[1], chunk):
            y, hidden_state = scan(
                vector, x[:, t : t + chunk], hidden_state, is_first[:, t : t + chunk]
            )
            hidden_state = tuple(part.detach() for part in hidden_state)
            parts.append(y)
        return torch.cat(parts, 1), hidden_state

    ours = gradients(
        lambda *rest: in_chunks(encoder.scan, *rest), vector, x, hidden_state, is_first
    )
    loops = gradients(
        lambda vector, *rest: in_chunks(lambda *inner: naive_scan(encoder, *inner), vector, *rest),
        *(vector, x, hidden_state, is_first),
    )
    for one, two in zip(ours, loops, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    whole = gradients(lambda *rest: naive_scan(encoder, *rest), vector, x, hidden_state, is_first)
    assert torch.allclose(ours[2], whole[2], rtol=1e-9, atol=1e-9) == (chunk == 9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_can_be_taken_twice(kind):
    encoder, vector, x, hidden_state, is_first = sequences(kind(hidden=4, layers=2))
    leaf = vector.requires_grad_()
    loss = encoder.scan(leaf, x, hidden_state, is_first)[0].square().sum()
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_forgets_even_what_is_not_a_number(kind):
    encoder, vector, x, hidden_state, is_first = sequences(kind(hidden=4), dtype=torch.float32)
    is_first[:, 0] = True
    spoilt = tuple(torch.full_like(part, torch.nan) for part in hidden_state)
    fresh = encoder.scan(vector, x, encoder.initial(3), is_first)[0]
    assert torch.equal(encoder.scan(vector, x, spoilt, is_first)[0], fresh)
    assert encoder.step(vector, x[:, 0], spoilt, is_first[:, 0])[0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_is_orthogonal_gate_by_gate(kind):
    encoder = kind(hidden=8, layers=2, layer_norm=True).with_inputs(4)
    vector = encoder.initial_parameters(torch.Generator().manual_seed(0))
    assert torch.equal(vector, encoder.initial_parameters(torch.Generator().manual_seed(0)))
    assert len(vector) == encoder.size
    p = encoder.views(vector)
    for layer, width in enumerate((4, 8)):
        for gate in p[f"{layer}.recurrent.weight"].split(8):
            torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
        weight, bias = p[f"{layer}.input.weight"], p[f"{layer}.bias"]
        assert weight.shape == (encoder.gates * 8, width)
        assert 0.8 / width**0.5 < weight.abs().max() <= 1 / width**0.5
        ones = torch.zeros_like(bias)
        if kind is LSTM:
            ones[8:16] = 1.0  # the forget gate
        assert torch.equal(bias, ones)
    assert torch.equal(p["norm.scale"], torch.ones(8))
    assert torch.equal(p["norm.shift"], torch.zeros(8))


@pytest.mark.parametrize("kind", KINDS)
def test_the_carry_is_the_states_of_each_layer(kind):
    encoder = kind(hidden=8, layers=3).with_inputs(4)
    hidden_state = encoder.initial(5)
    assert [part.shape for part in hidden_state] == [(5, 8)] * 3 * (2 if kind is LSTM else 1)
    assert not any(part.any() for part in hidden_state)
    case = Sequences(encoder)
    y, after = case.scan(case.x, case.used(), case.is_first)
    assert torch.equal(y[:, -1], after[-encoder.states])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "GRU: hidden must be a whole number >= 1, got 0"),
        ({"hidden": 64.0}, "hidden must be a whole number >= 1, got 64.0"),
        ({"layers": "2"}, "layers must be a whole number >= 1, got '2'"),
        ({"inputs": -1}, "inputs must be a whole number >= 0, got -1"),
        ({"dropout": 1.0, "layers": 2}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": "half", "layers": 2}, r"dropout must be in \[0, 1\), got 'half'"),
        ({"dropout": 0.1}, r"dropout = 0.1 acts between layers.*set layers = 2"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GRU(**settings)


def test_inputs_of_another_width_are_named():
    encoder = LSTM(hidden=4).with_inputs(3)
    vector = encoder.initial_parameters(torch.Generator().manual_seed(0))
    first = torch.zeros(2, 1, dtype=torch.bool)
    message = r"inputs have width 5, LSTM is configured for 3: use encoder.with_inputs\(5\)"
    with pytest.raises(ValueError, match=message):
        encoder.scan(vector, torch.zeros(2, 1, 5), encoder.initial(2), first)
    with pytest.raises(ValueError, match=message):
        encoder.step(vector, torch.zeros(2, 5), encoder.initial(2), first[:, 0])


def test_a_time_scale_slows_the_decay_of_fresh_states():
    """The share of a first input's mark that is left after 50 steps of nothing."""
    x = torch.zeros(8, 50, 3)
    x[:, 0] = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    first = torch.zeros(8, 50, dtype=torch.bool)
    left = []
    for scale in (None, 100.0):
        encoder = GRU(hidden=32, time_scale=scale).with_inputs(3)
        vector = encoder.initial_parameters(torch.Generator().manual_seed(0))
        with_cue = encoder.scan(vector, x, encoder.initial(8), first)[0]
        without = encoder.scan(vector, 0 * x, encoder.initial(8), first)[0]
        mark = (with_cue - without).norm(dim=(0, 2))
        left.append((mark[-1] / mark[0]).item())
    assert left[1] > 3 * left[0]
    with pytest.raises(ValueError, match="time_scale must be more than 2 steps, got 1"):
        GRU(time_scale=1)


def test_an_lstm_takes_in_slowly_what_it_keeps_long():
    encoder = LSTM(hidden=500, time_scale=100.0).with_inputs(3)
    vector = encoder.initial_parameters(torch.Generator().manual_seed(0))
    into, keep, *rest = encoder.views(vector)["0.bias"].split(500)
    assert torch.equal(into, -keep)
    assert not torch.stack(rest).any()
    scales = 1 + keep.exp()  # steps: 1 / (1 - sigmoid(keep))
    assert 2 <= scales.min() < 2.2 < 10 < scales.median() < 13 < 90 < scales.max() <= 100
