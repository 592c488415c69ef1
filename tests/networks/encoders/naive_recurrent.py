"""Recurrent encoders as their equations read: one row, one step, one layer at a time."""

import torch


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def rnn(w, u, b, _, x, h):
    return (torch.tanh(w @ x + b + u @ h),)


def gru(w, u, b, c, x, h):
    (w_r, w_z, w_n), (u_r, u_z, u_n), (b_r, b_z, b_n) = (part.chunk(3) for part in (w, u, b))
    r = sigmoid(w_r @ x + b_r + u_r @ h)
    z = sigmoid(w_z @ x + b_z + u_z @ h)
    n = torch.tanh(w_n @ x + b_n + r * (u_n @ h + c))
    return ((1 - z) * n + z * h,)


def lstm(w, u, b, _, x, h, c):
    i, f, g, o = (w @ x + b + u @ h).chunk(4)
    c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
    return sigmoid(o) * torch.tanh(c), c


CELLS = {"RNN": rnn, "GRU": gru, "LSTM": lstm}


def scan(encoder, vector, x, hidden_state, is_first):
    """Features `(B, T, D)` and the hidden state, with gradients by autograd through everything."""
    p = encoder.views(vector)
    given = zip(x, zip(*hidden_state, strict=True), is_first, strict=True)
    features, states = zip(*(scan_row(encoder, p, *row) for row in given), strict=True)
    return torch.stack(features), tuple(map(torch.stack, zip(*states, strict=True)))


def scan_row(encoder, p, x, states, is_first):
    cell, number = CELLS[type(encoder).__name__], encoder.states
    states, features = list(states), []
    for t, y in enumerate(x):
        if is_first[t]:
            states = [torch.zeros_like(state) for state in states]
        for i in range(encoder.layers):
            names = ("input.weight", "recurrent.weight", "bias", "recurrent.bias")
            weights = [p.get(f"{i}.{name}") for name in names]
            own = slice(i * number, (i + 1) * number)
            states[own] = cell(*weights, y, *states[own])
            y = states[own][0]
        if encoder.layer_norm:
            scaled = (y - y.mean()) / torch.sqrt(y.var(correction=0) + 1e-5)
            y = scaled * p["norm.scale"] + p["norm.shift"]
        features.append(y)
    return torch.stack(features), states
