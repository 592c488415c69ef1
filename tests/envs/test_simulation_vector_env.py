"""Native vector environments are `SyncVectorEnv`s of the same single environments."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

import rlkit.envs  # noqa: F401

IDS = sorted(
    name
    for name, spec in gym.registry.items()
    if name.startswith("rlkit/") and spec.vector_entry_point is not None
)
MODES = list(AutoresetMode)
EXACT = {"exact": True}


def pair(env_id, num_envs, limit, mode):
    def single():
        return gym.make(env_id, max_episode_steps=limit)

    native = gym.make_vec(env_id, num_envs=num_envs, max_episode_steps=limit, autoreset_mode=mode)
    return native, SyncVectorEnv([single] * num_envs, autoreset_mode=mode)


def assert_same(left, right):
    assert data_equivalence(left, right, exact=True), f"{left} differs from {right}"


def play(native, reference, seeds, num_steps):
    """Steps both side by side; with autoreset disabled, restarts what has ended. Counts endings."""
    assert_same(native.reset(seed=seeds), reference.reset(seed=seeds))
    assert native.metadata == reference.metadata
    assert native.autoreset_mode is reference.autoreset_mode
    native.action_space.seed(5)
    endings = 0
    for _ in range(num_steps):
        actions = native.action_space.sample()
        result, wanted = native.step(actions), reference.step(actions)
        assert_same(result, wanted)
        ended = result[2] | result[3]
        endings += ended.sum()
        if native.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            restarted = native.reset(options={"reset_mask": ended})
            assert_same(restarted, reference.reset(options={"reset_mask": ended}))
    return endings


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", IDS)
def test_everything_equals_the_reference(env_id, mode):
    native, reference = pair(env_id, 3, 9, mode)
    for space in ("observation_space", "action_space"):
        assert getattr(native, space) == getattr(reference, space)
        assert getattr(native, f"single_{space}") == getattr(reference, f"single_{space}")
    assert play(native, reference, 11, 40) >= 9
    assert native.np_random_seed == reference.np_random_seed == (11, 12, 13)
    assert_same(
        [one.bit_generator.state for one in native.np_random],
        [one.bit_generator.state for one in reference.np_random],
    )
    native.close()
    reference.close()
    assert native.closed


@st.composite
def seedings(draw, num_envs):
    each = st.lists(st.integers(0, 99), min_size=num_envs, max_size=num_envs)
    return draw(st.integers(0, 99) | each)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["rlkit/BitFlip-v0", "rlkit/PointMaze-Open-v0", "rlkit/CueMaze-v0"]),
    st.sampled_from(MODES),
    st.integers(1, 4),
    st.integers(1, 6),
    st.data(),
)
def test_any_seeds_limits_and_partial_resets_equal_the_reference(
    env_id, mode, num_envs, limit, data
):
    native, reference = pair(env_id, num_envs, limit, mode)
    play(native, reference, data.draw(seedings(num_envs)), 2 * limit)
    masks = st.lists(st.booleans(), min_size=num_envs, max_size=num_envs).filter(any)
    for _ in range(3):
        mask = np.array(data.draw(masks))
        if mode is AutoresetMode.DISABLED:
            mask = mask | native.get_state()["ended"]
        seeds = data.draw(
            st.none()
            | st.lists(st.none() | st.integers(0, 9), min_size=num_envs, max_size=num_envs)
        )
        restarted = native.reset(seed=seeds, options={"reset_mask": mask})
        assert_same(restarted, reference.reset(seed=seeds, options={"reset_mask": mask}))
        assert native.np_random_seed == reference.np_random_seed
        actions = native.action_space.sample()
        assert_same(native.step(actions), reference.step(actions))


@pytest.mark.parametrize(
    "mask",
    [
        np.array([True]),
        np.array([[True, True]]),
        np.array([False, False]),
        np.array([1, 0]),
        np.array([1.0, 0.0]),
        [True, False],
    ],
)
def test_a_wrong_mask_is_refused_like_the_reference_does(mask):
    native, reference = pair("rlkit/BitFlip-v0", 2, 5, AutoresetMode.DISABLED)
    for env in (native, reference):
        env.reset(seed=0)
    with pytest.raises((TypeError, ValueError)) as wanted:
        reference.reset(options={"reset_mask": mask})
    with pytest.raises(wanted.type, match=f"^{re.escape(str(wanted.value))}$"):
        native.reset(options={"reset_mask": mask})


def test_the_options_of_a_reset_are_not_changed():
    native, _ = pair("rlkit/BitFlip-v0", 2, 5, AutoresetMode.DISABLED)
    native.reset()
    options = {"reset_mask": np.array([True, False])}
    native.reset(options=options)
    assert list(options) == ["reset_mask"]


def test_the_first_reset_must_be_of_all_environments():
    native, _ = pair("rlkit/BitFlip-v0", 2, 5, AutoresetMode.DISABLED)
    with pytest.raises(gym.error.ResetNeeded, match="before reset\\(\\) of some environments"):
        native.reset(options={"reset_mask": np.array([True, False])})


def test_an_ended_episode_cannot_go_on_without_autoreset():
    native, _ = pair("rlkit/PointMaze-Open-v0", 2, 1, AutoresetMode.DISABLED)
    native.reset(seed=0)
    actions = native.action_space.sample()
    native.step(actions)
    native.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"environments \[1\] have ended"):
        native.step(actions)


def test_seeds_before_the_first_reset_are_those_it_uses():
    native, _ = pair("rlkit/BitFlip-v0", 3, 5, AutoresetMode.NEXT_STEP)
    seeds = native.np_random_seed
    assert len(set(seeds)) == 3
    first = native.reset()[0]
    assert native.np_random_seed == seeds
    assert_same(native.reset(seed=list(seeds))[0], first)


def test_the_seed_of_a_restored_state_is_unknown():
    native, _ = pair("rlkit/BitFlip-v0", 2, 5, AutoresetMode.SAME_STEP)
    native.reset(seed=3)
    state = native.get_state()
    native.set_state(state)
    assert native.np_random_seed == (-1, -1)


def test_one_number_is_not_an_action_for_all():
    native, _ = pair("rlkit/BitFlip-v0", 2, 5, AutoresetMode.SAME_STEP)
    native.reset()
    with pytest.raises(TypeError, match="2 actions, one per environment: 0"):
        native.step(0)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("wrapper", [RecordEpisodeStatistics, DictInfoToList])
def test_wrappers_of_gymnasium_read_its_infos(wrapper, mode):
    native, reference = (wrapper(env) for env in pair("rlkit/BitFlip-v0", 3, 4, mode))
    native.reset(seed=1), reference.reset(seed=1)
    native.action_space.seed(0)
    for _ in range(12):
        actions = native.action_space.sample()
        result, wanted = native.step(actions), reference.step(actions)
        for infos in (result[4], wanted[4]):
            if isinstance(infos, dict) and "episode" in infos:
                del infos["episode"]["t"]  # seconds
            if isinstance(infos, dict) and "final_info" in infos:
                infos["final_info"].get("episode", {}).pop("t", None)
        assert_same(result, wanted)
