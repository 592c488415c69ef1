import numpy as np
import pytest
import torch

from rlkit.offpolicy.transitions import InputScaling, fourier_features


def naive(z, frequencies):
    columns = [z]
    for k in frequencies:
        columns += [np.sin(k * z), np.cos(k * z)]
    return np.concatenate(columns, axis=-1)


def observed(**options):
    """The scaling of observations (4 wide) that end with an achieved goal, and of goals (2)."""
    scaling = InputScaling(4, 2, "cpu", **{"enabled": True, "achieved": 2, **options})
    rng = np.random.default_rng(0)
    x, goals = rng.normal(3, 2, (100, 4)), rng.normal(-1, 0.5, (100, 2))
    scaling.observe(x, goals)
    return scaling, (x.mean(0), x.std(0)), (goals.mean(0), goals.std(0))


def rows(seed=1, n=7):
    rng = np.random.default_rng(seed)
    x, goal = rng.normal(3, 9, (n, 4)), rng.normal(-1, 3, (n, 2))
    return torch.from_numpy(x).float(), torch.from_numpy(goal).float()


@pytest.mark.parametrize("frequencies", [(), (2.0,), (2.0, 5.0), (0.5, 1.0, 7.5)])
def test_features_are_sines_and_cosines_of_multiples(frequencies):
    z = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = fourier_features(torch.from_numpy(z), frequencies)
    np.testing.assert_allclose(found.numpy(), naive(z, frequencies), rtol=1e-12)


@pytest.mark.parametrize("frequencies", [(), (2.0, 5.0)])
@pytest.mark.parametrize("goal_input", ["absolute", "relative", "both"])
@pytest.mark.parametrize("enabled", [True, False])
def test_inputs_are_scaled_then_clipped_then_spread(frequencies, goal_input, enabled):
    scaling, of_x, of_goals = observed(
        frequencies=frequencies, goal_input=goal_input, enabled=enabled
    )
    x, goal = rows()

    def normal(value, shift, scale):
        return np.clip((value - shift) / scale, -5, 5) if enabled else value

    absolute = normal(goal.numpy(), *of_goals)
    relative = normal(goal.numpy() - x.numpy()[:, 2:], 0, of_goals[1])
    assert not enabled or (np.abs(relative) == 5).any()
    parts = {"absolute": [absolute], "relative": [relative], "both": [absolute, relative]}
    expected = naive(np.concatenate(parts[goal_input], -1), frequencies)
    found = scaling.goal(scaling.tensors(), goal, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    spread = scaling.observation(scaling.tensors(), x)
    np.testing.assert_allclose(
        spread, naive(normal(x.numpy(), *of_x), frequencies), rtol=1e-4, atol=1e-4
    )
    assert scaling.widths == (spread.shape[-1], found.shape[-1])


def test_a_goal_that_is_achieved_is_0_relative_to_it():
    scaling, *_ = observed(goal_input="relative")
    x, _ = rows()
    assert (scaling.goal(scaling.tensors(), x[:, 2:], x) == 0).all()


def test_relative_goals_need_achieved_ones():
    with pytest.raises(ValueError, match=r'goal_input = "both".*observe_achieved = True'):
        InputScaling(4, 2, "cpu", True, goal_input="both")
