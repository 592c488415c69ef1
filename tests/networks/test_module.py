"""Modules of torch as functions of a flat vector, in evaluation and in training mode."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from rlkit.networks.mlp import part_of
from rlkit.networks.module import ModuleEnsemble, ModuleFunction


def made(width=3):
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def function_of(module, rows=6, width=3):
    function = ModuleFunction(lambda: module, (), {}, torch.zeros(rows, width))
    return function, function.initial_parameters(torch.Generator())


def test_batch_norm_is_that_of_a_module_outside():
    module = made()
    function, vector = function_of(module)
    outside = copy.deepcopy(module)
    x = torch.randn(6, 3)
    for _ in range(3):
        leaf = vector.clone().requires_grad_()
        (function(leaf, x) ** 2).sum().backward()
        outside.train().zero_grad()
        (outside(x) ** 2).sum().backward()
        grads = function.views(leaf.grad)
        for name, parameter in outside.named_parameters():
            torch.testing.assert_close(grads[name], parameter.grad)
        # The part of buffers is a step to subtract, whatever the loss is.
        vector = torch.where(mask(function), vector - leaf.grad, vector)
        for name in ("1.running_mean", "1.running_var"):
            own = function.views(vector)[name]
            torch.testing.assert_close(own, outside.get_buffer(name))
    torch.testing.assert_close(function(vector, x), outside.eval()(x))


def mask(function):
    found = torch.zeros(function.size)
    for name in function.untrained:
        function.views(found)[name].fill_(1.0)
    return found.bool()


def test_without_a_gradient_it_is_in_evaluation_mode_and_changes_nothing():
    function, vector = function_of(made())
    before, x = vector.clone(), torch.randn(6, 3)
    first = function(vector, x)
    torch.testing.assert_close(function(vector, x[:1]), first[:1])  # a row does not see the others
    assert torch.equal(vector, before)


def test_members_have_moments_of_their_own():
    ensemble = ModuleEnsemble(lambda width, outputs: made(width), {}, (3,), 2, members=2)
    vector = ensemble.initial_parameters(torch.Generator())
    ensemble.views(vector)["1.0.weight"].mul_(3)
    leaf = vector.clone().requires_grad_()
    ensemble(leaf, [torch.randn(6, 3)]).sum().backward()
    grads = ensemble.views(leaf.grad)
    means = [part_of(grads, str(i))["1.running_mean"] for i in range(2)]
    assert all(mean.abs().min() > 0 for mean in means)
    assert not torch.allclose(*means)


def test_dropout_draws_in_training_alone():
    function, vector = function_of(nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5)))
    assert function.is_random
    x = torch.randn(6, 3)
    assert torch.equal(function(vector, x), function(vector, x))
    leaf = vector.requires_grad_()
    one, other = function(leaf, x), function(leaf, x)
    assert not torch.equal(one, other)
    assert 0.3 < (one == 0).float().mean() < 0.7


class Counting(nn.Module):
    def __init__(self, in_place, dtype=torch.float32):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(1, dtype=dtype))

    def forward(self, x):
        if self.training and self.in_place:
            self.calls += 1
        elif self.training:
            self.calls = self.calls + 1
        return x


class Restless(nn.Module):
    def forward(self, x):
        return x + torch.rand(())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counting(in_place=False), "changes its buffer 'calls' while it is trained"),
        (Counting(True, torch.int64), "changes its buffer 'calls' while it is trained"),
        (nn.BatchNorm1d(3, momentum=None), "momentum=None"),
        (Restless(), "random outputs in evaluation mode"),
        (nn.Flatten(0), "gives outputs of shape"),
    ],
)
def test_what_a_vector_cannot_hold_is_refused(module, message):
    with pytest.raises(ValueError, match=message) as refused:
        function_of(module)
    assert "\n" not in str(refused.value)


def test_a_buffer_that_counts_in_place_is_part_of_the_vector():
    function, vector = function_of(Counting(in_place=True))
    leaf = vector.requires_grad_()
    x = torch.randn(6, 3, requires_grad=True)
    function(leaf, x).sum().backward()
    assert function.views(leaf.grad)["calls"].item() == -1  # subtracted: one call more


def test_frozen_parameters_have_no_gradient():
    module = made()
    module[0].weight.requires_grad_(False)
    function, vector = function_of(module)
    assert {"0.weight", "1.running_mean", "1.running_var"} == function.untrained
    leaf = vector.requires_grad_()
    x = torch.randn(6, 3)
    (function(leaf, x) ** 2).sum().backward()
    views = function.views(leaf.grad)
    assert not views["0.weight"].any()
    assert views["3.weight"].any()
    expected = functional_call(module.eval(), dict(function.views(vector.detach())), (x,))
    torch.testing.assert_close(function(vector.detach(), x), expected)
