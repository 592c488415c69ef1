"""The parallel encoders again, as the plainest loops: one episode, one step, one tap at a time."""

import math

import pytest
import torch
import torch.nn.functional as F


def naive_min_gru(encoder, p, x):
    """Features of one episode `(T, I)` from its start."""
    for i in range(encoder.layers):
        h, states = torch.zeros(encoder.hidden), []
        for u in x:
            gate, candidate = (
                u @ p[f"{i}.gate_and_candidate.weight"] + p[f"{i}.gate_and_candidate.bias"]
            ).chunk(2)
            z = torch.sigmoid(gate)
            h = (1 - z) * h + z * torch.tanh(candidate)
            states.append(norm(p, f"{i}.norm", h) if encoder.layer_norm else h)
        x = torch.stack(states) + (x if i > 0 else 0)
    return x


def naive_lru(encoder, p, x):
    x = x @ p["input.weight"] + p["input.bias"]
    for i in range(encoder.layers):
        modulus, angle = torch.exp(-torch.exp(p[f"{i}.nu"])), torch.exp(p[f"{i}.theta"])
        eigenvalue = torch.complex(modulus * torch.cos(angle), modulus * torch.sin(angle))
        write, read = p[f"{i}.write.weight"], p[f"{i}.read.weight"]
        h, outputs = torch.zeros(encoder.hidden, dtype=torch.complex64), []
        for before in x:
            u = norm(p, f"{i}.norm", before)
            written = torch.complex(u @ write[:, ::2], u @ write[:, 1::2])
            h = eigenvalue * h + torch.exp(p[f"{i}.log_gamma"]) * written
            y = h.real @ read[::2] + h.imag @ read[1::2] + p[f"{i}.skip"] * u
            content, gate = (F.gelu(y) @ p[f"{i}.gate.weight"] + p[f"{i}.gate.bias"]).chunk(2)
            outputs.append(before + content * torch.sigmoid(gate))
        x = torch.stack(outputs)
    return x


def naive_conv(encoder, p, x):
    x = x @ p["input.weight"] + p["input.bias"]
    for i in range(encoder.layers):
        taps = p[f"{i}.filter_and_gate.weight"].chunk(encoder.kernel)
        outputs = []
        for t in range(len(x)):
            total = p[f"{i}.filter_and_gate.bias"]
            for j, tap in enumerate(reversed(taps)):
                if t - j * 2**i >= 0:
                    total = total + x[t - j * 2**i] @ tap
            filtered, gate = total.chunk(2)
            gated = torch.tanh(filtered) * torch.sigmoid(gate)
            outputs.append(x[t] + gated @ p[f"{i}.residual.weight"] + p[f"{i}.residual.bias"])
        x = torch.stack(outputs)
    return norm(p, "norm", x) if encoder.layer_norm else x


def naive_transformer(encoder, p, x):
    x = x @ p["input.weight"] + p["input.bias"]
    for i in range(encoder.layers):
        rows = norm(p, f"{i}.attention_norm", x) @ p[f"{i}.query_key_value.weight"]
        queries, keys, values = rows.chunk(3, dim=-1)
        outputs = []
        for t in range(len(x)):
            heads = [naive_head(encoder, n, t, queries, keys, values) for n in range(encoder.heads)]
            attended = torch.cat(heads) @ p[f"{i}.attended.weight"] + p[f"{i}.attended.bias"]
            y = x[t] + attended
            wide = norm(p, f"{i}.mlp_norm", y) @ p[f"{i}.widen.weight"] + p[f"{i}.widen.bias"]
            outputs.append(y + F.gelu(wide) @ p[f"{i}.narrow.weight"] + p[f"{i}.narrow.bias"])
        x = torch.stack(outputs)
    return norm(p, "norm", x)


def naive_head(encoder, n, t, queries, keys, values):
    """What head n of a step t reads from the steps that it may attend to."""
    width = encoder.hidden // encoder.heads
    part = slice(n * width, (n + 1) * width)
    slope = 2 ** (-8 * (n + 1) / encoder.heads)
    steps = range(max(0, t - encoder.context + 1), t + 1)
    scores = [queries[t, part] @ keys[s, part] / math.sqrt(width) - slope * (t - s) for s in steps]
    weights = torch.softmax(torch.stack(scores), dim=0)
    return sum(weight * values[s, part] for weight, s in zip(weights, steps, strict=True))


def norm(p, name, x):
    centred = x - x.mean(-1, keepdim=True)
    deviation = torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return centred / deviation * p[f"{name}.scale"] + p[f"{name}.shift"]


def by_episode(naive, encoder, vector, x, is_first):
    """Features `(B, T, D)`: every row cut into its episodes, each from a fresh start."""
    p = encoder.views(vector)
    rows = []
    for row, first in zip(x, is_first, strict=True):
        starts = [t for t in range(1, len(row)) if first[t]]
        parts = torch.tensor_split(row, starts)
        rows.append(torch.cat([naive(encoder, p, part) for part in parts]))
    return torch.stack(rows)


def example(encoder, rows=3, steps=21, seed=0):
    """A configured encoder, its parameters, inputs and starts of episodes, out of step."""
    generator = torch.Generator().manual_seed(seed)
    encoder = encoder.with_inputs(5)
    vector = encoder.initial_parameters(generator)
    vector += 0.1 * torch.randn(encoder.size, generator=generator)  # no bias left at zero
    x = torch.randn(rows, steps, 5, generator=generator)
    is_first = torch.rand(rows, steps, generator=generator) < 0.15
    return encoder, vector, x, is_first


def check_against_loops(naive, encoder):
    """Features and gradients of a window equal those of the plain loops."""
    encoder, vector, x, is_first = example(encoder)
    assert is_first[:, 1:].any()
    results = []
    for scan in (
        lambda v, u: by_episode(naive, encoder, v, u, is_first),
        lambda v, u: encoder.scan(v, u, encoder.initial(len(u)), is_first)[0],
    ):
        v, u = vector.clone().requires_grad_(), x.clone().requires_grad_()
        y = scan(v, u)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        results.append((y.detach(), *torch.autograd.grad((y * weight).sum(), (v, u))))
    for ours, plain in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5 * max(1, plain.abs().max()))


def check_laws(encoder):
    """What rlkit.networks.encoders.contract promises, on one window that starts in the middle."""
    encoder, vector, x, is_first = example(encoder, rows=4, steps=23)
    _, _, before, starts = example(encoder, rows=4, steps=9, seed=1)
    _, hidden_state = encoder.scan(vector, before, encoder.initial(4), starts)
    kept = [part.clone() for part in hidden_state]
    whole = encoder.scan(vector, x, hidden_state, is_first)

    steps, after = [], hidden_state
    for t in range(23):
        y, after = encoder.step(vector, x[:, t], after, is_first[:, t])
        steps.append(y)
    same(whole, (torch.stack(steps, dim=1), after))

    first, middle = encoder.scan(vector, x[:, :10], hidden_state, is_first[:, :10])
    second, after = encoder.scan(vector, x[:, 10:], middle, is_first[:, 10:])
    same(whole, (torch.cat([first, second], dim=1), after))

    reset = torch.zeros(4, 23, dtype=torch.bool)
    reset[:, 8] = True
    y, after = encoder.scan(vector, x, hidden_state, reset)
    fresh = encoder.scan(vector, x[:, 8:], encoder.initial(4), torch.zeros_like(reset[:, 8:]))
    same((y[:, 8:], after), fresh)

    alone = encoder.scan(vector, x[1:2], tuple(part[1:2] for part in hidden_state), is_first[1:2])
    same((whole[0][1:2], tuple(part[1:2] for part in whole[1])), alone)

    assert all(torch.equal(part, was) for part, was in zip(hidden_state, kept, strict=True))
    assert whole[0].shape == (4, 23, encoder.features)
    assert [part.shape for part in whole[1]] == [part.shape for part in encoder.initial(4)]
    assert {part.dtype for part in whole[1]} == {torch.float32}


def same(one, other):
    """Features and hidden states are equal within 1e-5."""
    for ours, theirs in zip((one[0], *one[1]), (other[0], *other[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def influences(encoder, vector, x, is_first):
    """Which inputs the last output of a window depends on, `(T,)`: by the gradient."""
    x = x.clone().requires_grad_()
    y, _ = encoder.scan(vector, x, encoder.initial(len(x)), is_first)
    weight = torch.randn(y[:, -1].shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((y[:, -1] * weight).sum(), x)
    return (gradient != 0).any(-1).any(0)


def check_dropout(encoder):
    """Dropout needs a generator and repeats with its seed."""
    encoder, vector, x, is_first = example(encoder)
    hidden_state = encoder.initial(len(x))
    without = encoder.scan(vector, x, hidden_state, is_first)[0]
    first, again, other = (
        encoder.scan(vector, x, hidden_state, is_first, torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(without, encoder.scan(vector, x, hidden_state, is_first)[0])
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, without)


def check_width(encoder):
    """Inputs of a wrong width are refused with the right one."""
    encoder, vector, x, is_first = example(encoder)
    with pytest.raises(ValueError, match=r"width 4, .* configured for 5: use .*with_inputs\(4\)"):
        encoder.scan(vector, x[..., :4], encoder.initial(3), is_first)
    with pytest.raises(ValueError, match=r"width 4, .* configured for 5"):
        encoder.step(vector, x[:, 0, :4], encoder.initial(3), is_first[:, 0])
