"""Recurrent agents resume exactly where they were stopped, hidden states included."""

import numpy as np
import pytest
import torch
from resuming import TOTAL, advance, assert_resumes, assert_same, build_walk, start
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make

ENCODERS = {
    "gru": {"name": "gru", "hidden": 6},
    "lstm": {"name": "lstm", "hidden": 5, "layers": 2, "dropout": 0.2},
    "mingru": {"name": "mingru", "hidden": 6},
    "transformer": {"name": "transformer", "hidden": 8, "heads": 2, "layers": 1, "context": 6},
}
REACH, HIDDEN_REACH = "rlkit/PlanarReach-HiddenVelocity-v0", "rlkit/HiddenGoalReach-v0"
ANGLE = "rlkit/Pendulum-HiddenAngle-v0"
FLIP, CUE = "rlkit/BitFlip-v0", "rlkit/CueMaze-v0"
STORED = {"start": "stored", "burn_in": 2, "replay": {"steps": 3}}
EARLY = {"goal_mode": "early", "previous_reward": True, "burn_in": 3}
EPISODES = {"window": 0, "replay": {"steps": 2, "hindsight": "final"}}
SHARED = {"encoder_sharing": "detached", "encoder_lr": 1e-4, "start": "stored"}


def settings(encoder, **options):
    small = {"batch_size": 4, "window": 5, "learning_starts": 12, "buffer_size": 250}
    return {**small, "encoder": ENCODERS[encoder], **options}


def moments(*what):
    """Rounds before the first save, between the saves and after them."""
    rng = np.random.default_rng(sum(map(ord, str(what))))
    return tuple(int(n) for n in rng.integers((25, 4, 4), (45, 30, 20)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env_id", "encoder", "num_envs", "options"),
    [
        (SAC, REACH, "gru", 3, STORED),
        (SAC, REACH, "transformer", 1, STORED),
        (SAC, REACH, "lstm", 2, EPISODES),
        (SAC, REACH, "mingru", 2, EARLY),
        (SAC, HIDDEN_REACH, "lstm", 3, {"coloured_noise": 0.9}),
        (TD3, REACH, "mingru", 3, STORED),
        (TD3, REACH, "gru", 2, {"goal_mode": "early", "critic_sees_reward": True}),
        (SAC, ANGLE, "gru", 2, {"start": "stored", "critic_sees_reward": True}),
        (TD3, REACH, "lstm", 1, SHARED),
        (TD3, HIDDEN_REACH, "transformer", 2, {"burn_in": 3}),
        (TD3, REACH, "gru", 2, EPISODES),
        (DQN, FLIP, "lstm", 3, STORED),
        (DQN, FLIP, "gru", 1, {"start": "stored", "update_ratio": 0.7}),
        (DQN, CUE, "transformer", 3, EPISODES),
        (DQN, CUE, "mingru", 2, {"burn_in": 4, "previous_reward": True}),
    ],
)
def test_resume_is_exact_within_an_episode(tmp_path, algorithm, env_id, encoder, num_envs, options):
    rounds = moments(algorithm.__name__, encoder, num_envs)
    chosen = settings(encoder, **options)
    agent = assert_resumes(tmp_path, algorithm, make, env_id, num_envs, chosen, rounds=rounds)
    assert agent.episodes_cut == 0
    assert len(agent.hidden_state) > 1
    kept = agent.replay_buffer.storage.hidden_state
    assert bool(kept) == (options.get("start") == "stored")
    assert all(np.abs(part).sum() > 0 for part in kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "encoder", "num_envs", "options"),
    [
        (SAC, "gru", 3, {"start": "stored", "burn_in": 2}),
        (TD3, "lstm", 1, EPISODES),
        (DQN, "transformer", 3, {"start": "stored"}),
    ],
)
def test_after_cut_episodes_the_hidden_state_is_fresh(
    tmp_path, algorithm, encoder, num_envs, options
):
    setting = (algorithm, build_walk, "", num_envs, settings(encoder, **options))
    details = {"discrete": algorithm is DQN}
    agent = assert_resumes(tmp_path, *setting, rounds=(33, 20, 12), **details)
    assert agent.episodes_cut > 0
    agent.state_dict()
    assert agent._last_episode_starts.all()
    outcomes = []
    for hidden_state in (agent.hidden_state, agent.learner.initial(num_envs)):
        starts = agent._last_episode_starts
        outcomes.append(agent.act(agent._last_obs, hidden_state, starts, explore=False))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    observation = agent.adapter.vectors(agent._last_obs)
    with torch.no_grad():
        continued = agent.learner.act(*observation, agent.hidden_state, ~starts, explore=False)[1]
    assert not torch.equal(continued[1], outcomes[0][1][1])


@pytest.mark.slow
def test_action_noise_and_hidden_states_resume(tmp_path):
    def correlated():
        return OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.3 * np.ones(2))

    chosen = settings("gru", **STORED)
    assert_resumes(tmp_path, TD3, make, REACH, 2, chosen, correlated, rounds=(33, 14, 9))


@pytest.mark.slow
def test_resume_before_the_first_update_is_exact(tmp_path):
    agent = assert_resumes(
        tmp_path, SAC, make, REACH, 2, settings("gru", **STORED), rounds=(3, 1, 30)
    )
    assert agent.num_timesteps == 68


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": {"name": "gru", "hidden": 7}}, "encoder or net_arch differ"),
        ({"encoder": {"name": "lstm", "hidden": 6}}, "another agent|encoder or net_arch differ"),
        ({"encoder": None, "start": "zero"}, r"differ in actor\.encoder"),
        ({"goal_mode": "early", "start": "zero"}, "encoder or net_arch differ"),
        ({"encoder_sharing": "detached"}, r"differ in actor\.encoder"),
        ({"start": "zero"}, "another hidden state"),
    ],
)
def test_the_state_of_another_encoder_is_refused_and_changes_nothing(changed, message):
    whole = start(SAC, make, REACH, 2, settings("gru", start="stored"))
    advance(whole, 9)
    other = start(SAC, make, REACH, 2, {**settings("gru", start="stored"), **changed})
    before = {name: view.clone() for name, view in other.learner.weights().items()}
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(whole.state_dict())
    if changed != {"start": "zero"}:  # whose weights do fit
        assert_same(before, dict(other.learner.weights()))
    assert len(other.replay_buffer) == 0


def test_training_resumes_with_the_saved_hidden_state():
    """The first action after a resume reads it."""
    whole = start(SAC, make, REACH, 2, settings("gru"))
    advance(whole, 20)
    state = whole.state_dict()
    resumed = start(SAC, make, REACH, 2, settings("gru"))
    resumed.load_state_dict(state)
    assert_same(list(resumed.hidden_state), list(whole.hidden_state))
    assert not torch.equal(resumed.hidden_state[1], resumed.learner.initial(2)[1])
    assert resumed.num_timesteps < TOTAL
