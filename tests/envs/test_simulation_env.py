import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import DQN, SAC, HerReplayBuffer

import rlkit.envs  # noqa: F401
from rlkit.envs.simulation_vector_env import SimulationVectorEnv
from rlkit.goals import DistanceRule, GoalRule

# All other ids are wrappers around environments without a Simulation.
IDS = sorted(
    name
    for name, spec in gym.registry.items()
    if name.startswith("rlkit/") and spec.vector_entry_point is not None
)
GOALS = ("achieved_goal", "desired_goal")
every_id = pytest.mark.parametrize("env_id", IDS)


def actions_for(space, count, batch=None):
    space.seed(5)
    drawn = np.array([space.sample() for _ in range(count * (batch or 1))])
    return drawn if batch is None else drawn.reshape(count, batch, *space.shape)


def assert_equal(left, right):
    assert set(left) == set(right)
    for key in left:
        if isinstance(left[key], dict):
            assert_equal(left[key], right[key])
        else:
            np.testing.assert_array_equal(left[key], right[key], strict=True)


def play(env, actions):
    records = []
    for action in actions:
        observation, reward, terminated, truncated, infos = env.step(action)
        records.append(
            observation
            | {
                "reward": np.asarray(reward),
                "terminated": np.asarray(terminated),
                "truncated": np.asarray(truncated),
                "is_success": np.asarray(infos["is_success"]),
            }
        )
    return {key: np.stack([record[key] for record in records]) for key in records[0]}


def test_ids_exist():
    assert {"rlkit/BitFlip-v0", "rlkit/PointMaze-U-v0", "rlkit/PointMaze-U-Dense-v0"} <= set(IDS)


@every_id
def test_single_and_vector_share_the_registered_limit(env_id):
    single, vector = gym.make(env_id), gym.make_vec(env_id, num_envs=1)
    single.reset(seed=3)
    vector.reset(seed=3)
    # Some environments have a time limit of their own.
    limit = gym.spec(env_id).max_episode_steps or single.unwrapped.max_episode_steps
    for step, action in enumerate(actions_for(single.action_space, limit), start=1):
        *_, terminated, truncated, _ = single.step(action)
        *_, terminateds, truncateds, _ = vector.step(action[None])
        assert (terminated, truncated) == (terminateds[0], truncateds[0])
        assert truncated == (step == limit)
        if terminated:
            break


@every_id
def test_batch_equals_batches_of_one(env_id):
    simulation = gym.make(env_id).unwrapped.simulation
    state = simulation.initial(np.random.default_rng(0).random((33, simulation.draws)))
    for actions in actions_for(simulation.action_space, 15, 33):
        after = simulation.step(state, actions)
        for i in (0, 13, 32):
            row = {key: value[i : i + 1] for key, value in state.items()}
            alone = simulation.step(row, actions[i : i + 1])
            assert_equal(alone, {key: value[i : i + 1] for key, value in after.items()})
        state = after


@pytest.mark.slow
@every_id
def test_observations_are_in_their_spaces(env_id):
    env = gym.make_vec(env_id, num_envs=64)
    observation, _ = env.reset(seed=0)
    for actions in actions_for(env.single_action_space, 60, 64):
        assert env.observation_space.contains(observation)
        observation = env.step(actions)[0]


@every_id
def test_step_equals_the_rule(env_id):
    env = gym.make(env_id).unwrapped
    env.reset(seed=1)
    assert isinstance(env.rule, GoalRule)
    observed = play(env, actions_for(env.action_space, 40))
    goals = observed["achieved_goal"], observed["desired_goal"]
    np.testing.assert_array_equal(observed["reward"], env.rule.reward(*goals))
    np.testing.assert_array_equal(observed["terminated"], env.rule.terminated(*goals))
    np.testing.assert_array_equal(observed["is_success"], env.rule.success(*goals))
    np.testing.assert_array_equal(observed["reward"], env.compute_reward(*goals, [{}] * 40))
    alone = [env.compute_reward(*pair, {}) for pair in zip(*goals, strict=True)]
    np.testing.assert_array_equal(observed["reward"], alone)
    low, high = env.rule.reward_range
    assert ((low <= observed["reward"]) & (observed["reward"] <= high)).all()


@every_id
def test_vector_step_equals_the_rule(env_id):
    env = gym.make_vec(env_id, num_envs=50, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=1)
    for actions in actions_for(env.single_action_space, 15, 50):
        observation, reward, terminated, _, infos = env.step(actions)
        ended = infos.get("_final_obs", np.zeros(50, bool))
        goals = [observation[key] for key in GOALS]
        np.testing.assert_array_equal(infos["is_success"], env.rule.success(*goals))
        success = infos["is_success"].copy()
        for i in np.flatnonzero(ended):
            success[i] = infos["final_info"]["is_success"][i]
            for goal, key in zip(goals, GOALS, strict=True):
                goal[i] = infos["final_obs"][i][key]
        np.testing.assert_array_equal(reward, env.rule.reward(*goals))
        np.testing.assert_array_equal(terminated, env.rule.terminated(*goals))
        np.testing.assert_array_equal(success, env.rule.success(*goals))


@every_id
def test_rule_survives_pickling(env_id):
    rule = gym.make(env_id).unwrapped.rule
    assert pickle.loads(pickle.dumps(rule)) == rule


@every_id
def test_no_start_satisfies_its_goal(env_id):
    env = gym.make(env_id).unwrapped
    uniforms = np.random.default_rng(0).random((5000, env.simulation.draws))
    edge = np.nextafter(1.0, 0.0)
    uniforms[:2] = np.array([0.0, edge])[:, None]
    observation = env.simulation.observe(env.simulation.initial(uniforms))
    assert not env.rule.success(*(observation[key] for key in GOALS)).any()


# The checker warns of infinite bounds, which are right for positions in an unbounded world.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m(in|ax)imum value is -?infinity")
@every_id
def test_gymnasium_checker_passes(env_id):
    check_env(gym.make(env_id).unwrapped)


@every_id
def test_single_state_round_trip(env_id):
    env = gym.make(env_id).unwrapped
    env.reset(seed=2)
    actions = actions_for(env.action_space, 30)
    play(env, actions[:5])
    state = env.get_state()
    rest = play(env, actions[5:])
    fresh = env.reset()[0]
    other = gym.make(env_id).unwrapped
    other.set_state(state)
    assert_equal(play(other, actions[5:]), rest)
    assert_equal(other.reset()[0], fresh)


@every_id
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_state_round_trip(env_id, mode):
    def make():
        return gym.make_vec(env_id, num_envs=4, max_episode_steps=7, autoreset_mode=mode)

    env = make()
    env.reset(seed=2)
    actions = actions_for(env.single_action_space, 30, 4)
    # After seven steps, a reset is pending under next-step autoreset.
    play(env, actions[:7])
    state = env.get_state()
    rest = play(env, actions[7:])
    other = make()
    other.set_state(state)
    assert_equal(play(other, actions[7:]), rest)


@every_id
def test_saved_state_is_plain_data(env_id):
    def check(value):
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            for inner in value.values():
                check(inner)
        elif isinstance(value, np.ndarray):
            assert value.dtype.kind in "biuf"
        else:
            assert type(value) in (int, str)

    for env in (gym.make(env_id).unwrapped, gym.make_vec(env_id, num_envs=2)):
        env.reset(seed=0)
        check(env.get_state())


@every_id
def test_callers_may_write_to_observations(env_id):
    def run(spoil):
        env = gym.make_vec(env_id, num_envs=3, max_episode_steps=4)
        observation, _ = env.reset(seed=7)
        observed = []
        for actions in actions_for(env.single_action_space, 12, 3):
            for value in observation.values():
                observed.append(value.copy())
                if spoil:
                    value[...] = 1
            observation = env.step(actions)[0]
        return observed

    for value, other in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.slow
@every_id
def test_rendering(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape[0] % 2 == 0
    assert before.shape == (before.shape[0], before.shape[0], 3)
    for action in actions_for(env.action_space, 3):
        env.step(action)
    assert (env.render() != before).any()
    vector = gym.make_vec(env_id, num_envs=4, render_mode="rgb_array")
    vector.reset(seed=0)
    frames = vector.render()
    np.testing.assert_array_equal(frames[0], before)
    assert any((frame != frames[0]).any() for frame in frames[1:])


@pytest.mark.slow
@every_id
def test_trains_under_stable_baselines3_hindsight(env_id):
    env = gym.make(env_id, max_episode_steps=10)
    algorithm = DQN if isinstance(env.action_space, gym.spaces.Discrete) else SAC
    sizes = {"learning_starts": 40, "batch_size": 16, "buffer_size": 400, "train_freq": 8}
    options = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu"}
    hindsight = {"replay_buffer_class": HerReplayBuffer}
    model = algorithm("MultiInputPolicy", env, **hindsight, **sizes, **options)
    model.learn(200)
    sample = model.replay_buffer.sample(256)
    goals = sample.next_observations["achieved_goal"], sample.next_observations["desired_goal"]
    rewards = env.unwrapped.rule.reward(*(goal.numpy() for goal in goals))
    np.testing.assert_allclose(sample.rewards[:, 0], rewards, rtol=1e-6)
    assert model._n_updates > 0


@every_id
def test_wrong_actions_are_named(env_id):
    env, vector = gym.make(env_id).unwrapped, gym.make_vec(env_id, num_envs=2)
    env.reset(seed=0)
    vector.reset(seed=0)
    space = env.action_space
    if isinstance(space, gym.spaces.Discrete):
        wrong, message = space.n, rf"from 0 to {space.n - 1}, got .*{space.n}"
    else:
        wrong, message = np.full(space.shape, np.nan, np.float32), r"must be finite, got \[nan"
    with pytest.raises(ValueError, match=message):
        env.step(wrong)
    with pytest.raises(ValueError, match=r"finite|from 0 to"):
        vector.step(np.stack([space.sample(), wrong]))
    with pytest.raises(ValueError, match=r"must have shape .*, got \(7, 7\)"):
        env.step(np.zeros((7, 7), space.dtype))
    with pytest.raises(ValueError, match=r"must have shape \(2"):
        vector.step(np.stack([space.sample()]))


def test_reset_comes_first():
    for env in (
        gym.make("rlkit/PointMaze-U-v0", render_mode="rgb_array").unwrapped,
        gym.make_vec("rlkit/PointMaze-U-v0", num_envs=1, render_mode="rgb_array"),
    ):
        action = np.zeros(env.action_space.shape, np.float32)
        for call in (lambda env=env, action=action: env.step(action), env.render, env.get_state):
            with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before"):
                call()


def test_vector_seeds():
    env = gym.make_vec("rlkit/PointMaze-U-v0", num_envs=3)
    by_number = env.reset(seed=4)[0]
    assert_equal(env.reset(seed=[4, 5, 6])[0], by_number)
    assert (env.reset()[0]["observation"] != by_number["observation"]).any()
    with pytest.raises(ValueError, match="2 seeds for 3 environments"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, got 0"),
        ({"render_mode": "human"}, "got 'human'"),
    ],
)
def test_wrong_vector_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gym.make_vec("rlkit/PointMaze-U-v0", **{"num_envs": 2} | arguments)


def test_a_state_of_another_batch_is_refused():
    env = gym.make_vec("rlkit/PointMaze-U-v0", num_envs=3)
    env.reset(seed=0)
    state = env.get_state()
    with pytest.raises(ValueError, match="has 3 rows instead of 2"):
        gym.make_vec("rlkit/PointMaze-U-v0", num_envs=2).set_state(state)


def test_render_without_a_mode_warns():
    for env in (
        gym.make("rlkit/BitFlip-v0").unwrapped,
        gym.make_vec("rlkit/BitFlip-v0", num_envs=1),
    ):
        env.reset(seed=0)
        with pytest.warns(UserWarning, match='render_mode="rgb_array"'):
            assert env.render() is None


def test_gymnasium_vector_wrappers_work():
    env = RecordEpisodeStatistics(
        gym.make_vec("rlkit/PointMaze-U-v0", num_envs=2, max_episode_steps=5)
    )
    env.reset(seed=0)
    for actions in actions_for(env.single_action_space, 5, 2):
        infos = env.step(actions)[4]
    np.testing.assert_array_equal(infos["episode"]["l"], [5, 5])


class UserSimulation:
    """A user's simulation that shares one read-only goal among all rows and all states."""

    draws, frames_per_second = 1, 10
    rule = DistanceRule(0.5, terminates=True)
    action_space = gym.spaces.Box(-1, 1, (1,))
    observation_space = gym.spaces.Dict(
        {key: gym.spaces.Box(-9, 9, (1,)) for key in ("observation", *GOALS)}
    )

    def initial(self, uniforms):
        goal = np.broadcast_to(np.float32(3), uniforms.shape)
        return {"position": uniforms.astype(np.float32), "goal": goal}

    def step(self, state, action):
        return state | {"position": state["position"] + action}

    def observe(self, state):
        position = state["position"]
        return {"observation": position, "achieved_goal": position, "desired_goal": state["goal"]}

    def render(self, state, size):
        return np.full((size, size, 3), 255, np.uint8)


def test_a_simulation_may_share_arrays_between_states():
    env = SimulationVectorEnv(UserSimulation(), num_envs=3)
    start = env.reset(seed=0)[0]["observation"][:, 0]
    ends = []
    for _ in range(3):
        observation, reward, terminated, _, _ = env.step(np.ones((3, 1), np.float32))
        np.testing.assert_array_equal(reward, terminated - 1.0)
        assert (observation["observation"][terminated] < 1).all()
        np.testing.assert_array_equal(observation["desired_goal"], np.full((3, 1), 3, np.float32))
        ends.append(terminated)
    # Starts are in [0, 1): those above 0.5 are close to 3 after two steps, the others after three.
    np.testing.assert_array_equal(ends, [[False] * 3, start > 0.5, start <= 0.5])


@pytest.mark.slow
def test_environments_need_no_torch():
    code = (
        "import sys, gymnasium as gym, rlkit.envs\n"
        "assert 'rlkit.envs.point_maze' not in sys.modules\n"
        "gym.make('rlkit/PointMaze-U-v0', render_mode='rgb_array').reset(seed=0)\n"
        "assert not {'torch', 'stable_baselines3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
