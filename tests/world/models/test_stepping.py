import pytest
import torch

from rlkit.networks.encoders import GRU, LSTM
from rlkit.world.models.stepping import gru_stepper, stepper

ENCODERS = [GRU(5), GRU(5, layers=2), GRU(5, layer_norm=True), LSTM(5)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_steps_and_their_gradients_are_the_encoders(encoder):
    encoder = encoder.with_inputs(3)
    vector = encoder.initial_parameters(torch.Generator().manual_seed(1)) + 0.1
    vector.requires_grad_()
    x, action, never = normal(4, 2), normal(4, 1, seed=1), torch.zeros(4, dtype=torch.bool)
    step = stepper(encoder, vector)
    states = [encoder.initial(4), encoder.initial(4)]
    for _ in range(3):
        found, states[0] = step(states[0], x, action)
        wanted, states[1] = encoder.step(vector, torch.cat([x, action], 1), states[1], never)
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*states)
    slopes = [torch.autograd.grad(each.sum(), vector)[0] for each in (found, wanted)]
    torch.testing.assert_close(*slopes)


def test_a_gru_step_is_torchs():
    weight, recurrent, bias = normal(15, 3), normal(15, 5, seed=1), normal(15, seed=2)
    candidate, x, h = normal(5, seed=3), normal(4, 3, seed=4), normal(4, 5, seed=5)
    found = gru_stepper(weight, recurrent, bias, candidate)(h, x[:, :1], x[:, 1:])
    second = torch.nn.functional.pad(candidate, (10, 0))
    wanted = torch.gru_cell(x, h, weight, recurrent, bias, second)
    torch.testing.assert_close(found, wanted)
