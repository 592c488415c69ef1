import pytest
import torch
from torch import nn

from rlkit.networks import Mlp, UpdateFunction, adam, adam_state, gradient
from rlkit.networks.gradient import fast_float32

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
    return adam(state, "net", grad, rate), metrics


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


def test_adam_is_torchs_adam():
    generator = torch.Generator().manual_seed(0)
    state = {**adam_state("net", torch.randn(50, generator=generator)), "other": torch.ones(1)}
    theirs = nn.Parameter(state["net"].clone())
    optimiser = torch.optim.Adam([theirs], lr=1e-2)
    for step in range(20):
        grad = torch.randn(50, generator=generator) * 10.0 ** (step % 5 - 3)
        theirs.grad = grad.clone()
        optimiser.step()
        state |= adam(state, "net", grad, 1e-2)
        torch.testing.assert_close(state["net"], theirs.data, rtol=0, atol=1e-6)
    assert float(state["net.decay1"]) == pytest.approx(0.9**20)


def test_an_update_writes_into_the_state_it_was_given():
    state = fresh_state()
    held = state["net"]
    before = held.clone()
    names, values = UpdateFunction(regress, False, 8)(state, data(), torch.tensor(1e-2))
    assert state["net"] is held
    assert not torch.equal(held, before)
    assert names == ["loss", "largest"]
    assert values.shape == (2,)


# The compiler's own imports.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
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


# The compiler's own imports.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
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
