"""A run that was saved and resumed in a fresh agent equals one that was not stopped."""

import numpy as np
import pytest
from resuming import advance, assert_resumes, build_walk, start
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from rlkit.agents import DQN, SAC, TD3, TQC
from rlkit.envs.make import make

SUBSET = {"critics": 3, "target_critics": 2, "actor_critics": "mean"}
CONTINUOUS = [
    ("rlkit/PointMaze-U-v0", {}),
    ("rlkit/PlanarReach-v0", {"replay": {"steps": 3}, "update_ratio": 0.3}),
]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SAC, TD3])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(("env_id", "options"), CONTINUOUS)
def test_environments_with_a_state_resume_within_an_episode(
    tmp_path, algorithm, num_envs, env_id, options
):
    agent = assert_resumes(tmp_path, algorithm, make, env_id, num_envs, options)
    assert agent.episodes_cut == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("replay", [{}, {"steps": 3, "hindsight": {"final": 0.5, "original": 0.5}}])
def test_dqn_resumes(tmp_path, num_envs, replay):
    assert_resumes(tmp_path, DQN, make, "rlkit/BitFlip-v0", num_envs, {"replay": replay})


@pytest.mark.slow
def test_exploration_resumes(tmp_path):
    options = {"exploration_fraction": 0.05, "exploration_final_eps": 0.0}
    agent = assert_resumes(tmp_path, DQN, make, "rlkit/BitFlip-v0", 2, options, bits=6)
    assert 0.3 < agent.exploration_rate < 0.6


@pytest.mark.slow
def test_schedules_resume(tmp_path):
    options = {"learning_rate": lambda left: 1e-3 * left, "max_grad_norm": 1.0}
    agent = assert_resumes(tmp_path, SAC, make, "rlkit/PointMaze-Open-v0", 2, options)
    assert 0 < agent.learner.learning_rate < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [None, {"name": "gru", "hidden": 6}])
def test_adamw_resumes(tmp_path, encoder):
    options = {"optimiser": "adamw", "weight_decay": 0.1, "encoder": encoder, "window": 5}
    setting = (SAC, make, "rlkit/PointMaze-Open-v0", 2, options)
    assert_resumes(tmp_path, *setting, rounds=(35, 20, 12))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (SAC, {"input_features": "fourier", "goal_input": "both", "imitation": 0.3, **SUBSET}),
        (SAC, {"policy_ema": 0.9}),
        (TD3, {"policy_ema": 0.9}),
        (TD3, {"input_features": "learned_fourier", "fourier_width": 8, **SUBSET}),
        (TQC, {"input_features": "fourier", "goal_input": "relative", "quantiles": 5}),
    ],
)
@pytest.mark.parametrize("encoder", [None, {"name": "gru", "hidden": 6}])
def test_what_networks_read_and_learn_resumes(tmp_path, algorithm, options, encoder):
    options = {**options, "encoder": encoder, "window": 5, "goal_mode": "early"}
    setting = (algorithm, make, "rlkit/PointMaze-Open-v0", 2, options)
    assert_resumes(tmp_path, *setting, rounds=(35, 20, 12))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_episodes_are_cut_where_an_environment_cannot_give_its_state(tmp_path, algorithm, num_envs):
    details = {"discrete": algorithm is DQN}
    agent = assert_resumes(tmp_path, algorithm, build_walk, "", num_envs, {}, **details)
    assert agent.episodes_cut > 0


def gaussian():
    return NormalActionNoise(np.zeros(2), 0.3 * np.ones(2))


def correlated():
    return OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.3 * np.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("noise", [gaussian, correlated])
def test_action_noise_resumes(tmp_path, num_envs, noise):
    assert_resumes(tmp_path, TD3, make, "rlkit/PointMaze-U-v0", num_envs, {}, noise)


@pytest.mark.slow
@pytest.mark.parametrize("frequency", [7, (1, "episode")])
def test_every_update_frequency_resumes(tmp_path, frequency):
    setting = (SAC, make, "rlkit/PointMaze-Open-v0", 1)
    options = {"train_freq": frequency, "gradient_steps": 4}
    assert_resumes(tmp_path, *setting, options, rounds=(8, 6, 3))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_a_simulated_robot_resumes(tmp_path, algorithm):
    pytest.importorskip("gymnasium_robotics")
    agent = assert_resumes(tmp_path, algorithm, make, "FetchReach-v4", 1, {})
    assert agent.episodes_cut == 0


def test_state_of_other_settings_is_refused():
    setting = (make, "rlkit/PointMaze-U-v0", 2)
    agent = start(SAC, *setting, {})
    advance(agent, 3)
    state = agent.state_dict()
    with pytest.raises(ValueError, match="net_arch differ"):
        start(SAC, *setting, {"net_arch": [17]}).load_state_dict(state)
    with pytest.raises(ValueError, match="same environments, spaces and capacity"):
        start(SAC, make, "rlkit/PointMaze-U-v0", 3, {}).load_state_dict(state)
    with pytest.raises(ValueError, match="another agent"):
        start(TD3, *setting, {}).load_state_dict(state)
