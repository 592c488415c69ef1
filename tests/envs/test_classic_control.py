import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlkit.envs.classic_control import Pendulum
from rlkit.envs.make import make
from rlkit.vec.env_state import env_state, set_env_state

PIXELS = "rlkit/Pendulum-Pixels-v0"


def tip(picture):
    """Centroid of the orange pixels, metres from the centre, x to the right and y up."""
    red, _, blue = picture.astype(float).transpose(2, 0, 1)
    weight = np.clip(red - blue - 60, 0, None)
    middles = (np.arange(len(picture)) + 0.5) / len(picture) * 2.5 - 1.25
    return np.array([(weight * middles).sum(), -(weight.T * middles).sum()]) / weight.sum()


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 2.5, -np.pi / 2, -0.3])
def test_the_image_shows_the_angle_from_upright(angle):
    env = Pendulum("rgb_array", render_size=84)
    env.reset(seed=0)
    env.state = np.array([angle, 0.0])
    assert np.allclose(tip(env.render()), [-np.sin(angle), np.cos(angle)], atol=0.03)


def test_it_is_gymnasiums_pendulum_with_image_observations():
    observed, known = make(PIXELS), gym.make("Pendulum-v1")
    picture, _ = observed.reset(seed=3)
    known.reset(seed=3)
    for _ in range(20):
        action = known.action_space.sample()
        picture, reward, *_ = observed.step(action)
        (cosine, sine, _), expected, *_ = known.step(action)
        assert reward == expected
        assert picture.shape == (48, 48, 3)
        assert np.allclose(tip(picture), [-sine, cosine], atol=0.05)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
def test_checkers_pass_and_the_state_is_restored():
    check_env(make(PIXELS).unwrapped, skip_render_check=True)
    env, other = make(PIXELS), make(PIXELS)
    env.reset(seed=1)
    other.reset(seed=2)
    set_env_state(other, env_state(env))
    pictures = [one.step(np.ones(1, np.float32))[0] for one in (env, other)]
    assert np.array_equal(*pictures)


def test_other_render_modes_are_refused_and_none_renders_nothing():
    with pytest.raises(ValueError, match="\"rgb_array\" or None, got 'human'"):
        Pendulum("human")
    env = Pendulum()
    env.reset(seed=0)
    assert env.render() is None
