"""The agent that plans in a world it learns: the laws of agents that apply to it, and its own."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from imagined import Broken, Drift
from resuming import assert_resumes, build_walk
from small_envs import Bandit, Recorder
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlkit.agents import MPC, SAC
from rlkit.envs.make import make
from rlkit.experiment.evaluate import EVALUATION_SEED, evaluate
from rlkit.goals import DistanceRule
from rlkit.planning import CEM
from rlkit.replay import NonFiniteError
from rlkit.vec.vec_env import make_vec_env

MAZE = "rlkit/PointMaze-Open-v0"
WORLD = {"name": "ensemble", "members": 2, "hidden": [8]}
QUICK = {"horizon": 3, "samples": 12, "iterations": 2, "elites": 2}
PLANNER = {"name": "icem", **QUICK}
TINY = {
    "world": WORLD,
    "planner": PLANNER,
    "particles": 2,
    "first_fit": 3,
    "batch_size": 8,
    "learning_starts": 10,
    "train_freq": 5,
    "gradient_steps": 2,
    "buffer_size": 500,
    "seed": 0,
    "device": "cpu",
}
CHOICES = {"planner": {"name": "cem", **QUICK}}


def plain(env=None, **options):
    return MPC("MlpPolicy", Recorder() if env is None else env, **{**TINY, **options})


def on_goals(env_id=MAZE, num_envs=2, **options):
    env = make_vec_env(make, env_id, num_envs, 0)
    return MPC("MultiInputPolicy", env, **{**TINY, **options})


def weights(agent):
    return {name: value.clone() for name, value in agent.learner.weights().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def some(agent, count=4, seed=5):
    agent.observation_space.seed(seed)
    observations = [agent.observation_space.sample() for _ in range(count)]
    if isinstance(observations[0], dict):
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)


# Acting


@pytest.mark.parametrize("discrete", [False, True])
def test_actions_are_those_of_the_space_before_and_after_the_first_fit(discrete):
    low, high = np.array([-3, 100], np.float32), np.array([-1, 500], np.float32)
    space = spaces.Discrete(3, start=-1) if discrete else spaces.Box(low, high)
    env = Recorder(space)
    agent = plain(env, **(CHOICES if discrete else {})).learn(40)
    assert len(env.actions) == 40  # the environment refuses others
    for deterministic in (False, True):
        for action in agent.predict(some(agent), deterministic=deterministic)[0]:
            assert space.contains(action)
    assert space.contains(agent.predict(some(agent, 1)[0])[0])


@pytest.mark.slow
def test_planning_begins_with_the_first_fit():
    agent = plain(learning_starts=20)
    counts = {}
    for step in agent.iterate(40, log_interval=None):
        counts[step] = agent.learner.updates
    assert (counts[20], counts[25], counts[30]) == (0, 3 + 2, 3 + 2 + 2)
    assert agent._n_updates == agent.learner.updates
    assert agent.metrics._means["planner/samples"][1] == 15


@pytest.mark.slow
def test_acting_greedily_is_a_function_of_its_input():
    agent = on_goals().learn(60)
    before = agent.learner.generator.get_state()
    one, hidden_state = agent.predict(some(agent), deterministic=True)
    two, _ = agent.predict(some(agent), deterministic=True)
    np.testing.assert_array_equal(one, two)
    assert torch.equal(agent.learner.generator.get_state(), before)
    agent.predict(some(agent), hidden_state, np.zeros(4, bool), deterministic=True)
    assert torch.equal(agent.learner.generator.get_state(), before)
    agent.predict(some(agent))
    assert not torch.equal(agent.learner.generator.get_state(), before)


@pytest.mark.slow
def test_the_hidden_state_is_reset_where_an_episode_begins():
    agent = on_goals(world={"name": "rssm", "hidden": 8}).learn(60)
    x = some(agent)
    fresh, _ = agent.predict(x, deterministic=True)
    _, hidden_state = agent.predict(some(agent, seed=8), deterministic=True)
    again, _ = agent.predict(x, hidden_state, np.ones(4, bool), deterministic=True)
    np.testing.assert_array_equal(fresh, again)
    on, _ = agent.predict(x, hidden_state, np.zeros(4, bool), deterministic=True)
    assert not np.array_equal(fresh, on)


@pytest.mark.slow
def test_predictions_are_no_part_of_the_training():
    one, other = on_goals(), on_goals()
    for agent in (one, other):
        for _ in itertools.islice(agent.iterate(1000), 12):
            if agent is one:
                agent.predict(some(agent, 2), deterministic=True)
    assert same(weights(one), weights(other))
    assert one.metrics._means.keys() == other.metrics._means.keys()
    np.testing.assert_array_equal(one.metrics._real, other.metrics._real)


@pytest.mark.slow
def test_exploration_noise_is_for_training_alone():
    quiet, loud = plain().learn(30), plain(exploration_noise=0.5)
    loud.load_state_dict(quiet.state_dict())
    x = some(quiet)
    greedy = [agent.predict(x, deterministic=True)[0] for agent in (quiet, loud)]
    np.testing.assert_array_equal(*greedy)
    trying = [agent.predict(x)[0] for agent in (quiet, loud)]
    assert 0.1 < np.abs(trying[0] - trying[1]).mean() < 1


# Planning


class Shunned:
    """Rewards the distance from the goal, unlike the environment."""

    reward_range = (0.0, np.inf)

    def reward(self, achieved, desired):
        return np.abs(achieved - desired).sum(1)

    def success(self, achieved, desired):
        return np.zeros(len(achieved), np.bool_)

    terminated = success


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("rule", "shaping", "sign"),
    [(DistanceRule(0.6), 0.0, 1), (DistanceRule(0.1), 1.0, 1), (Shunned(), 0.0, -1)],
    ids=["sparse", "shaped", "shunned"],
)
def test_plans_follow_the_goal_rule(rule, shaping, sign, seed):
    """In a world in which the place moves by a tenth of the action."""
    planner = {"name": "cem", "horizon": 4, "samples": 300, "iterations": 4}
    agent = on_goals(num_envs=1, world=Drift(), planner=planner, shaping=shaping, seed=seed)
    agent.learner.world.steps = 1  # nothing has to be learned
    agent.learner.set_rule(rule)
    goals = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    shown = {
        "observation": np.zeros((4, 4), np.float32),
        "achieved_goal": np.zeros((4, 2), np.float32),
        "desired_goal": 0.5 * goals,
    }
    action = agent.predict(shown, deterministic=True)[0]
    assert (np.sign(action) == sign * goals).all()


@pytest.mark.slow
def test_a_world_that_is_not_finite_leads_to_random_actions(tmp_path):
    env = Recorder()
    agent = plain(env, world=Broken(members=2, hidden=(8,)), tensorboard_log=str(tmp_path))
    agent.learn(60, log_interval=1, tb_log_name="broken")
    assert len(env.actions) == 60  # it refuses what is no number
    planned = np.stack(env.actions[15:])
    assert 0.3 < np.abs(planned).mean() < 0.7  # uniform: neither stuck nor at the ends
    curves = EventAccumulator(str(tmp_path / "broken_1")).Reload()
    fallbacks = [point.value for point in curves.Scalars("world/fallbacks")]
    nonfinite = [point.value for point in curves.Scalars("world/nonfinite")]
    assert sum(fallbacks) == 60 - 15
    assert sum(nonfinite) == 12 * sum(fallbacks)


@pytest.mark.slow
def test_sequences_that_are_not_finite_are_never_chosen():
    env = Recorder()
    world, planner = Broken(members=2, hidden=(8,), everywhere=False), {**PLANNER, "samples": 60}
    agent = plain(env, world=world, planner=planner).learn(60, log_interval=None)
    assert np.stack(env.actions[15:])[:, 0].min() >= 0
    assert agent.metrics._counts["world/nonfinite"] > 0
    assert agent.metrics._counts["world/fallbacks"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("world", [{"name": "linear"}, {"name": "rssm", "hidden": 8}])
def test_any_world_can_be_planned_in(world):
    agent = plain(world=world, planner={"name": "mppi", **QUICK}).learn(40)
    assert agent.learner.updates > 0
    assert agent.metrics._counts["world/fallbacks"] == 0


# Learning


@pytest.mark.slow
def test_one_seed_gives_one_course():
    one, other, third = (on_goals(seed=seed).learn(60) for seed in (1, 1, 2))
    assert same(weights(one), weights(other))
    assert not same(weights(one), weights(third))


@pytest.mark.slow
def test_the_log_holds_the_metrics_of_planning(tmp_path):
    agent = on_goals(tensorboard_log=str(tmp_path))
    agent.learn(400, log_interval=1, tb_log_name="mine")
    curves = EventAccumulator(str(tmp_path / "mine_1")).Reload()
    assert set(curves.Tags()["scalars"]) >= {
        "imagination/gap",
        "imagination/return_imagined",
        "imagination/return_real",
        "imagination/success_gap",
        "planner/milliseconds",
        "planner/score",
        "planner/spread",
        "rollout/success_rate",
        "train/error",
        "train/loss",
        "world/error_ahead",
        "world/fallbacks",
        "world/nonfinite",
    }
    error = [point.value for point in curves.Scalars("world/error_ahead")]
    assert error[-1] < 0.5 * error[0]


@pytest.mark.slow
def test_what_is_not_finite_never_reaches_the_weights():
    agent = plain(Recorder(broken_at=33))
    with pytest.raises(NonFiniteError):
        agent.learn(1000)
    assert all(torch.isfinite(value).all() for value in agent.learner.weights().values())


@pytest.mark.slow
@pytest.mark.parametrize("discrete", [False, True])
def test_a_task_without_goals_is_learned(discrete):
    """Chance earns -0.5 (discrete) or worse than -3; so does ignoring the observation."""
    env = Bandit(discrete)
    search = {"horizon": 1, "samples": 60, "iterations": 3, "elites": 4}
    kind = {"name": "cem" if discrete else "icem", **search}
    fits = {"first_fit": 300, "batch_size": 64, "train_freq": 10, "gradient_steps": 40}
    options = {"learning_starts": 100, "learning_rate": 3e-3, **fits}
    world = {"name": "ensemble", "members": 2, "hidden": [32]}
    agent = plain(env, planner=kind, world=world, **options).learn(250)
    mean, _ = evaluate_policy(agent, Monitor(env), n_eval_episodes=20)
    assert mean > (-0.01 if discrete else -1.5)


@pytest.mark.slow
def test_goals_are_reached_after_a_few_hundred_steps():
    """Random actions reach less than a fifth of these goals."""
    eval_envs = make_vec_env(make, MAZE, 20)
    planner = {"name": "icem", "horizon": 10, "samples": 40, "iterations": 2, "elites": 5}
    world = {"name": "ensemble", "members": 2, "hidden": [32]}
    settings = {"first_fit": 300, "batch_size": 128, "gradient_steps": 10, "train_freq": 25}
    agent = on_goals(num_envs=4, world=world, planner=planner, learning_starts=200, **settings)

    def success():
        return evaluate(agent, eval_envs, 20, EVALUATION_SEED, agent.rule).summary()

    assert success()["success_rate"] <= 0.2  # before the first fit its actions are random
    agent.learn(500)
    assert success()["success_rate"] >= 0.9


# Stopping and going on

ROUNDS = (12, 9, 5)


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("env_id", [MAZE, "rlkit/PlanarReach-v0"])
def test_it_resumes_in_mid_episode(tmp_path, num_envs, env_id):
    agent = assert_resumes(tmp_path, MPC, make, env_id, num_envs, TINY_RUN, rounds=ROUNDS)
    assert agent.episodes_cut == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3])
def test_episodes_are_cut_where_an_environment_cannot_give_its_state(tmp_path, num_envs):
    agent = assert_resumes(tmp_path, MPC, build_walk, "", num_envs, TINY_RUN, rounds=ROUNDS)
    assert agent.episodes_cut > 0


@pytest.mark.slow
def test_discrete_actions_resume(tmp_path):
    options = {**TINY_RUN, **CHOICES}
    assert_resumes(tmp_path, MPC, build_walk, "", 1, options, rounds=ROUNDS, discrete=True)


@pytest.mark.slow
def test_recurrent_worlds_resume(tmp_path):
    options = {**TINY_RUN, "world": {"name": "rssm", "hidden": 8}}
    assert_resumes(tmp_path, MPC, make, MAZE, 2, options, rounds=ROUNDS)


@pytest.mark.slow
def test_noise_and_schedules_resume(tmp_path):
    noise = {"exploration_noise": 0.2, "random_fraction": 0.2}
    options = {**TINY_RUN, **noise, "learning_rate": lambda left: 1e-3 * left}
    agent = assert_resumes(tmp_path, MPC, make, MAZE, 2, options, gaussian, rounds=ROUNDS)
    assert 0 < agent.learner.learning_rate < 1e-3


def gaussian():
    return NormalActionNoise(np.zeros(2), 0.3 * np.ones(2))


TINY_RUN = {
    name: value for name, value in TINY.items() if name not in ("seed", "device", "learning_starts")
}


# Files


@pytest.mark.slow
def test_a_loaded_agent_acts_the_same_without_an_environment(tmp_path):
    agent = plain().learn(40)
    agent.save(tmp_path / "agent")
    loaded = MPC.load(tmp_path / "agent", device="cpu")
    assert (loaded.config, loaded.num_timesteps) == (agent.config, 40)
    x = some(agent)
    for one, other in zip(
        agent.predict(x, deterministic=True), loaded.predict(x, deterministic=True), strict=True
    ):
        np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.slow
def test_goals_need_an_environment_with_a_rule(tmp_path):
    agent = on_goals().learn(60)
    agent.save(tmp_path / "agent")
    loaded = MPC.load(tmp_path / "agent", device="cpu")
    x = some(agent)
    with pytest.raises(ValueError, match=r"no environment; load it with one.*set_env"):
        loaded.predict(x)
    loaded.set_env(make_vec_env(make, MAZE, 2, 0))
    np.testing.assert_array_equal(
        agent.predict(x, deterministic=True)[0], loaded.predict(x, deterministic=True)[0]
    )


@pytest.mark.slow
def test_a_loaded_agent_trains_on(tmp_path):
    agent = on_goals().learn(60)
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded = MPC.load(tmp_path / "agent", make_vec_env(make, MAZE, 2, 0), device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    before = weights(loaded)
    assert same(before, weights(agent))
    loaded.learn(40, reset_num_timesteps=False)
    assert loaded._n_updates > agent._n_updates
    assert not same(before, weights(loaded))


def test_configured_objects_are_saved_as_tables(tmp_path):
    planner = CEM(horizon=3, samples=12, iterations=2, elites=2)
    agent = plain(world=Drift(0.5), planner=planner)
    agent.save(tmp_path / "agent")
    loaded = MPC.load(tmp_path / "agent", device="cpu", trust=True)
    assert loaded.learner.planner == agent.learner.planner
    assert loaded.learner.world.model == agent.learner.world.model


@pytest.mark.slow
def test_parameters_can_be_taken_and_given_through_the_policy():
    one, other = on_goals().learn(60), on_goals(seed=5).learn(60)
    x = some(one)
    assert not same(weights(one), weights(other))
    other.set_parameters(one.get_parameters())
    assert same(weights(one), weights(other))
    other.learner.seed = one.learner.seed  # of the plans
    np.testing.assert_array_equal(
        one.predict(x, deterministic=True)[0], other.predict(x, deterministic=True)[0]
    )
    shared = one.policy.state_dict()
    one.learn(20, reset_num_timesteps=False)
    assert all(torch.equal(shared[name], value) for name, value in weights(one).items())


@pytest.mark.slow
def test_a_foreign_state_is_refused():
    state = on_goals().learn(60).state_dict()
    with pytest.raises(ValueError, match=r"another agent.*hidden.*settings"):
        on_goals(world={**WORLD, "hidden": [9]}).load_state_dict(state)
    with pytest.raises(ValueError, match="belong to another agent"):
        on_goals("rlkit/PlanarReach-v0").load_state_dict(state)
    env = make_vec_env(make, MAZE, 2, 0)
    sac = SAC("MultiInputPolicy", env, net_arch=[8], device="cpu", buffer_size=500).learn(20)
    with pytest.raises(ValueError, match="another agent"):
        on_goals().load_state_dict(sac.state_dict())


# What does not go together


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("particles", 0),
        ("particles", 1.5),
        ("shaping", -1),
        ("temperature", -0.5),
        ("gamma", 1.1),
        ("first_fit", -1),
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("exploration_noise", -0.1),
        ("random_fraction", 1.2),
        ("uncertainty_penalty", "much"),
    ],
)
def test_settings_out_of_range_are_named_with_their_value(name, value):
    with pytest.raises(ValueError) as refused:
        plain(**{name: value})
    assert name in str(refused.value)
    assert str(value) in str(refused.value)


def test_unknown_options_worlds_and_planners_suggest_the_nearest_name():
    with pytest.raises(ValueError, match=r"no option 'particle'. Did you mean 'particles'"):
        plain(particle=3)
    with pytest.raises(ValueError, match="MPC has no option 'net_arch'"):
        plain(net_arch=[8])
    with pytest.raises(ValueError, match=r"unknown world model 'ensembel'.*'ensemble'"):
        plain(world="ensembel")
    with pytest.raises(ValueError, match=r"'icem' has no option 'sample'. Did you mean 'samples'"):
        plain(planner={"name": "icem", "sample": 3})


@pytest.mark.slow
def test_what_it_cannot_plan_with_is_refused():
    with pytest.raises(ValueError, match="icem plans with actions in"):
        plain(Recorder(spaces.Discrete(3)))
    with pytest.raises(ValueError, match=r"vectors of real numbers, not MultiBinary"):
        on_goals("rlkit/BitFlip-v0", **CHOICES)
    with pytest.raises(ValueError, match="hides its goal"):
        on_goals("rlkit/HiddenGoalReach-v0")


@pytest.mark.slow
def test_a_latent_that_is_refitted_is_refused_and_a_frozen_one_planned_in():
    shape = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    few = {"frames": 64, "steps": 2, "batch_size": 16}
    latent = {"name": "pca", "dims": 3}
    agent = plain(Recorder(observation_space=shape), latent=latent, pretraining=few).learn(30)
    assert agent.learner.world.layout.observation == 3
    with pytest.raises(ValueError, match="refresh_every > 0 does not go with MPC"):
        plain(
            Recorder(observation_space=shape),
            latent=latent,
            pretraining={**few, "refresh_every": 50},
        )
