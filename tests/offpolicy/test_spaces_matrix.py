"""Every kind of observation and action with every agent: train, predict, save, load, go on."""

import numpy as np
import pytest
from gymnasium import spaces
from small_envs import Recorder

from rlkit.agents import DQN, MPC, SAC, TD3
from rlkit.envs.make import make
from rlkit.goals import ExactRule, GoalWrapper
from rlkit.offpolicy.spaces import wrap_env
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [8], "batch_size": 8, "learning_starts": 20, "seed": 0, "device": "cpu"}
PLANS = {
    "planner": {"name": "cem", "horizon": 2, "samples": 20, "iterations": 2},
    "world": {"name": "ensemble", "members": 2, "hidden": (8,)},
    **{"first_fit": 4, "gradient_steps": 2, "particles": 2, "learning_starts": 40},
    "train_freq": 20,
    **{"batch_size": 8, "seed": 0, "device": "cpu"},
}
GRU = {"encoder": {"name": "gru", "hidden": 4}, "window": 3}

OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "matrix of doubles": spaces.Box(-1, 1, (2, 3), np.float64),
    "integers": spaces.Box(-5, 5, (2,), np.int64),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "choice": spaces.Discrete(3, start=-1),
    "choices": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "switches": spaces.MultiBinary([2, 2]),
    "as MiniGrid": spaces.Dict(
        image=spaces.Box(0, 255, (4, 4, 3), np.uint8),
        direction=spaces.Discrete(4),
        mission=spaces.Text(5, charset="abc"),
    ),
    "tuple": spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)]),
    "some goal keys": spaces.Dict(
        desired_goal=spaces.Discrete(3), achieved_goal=spaces.Discrete(3)
    ),
    "nested": spaces.Dict(
        observation=spaces.Dict(x=spaces.Box(-1, 1, (2,)), y=spaces.Discrete(2)),
        extra=spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1, 2))]),
    ),
    "text": spaces.Text(4, charset="xyz"),
}
BOX = spaces.Box(-2, 1, (2,), np.float32)
NUMBERS = {
    "numbers": BOX,
    "matrix": spaces.Box(-2, 1, (2, 3), np.float64),
    "integers": spaces.Box(0, 4, (2,), np.int64),
    "boxes": spaces.Dict(arm=BOX, legs=spaces.Tuple([spaces.Box(0, 1, (1, 2)), BOX])),
}
ONE = {"choice": spaces.Discrete(3, start=2)}
CHOICES = {
    **ONE,
    "choices": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [-3, 5]]),
    "switches": spaces.MultiBinary([2, 2]),
    "tuple": spaces.Tuple([spaces.Discrete(2, start=1), spaces.MultiBinary(2)]),
}
AGENTS = [
    (SAC, SMALL, NUMBERS),
    (TD3, SMALL, NUMBERS),
    (DQN, SMALL, CHOICES),
    (DQN, {**SMALL, **GRU}, CHOICES),
    (SAC, {**SMALL, **GRU}, NUMBERS),
    (MPC, PLANS, NUMBERS | ONE),
]


def name_of(agent):
    return agent[0].__name__ + ("-recurrent" if "encoder" in agent[1] else "")


def cases():
    """Each observation with the first action, each action with the first observation.

    Slow agents see some observations only: what a space becomes does not depend on the agent.
    """
    for agent in AGENTS:
        algorithm, options, actions = agent
        first, is_slow = next(iter(actions)), algorithm is MPC or "encoder" in options
        observations = ["as MiniGrid", "nested"] if is_slow else OBSERVATIONS
        pairs = [(seen, first) for seen in observations] + [("vector", done) for done in actions]
        for seen, done in dict.fromkeys(pairs):
            yield pytest.param(
                *(algorithm, options, OBSERVATIONS[seen], actions[done]),
                id=f"{name_of(agent)}-{seen}-{done}",
                marks=[pytest.mark.slow] if is_slow else [],
            )


@pytest.mark.parametrize(("algorithm", "options", "seen", "done"), list(cases()))
def test_train_predict_save_load_and_go_on(algorithm, options, seen, done, tmp_path):
    env = Recorder(done, seen)
    policy = "MultiInputPolicy" if isinstance(seen, spaces.Dict | spaces.Tuple) else "MlpPolicy"
    agent = algorithm(policy, env, **options).learn(60)
    assert agent.learner.updates > 0
    assert len(env.actions) == 60
    agent.save(tmp_path / "agent")
    assert_acts_the_same(agent, algorithm.load(tmp_path / "agent", device="cpu"))
    further = algorithm.load(tmp_path / "agent", Recorder(done, seen), device="cpu")
    assert_acts_the_same(agent, further)
    further.learn(45)
    assert further.learner.updates > agent.learner.updates


def assert_acts_the_same(agent, loaded):
    venv = wrap_env(Recorder(agent.action_space, agent.observation_space))
    venv.seed(3)
    batch = venv.reset()
    actions, hidden_state = agent.predict(batch, deterministic=True)
    again, _ = loaded.predict(batch, deterministic=True)
    np.testing.assert_array_equal(actions, again)
    agent.predict(batch, hidden_state, np.zeros(1, bool), deterministic=True)
    one = {key: part[0] for key, part in batch.items()} if isinstance(batch, dict) else batch[0]
    single, _ = agent.predict(one, deterministic=True)
    assert agent.action_space.contains(single)
    np.testing.assert_array_equal(single, actions[0])


GOALS = {
    "choice": (spaces.Discrete(3), lambda x: x % 3),
    "choices": (spaces.MultiDiscrete([2, 3]), lambda x: np.array([x % 2, x % 3])),
    "switches": (spaces.MultiBinary(3), lambda x: np.array([x >> i & 1 for i in range(3)])),
}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(("algorithm", "options"), [(DQN, {}), (DQN, GRU), (SAC, {})])
def test_goals_of_choices_train_with_hindsight(algorithm, options, goal, tmp_path):
    space, achieved = GOALS[goal]
    actions = CHOICES["choices"] if algorithm is DQN else BOX

    def build(env_id="goals"):
        env = Recorder(actions, spaces.Discrete(6))
        return GoalWrapper(env, achieved, ExactRule(), space)

    agent = algorithm("MultiInputPolicy", make_vec_env(build, "goals", 2, 0), **SMALL, **options)
    agent.learn(100)
    batch = agent.replay_buffer.sample(200)
    assert (batch.reward == 0).any()
    assert (batch.reward == -1).any()
    agent.save(tmp_path / "agent")
    assert_acts_the_same(agent, algorithm.load(tmp_path / "agent", device="cpu"))


def test_columns_of_dicts_with_goals_keep_their_order():
    agent = SAC("MultiInputPolicy", make_vec_env(make, "rlkit/PointMaze-Open-v0", 1, 0), **SMALL)
    assert list(agent.adapter.layout.slices) == ["achieved_goal", "observation"]
