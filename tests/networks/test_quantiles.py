import numpy as np
import pytest
import torch

from rlkit.networks.quantiles import lowest_quantiles, quantile_huber


def drawn(*shape, seed=0, scale=2.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * scale)


@pytest.mark.parametrize("dropped", [0, 1, 3])
def test_the_highest_of_all_critics_together_are_dropped(dropped):
    z = drawn(3, 5, 4)
    found = lowest_quantiles(z, dropped)
    for row in range(5):
        pooled = sorted(float(z[n, row, m]) for n in range(3) for m in range(4))
        assert found[row].tolist() == pooled[: 3 * (4 - dropped)]


def test_the_loss_is_that_of_every_pair():
    z, target = drawn(2, 3, 4), drawn(3, 6, seed=1)
    found = quantile_huber(z, target)
    for n in range(2):
        for row in range(3):
            losses = []
            for m in range(4):
                fraction = (2 * m + 1) / 8
                for y in target[row]:
                    error = float(y - z[n, row, m])
                    huber = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
                    losses.append((1 - fraction if error < 0 else fraction) * huber)
            assert float(found[n, row]) == pytest.approx(np.mean(losses))


def test_its_minimum_is_at_the_quantiles_of_the_target():
    sample = drawn(1, 400, scale=500.0)
    z = torch.zeros(1, 1, 5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=10.0)
    for step in range(600):
        optimiser.param_groups[0]["lr"] = 10.0 * (1 - step / 600)
        optimiser.zero_grad()
        quantile_huber(z, sample).sum().backward()
        optimiser.step()
    expected = np.quantile(sample.numpy(), [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(z.detach().numpy()[0, 0], expected, atol=15)
