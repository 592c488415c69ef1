import pytest
import torch
from torch import nn

from rlkit.networks import ADAM, Mlp, Optimiser, UpdateFunction, adam_state, gradient
from rlkit.networks.gradient import fast_float32

# What the compiler imports warns.
of_the_compiler = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
MLP = Mlp((3,), (8, 8), 1, members=2, layer_norm=True)


def data(rows=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, generator=generator), torch.randn(rows, generator=generator)


def loss(vector, x, y):
    error = MLP(vector, (x,)).squeeze(-1) - y
    value = (error**2).mean()
    return value, {"loss": value, "largest": error.abs().max()}


def regress(state, batch, rate):
    grad, metrics = gradient(lambda v: loss(v, *batch), state["net"])
    return ADAM.step(state, "net", grad, rate), metrics


def fresh_state():
    return adam_state("net", MLP.initial_parameters(torch.Generator().manual_seed(1)))


def test_a_gradient_is_that_of_autograd():
    x, y = data()
    vector = MLP.initial_parameters(torch.Generator().manual_seed(1))
    grad, metrics = gradient(lambda v: loss(v, x, y), vector)
    leaf = vector.clone().requires_grad_()
    value, _ = loss(leaf, x, y)
    value.backward()
    assert torch.equal(grad, leaf.grad)
    assert torch.equal(metrics["loss"], value.detach())
    assert not any(metric.requires_grad for metric in metrics.values())


def test_a_gradient_is_that_of_torch_modules():
    mlp = Mlp((3,), (8,), 1)
    vector = mlp.initial_parameters(torch.Generator().manual_seed(1))
    p = mlp.views(vector)
    first, second = nn.Linear(3, 8), nn.Linear(8, 1)
    first.weight.data, first.bias.data = p["0.weight"].T.clone(), p["0.bias"][0, 0].clone()
    second.weight.data, second.bias.data = p["1.weight"][0].T.clone(), p["1.bias"][0, 0].clone()
    x, y = data()
    ((second(first(x).relu()).squeeze(-1) - y) ** 2).mean().backward()
    grad, _ = gradient(lambda v: (((mlp(v, (x,))[0, :, 0] - y) ** 2).mean(), {}), vector)
    g = mlp.views(grad)
    torch.testing.assert_close(g["0.weight"], first.weight.grad.T)
    torch.testing.assert_close(g["0.bias"][0, 0], first.bias.grad)
    torch.testing.assert_close(g["1.weight"][0], second.weight.grad.T)
    torch.testing.assert_close(g["1.bias"][0, 0], second.bias.grad)


def test_gradients_are_taken_where_gradients_are_off():
    with torch.no_grad():
        grad, _ = gradient(lambda v: ((v**2).sum(), {}), torch.ones(3))
    assert torch.equal(grad, torch.full((3,), 2.0))


@pytest.mark.slow
@of_the_compiler
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("optimiser", "torchs"),
    [
        (Optimiser(), torch.optim.Adam),
        (Optimiser(betas=(0.5, 0.9), eps=1e-4), torch.optim.Adam),
        (Optimiser("adamw"), torch.optim.AdamW),
        (Optimiser("adamw", weight_decay=0.3), torch.optim.AdamW),
        (Optimiser("adamw", (0.8, 0.99), 1e-6, 2.0), torch.optim.AdamW),
    ],
)
def test_steps_are_those_of_torch(optimiser, torchs, compiled):
    generator = torch.Generator().manual_seed(0)
    state = {**adam_state("net", torch.randn(50, generator=generator)), "other": torch.ones(1)}
    theirs = nn.Parameter(state["net"].clone())
    reference = torchs(
        [theirs],
        lr=1e-2,
        betas=optimiser.betas,
        eps=optimiser.eps,
        weight_decay=optimiser.weight_decay,
    )
    update = UpdateFunction(
        lambda state, grad, rate: (
            optimiser.step(state, "net", grad, rate),
            {"norm": grad.norm()},
        ),
        compiled,
        width=8,
    )
    for step in range(20):
        grad = torch.randn(50, generator=generator) * 10.0 ** (step % 5 - 3)
        theirs.grad = grad.clone()
        reference.step()
        update(state, grad, torch.tensor(1e-2))
        torch.testing.assert_close(state["net"], theirs.data, rtol=0, atol=1e-6)
    assert float(state["net.decay1"]) == pytest.approx(optimiser.betas[0] ** 20)
    assert torch.equal(state["other"], torch.ones(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "sgd"}, "optimiser must be adam or adamw, got 'sgd'"),
        ({"betas": (0.9, 1.0)}, "betas must be"),
        ({"eps": 0.0}, "eps must be > 0"),
        ({"name": "adamw", "weight_decay": -1.0}, "weight_decay must be a number >= 0, got -1.0"),
        ({"weight_decay": 0.1}, "weight_decay = 0.1 needs optimiser = 'adamw'"),
    ],
)
def test_wrong_settings_of_an_optimiser_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Optimiser(**settings)


def test_an_update_writes_into_the_state_it_was_given():
    state = fresh_state()
    held = state["net"]
    before = held.clone()
    names, values = UpdateFunction(regress, False, 8)(state, data(), torch.tensor(1e-2))
    assert state["net"] is held
    assert not torch.equal(held, before)
    assert names == ["loss", "largest"]
    assert values.shape == (2,)


@pytest.mark.slow
@of_the_compiler
def test_a_compiled_update_equals_an_eager_one():
    eager, compiled = fresh_state(), fresh_state()
    one, other = UpdateFunction(regress, False, 8), UpdateFunction(regress, True, 8)
    for _ in range(5):
        names, values = one(eager, data(), torch.tensor(1e-2))
        other_names, other_values = other(compiled, data(), torch.tensor(1e-2))
        assert names == other_names
        torch.testing.assert_close(values, other_values, rtol=1e-5, atol=1e-5)
    for name, value in eager.items():
        torch.testing.assert_close(value, compiled[name], rtol=0, atol=1e-5)


@pytest.mark.slow
@of_the_compiler
def test_compiled_updates_keep_apart_what_differs():
    def scaled_by(scale):
        def function(state, batch, phase):
            return {"net": state["net"] + scale * batch["x"].sum() * phase}, {"rows": batch["x"][0]}

        return UpdateFunction(function, True, 8)

    for scale in (1.0, 10.0):  # the same code, another setting
        update, state = scaled_by(scale), {"net": torch.zeros(1)}
        expected = 0.0
        for rows, phase in ((2, 1), (2, 3), (5, 3), (2, 1)):
            update(state, {"x": torch.ones(rows)}, phase)
            expected += scale * rows * phase
            assert float(state["net"]) == expected


@pytest.mark.parametrize("enabled", [True, False])
def test_fast_products_keep_float32_and_give_the_setting_back(enabled):
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(300, 300, generator=generator) for _ in range(2))
    with fast_float32(enabled):
        product = a @ b
    exact = a.double() @ b.double()
    assert (product - exact).abs().max() / exact.abs().max() < 1e-5
    assert setting.fp32_precision == before


def test_the_setting_comes_back_after_an_error():
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    with pytest.raises(ZeroDivisionError), fast_float32(True):
        1 / 0  # noqa: B018
    assert setting.fp32_precision == before
