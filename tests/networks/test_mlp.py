import pytest
import torch
from torch import nn

from rlkit.networks import Mlp
from rlkit.networks.state_dependent import StateDependentHead

CASES = [
    Mlp((3,), (5,), 2),
    Mlp((3, 2), (5, 4), 1, members=3),
    Mlp((3, 0, 2), (5, 4), 2, members=2, layer_norm=True),
    Mlp((2,), (4, 4, 4), 3, members=4, layer_norm=True),
    Mlp((4, 1), (), 2, members=3),
    Mlp((3, 0, 2), (5, 4), 2, members=3, layer_norm=True, fourier=6, fourier_scale=0.5),
    Mlp((4,), (), 2, fourier=2),
]


class Features(nn.Module):
    """The input, and sines and cosines of its mixtures."""

    def __init__(self, frequencies):
        super().__init__()
        self.frequencies = frequencies

    def forward(self, x):
        angle = 2 * torch.pi * torch.einsum("bi,ik->bk", x, self.frequencies)
        return torch.cat([x, torch.sin(angle), torch.cos(angle)], dim=-1)


def member(mlp: Mlp, vector: torch.Tensor, n: int) -> nn.Sequential:
    """The n-th perceptron of the ensemble, built of torch's own modules."""
    p = mlp.views(vector)
    layers: list[nn.Module] = []
    width = sum(mlp.inputs)
    if mlp.fourier:
        half = mlp.fourier // 2
        layers.append(Features(p["fourier.frequencies"][:, n * half : (n + 1) * half]))
        width += mlp.fourier
    for i, out in enumerate((*mlp.hidden, mlp.outputs)):
        weight = p[f"{i}.weight"]
        linear = nn.Linear(width, out)
        own = weight[:, n * out : (n + 1) * out] if i == 0 else weight[n]
        if i == 0 and mlp.fourier:
            own = torch.cat([own, p["fourier.weight"][n]])
        linear.weight.data = own.T
        linear.bias.data = p[f"{i}.bias"][n, 0]
        layers.append(linear)
        if i < len(mlp.hidden):
            if mlp.layer_norm:
                norm = nn.LayerNorm(out)
                norm.weight.data = p[f"{i}.norm_scale"][n, 0]
                norm.bias.data = p[f"{i}.norm_shift"][n, 0]
                layers.append(norm)
            layers.append(nn.ReLU())
        width = out
    return nn.Sequential(*layers)


def random_vector(mlp: Mlp) -> torch.Tensor:
    return torch.randn(mlp.size, generator=torch.Generator().manual_seed(0))


def random_parts(mlp: Mlp, rows: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, width, generator=generator) for width in mlp.inputs]


@pytest.mark.parametrize("mlp", CASES, ids=str)
def test_an_ensemble_is_a_loop_over_torch_modules(mlp):
    vector, parts = random_vector(mlp), random_parts(mlp)
    together = torch.cat(parts, dim=-1)
    naive = torch.stack([member(mlp, vector, n)(together) for n in range(mlp.members)])
    out = mlp(vector, parts)
    assert out.shape == (mlp.members, 7, mlp.outputs)
    torch.testing.assert_close(out, naive, rtol=1e-5, atol=1e-5)


def test_members_do_not_influence_each_other():
    mlp = Mlp((3, 2), (5, 4), 2, members=3, layer_norm=True)
    vector, parts = random_vector(mlp), random_parts(mlp)
    before = mlp(vector, parts)
    for name, view in mlp.views(vector).items():
        part = view[:, 5:10] if name == "0.weight" else view[1]
        part.add_(1.0)
    after = mlp(vector, parts)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0)
    assert not torch.allclose(after[1], before[1])


def test_views_cover_the_vector_and_share_its_memory():
    mlp = Mlp((3, 2), (5, 4), 2, members=3, layer_norm=True)
    vector = torch.zeros(mlp.size)
    views = mlp.views(vector)
    assert {name: tuple(view.shape) for name, view in views.items()} == mlp.shapes()
    for view in views.values():
        view.add_(1.0)
    assert torch.equal(vector, torch.ones(mlp.size))


def test_a_part_of_no_width_changes_nothing():
    with_goal, without = Mlp((3, 0), (4,), 2), Mlp((3,), (4,), 2)
    vector, x = random_vector(without), torch.randn(6, 3)
    assert with_goal.size == without.size
    assert torch.equal(with_goal(vector, [x, torch.zeros(6, 0)]), without(vector, [x]))


def test_a_network_without_any_input_is_refused():
    mlp = Mlp((0, 0), (4,), 2)
    with pytest.raises(ValueError, match="input of positive width"):
        mlp(torch.zeros(mlp.size), [torch.zeros(6, 0), torch.zeros(6, 0)])


def test_the_start_is_seeded_and_bounded_by_the_fan_in():
    mlp = Mlp((3, 1), (100,), 50, members=2, layer_norm=True)
    vector = mlp.initial_parameters(torch.Generator().manual_seed(3))
    assert torch.equal(vector, mlp.initial_parameters(torch.Generator().manual_seed(3)))
    assert not torch.equal(vector, mlp.initial_parameters(torch.Generator().manual_seed(4)))
    p = mlp.views(vector)
    for name, fan_in in {"0.weight": 4, "0.bias": 4, "1.weight": 100, "1.bias": 100}.items():
        bound = fan_in**-0.5
        assert 0.9 * bound < p[name].abs().max() <= bound
    assert torch.equal(p["0.norm_scale"], torch.ones(2, 1, 100))
    assert torch.equal(p["0.norm_shift"], torch.zeros(2, 1, 100))


def test_learned_features_start_as_mixtures_of_the_given_scale():
    mlp = Mlp((3, 1), (100,), 50, members=2, fourier=500, fourier_scale=0.3)
    p = mlp.views(mlp.initial_parameters(torch.Generator().manual_seed(3)))
    assert p["fourier.frequencies"].std() == pytest.approx(0.3, rel=0.1)
    for name in ("0.weight", "fourier.weight", "0.bias"):
        assert 0.9 * 504**-0.5 < p[name].abs().max() <= 504**-0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        Mlp((3,), (5, 4), 2),
        Mlp((3,), (5, 4), 2, activation="elu"),
        StateDependentHead((3,), (5, 4), 2),
        StateDependentHead((3,), (5, 4), 2, fourier=6),
    ],
    ids=["relu", "elu", "state-dependent", "fourier"],
)
def test_one_graph_holds_a_network_of_fresh_parameters(network):
    vector = network.initial_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(6, 3)
    compiled = torch.compile(network.__call__, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(vector, [x]), network(vector, [x]))
