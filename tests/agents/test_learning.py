"""Agents learn tasks with sparse rewards with hindsight, and do not learn them without.

Measured with four seeds each: with hindsight 0.97 to 1.0, without it 0.08 at most.
"""

import pytest

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.experiment.evaluate import EVALUATION_SEED, evaluate
from rlkit.vec.vec_env import make_vec_env

QUICK = {
    "net_arch": [64, 64],
    "layer_norm": True,
    "learning_rate": 1e-3,
    "gamma": 0.98,
    "tau": 0.05,
    "update_ratio": 0.5,
    "learning_starts": 500,
    "buffer_size": 100_000,
}
ACTOR = {**QUICK, "random_fraction": 0.2}
TASKS = {
    "sac": (
        SAC,
        "rlkit/PointMaze-Open-v0",
        {},
        2400,
        8,
        {**ACTOR, "entropy_in_target": False, "initial_ent_coef": 0.14},
    ),
    # Without the penalty its tanh saturates with every third seed.
    "td3": (TD3, "rlkit/PointMaze-Open-v0", {}, 3200, 8, {**ACTOR, "action_penalty": 0.1}),
    "dqn": (
        DQN,
        "rlkit/BitFlip-v0",
        {"bits": 10},
        16_000,
        16,
        {
            **QUICK,
            "net_arch": [256],
            "layer_norm": False,
            "exploration_initial_eps": 0.2,
            "exploration_final_eps": 0.1,
            "update_ratio": 0.05,
        },
    ),
}


def success(task, **changes):
    algorithm, env_id, env_options, steps, num_envs, options = TASKS[task]
    env = make_vec_env(make, env_id, num_envs, 0, **env_options)
    agent = algorithm("MultiInputPolicy", env, seed=0, device="cpu", **{**options, **changes})
    agent.learn(steps)
    eval_env = make_vec_env(make, env_id, 50, **env_options)
    result = evaluate(agent, eval_env, 100, EVALUATION_SEED, agent.rule)
    return result.summary()["success_rate"]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_hindsight_makes_sparse_rewards_learnable(task):
    assert success(task) >= 0.9
    assert success(task, replay={"hindsight": "original"}) <= 0.5
