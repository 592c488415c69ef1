"""Agents with a recurrent encoder: what it reads, what trains it, and what must not enter it."""

import copy
import dataclasses
import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_batches import A, F, G, random_batch, same
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import rlkit.envs  # noqa: F401  registers them
from rlkit.agents import DQN, SAC, TD3, Sizes
from rlkit.envs.make import make
from rlkit.networks.encoders import GRU
from rlkit.offpolicy.recurrent import RecurrentNetwork
from rlkit.offpolicy.settings import ActorCritic
from rlkit.vec.vec_env import make_vec_env

T = 6
ALGORITHMS = pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
SMALL = {"net_arch": (16,), "encoder": {"name": "gru", "hidden": 8}, "window": T}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def new(algorithm, seed=0, sizes=None, **options):
    options = {"goal_mode": "late", **SMALL, **options}
    config = algorithm.learner_class.config_class(**options)
    return algorithm.learner_class(config, sizes or Sizes(F, G, A), seed=seed)


def windows(algorithm, seed=0, rows=4, steps=T, burn_in=0):
    batch = random_batch(algorithm, seed, rows, steps)
    batch["previous_action"] = random_batch(algorithm, seed + 100, rows, steps + 1)["action"]
    batch["is_first"] = np.zeros((rows, steps + 1), np.bool_)
    batch["is_first"][: rows // 2, 0] = True
    batch["mask"][:, :burn_in] = 0
    return batch


def transitions(learner, batch, *networks):
    """The rows of a batch as an update's losses read them."""
    return learner.transitions(
        learner.state, learner.prepare(batch), *(networks or learner.networks)
    )


def act_along(learner, x, goal, resets, explore=False):
    """Actions and hidden states of a few steps, `x (T, n, F)`."""
    hidden_state, actions, hidden_states = learner.initial(x.shape[1]), [], []
    for t in range(len(x)):
        action, hidden_state = learner.act(x[t], goal[t], hidden_state, resets[t], explore=explore)
        actions.append(action)
        hidden_states.append(hidden_state)
    return actions, hidden_states


def episode(seed=0, steps=5, rows=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, rows, F)).astype(np.float32)
    goal = rng.normal(size=(steps, rows, G)).astype(np.float32)
    resets = np.zeros((steps, rows), np.bool_)
    resets[0] = True
    return x, goal, resets


def copied(learner):
    return {name: value.clone() for name, value in learner.weights().items()}


TRAINED = [
    {},
    {"start": "stored"},
    {"goal_mode": "early", "previous_reward": True, "burn_in": 2},
    {"encoder_lr": 1e-5},
    {"previous_action": False},
    {"optimiser": "adamw", "weight_decay": 0.1},
]
SHARED = [
    {"encoder_sharing": "detached", "encoder_lr": 1e-5},
    {"encoder_sharing": "joint", "previous_action": False},
]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        *itertools.product([SAC, TD3, DQN], TRAINED),
        *itertools.product([SAC, TD3], SHARED),
    ],
)
def test_updates_reach_every_network_and_resume_bit_for_bit(algorithm, options):
    learner, other = new(algorithm, seed=3, **options), new(algorithm, seed=9, **options)
    before = copied(learner)

    def batch(seed):
        arrays = windows(algorithm, seed, burn_in=options.get("burn_in", 0))
        arrays["previous_reward"] = np.zeros((4, T + 1), np.float32)
        for i, shape in enumerate(learner.recurrent.stored_shapes):
            arrays[f"hidden_state.{i}"] = np.full((4, *shape), 0.1, np.float32)
        return arrays

    for seed in range(3):
        _, values = learner.update(batch(seed))
        assert torch.isfinite(values).all()
    still = [name for name, now in learner.weights().items() if torch.equal(before[name], now)]
    assert all(name.endswith((".shift", ".scale")) for name in still)  # of the input scaling
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for one in (learner, other):
        one.update(batch(7))
    assert same(learner.weights(), other.weights())


@ALGORITHMS
def test_hidden_states_depend_on_earlier_observations(algorithm):
    learner = new(algorithm)
    x, goal, resets = episode(rows=40)
    changed = x.copy()
    changed[0] += 3
    _, hidden_states = act_along(learner, x, goal, resets)
    _, others = act_along(learner, changed, goal, resets)
    assert all(
        (a != b).any(dim=-1).all()
        for a, b in zip(hidden_states[-1][1:], others[-1][1:], strict=True)
    )


@ALGORITHMS
def test_an_episode_begins_with_a_fresh_hidden_state(algorithm):
    learner = new(algorithm)
    x, goal, resets = episode(steps=6)
    resets[3] = True
    actions, hidden_states = act_along(learner, x, goal, resets)
    fresh_actions, fresh_hidden_states = act_along(learner, x[3:], goal[3:], resets[3:])
    for a, b in zip(actions[3:], fresh_actions, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(hidden_states[-1], fresh_hidden_states[-1], strict=True):
        assert torch.equal(a, b)


@ALGORITHMS
def test_late_goals_never_enter_the_hidden_state_and_early_ones_do(algorithm):
    x, goal, resets = episode()
    for mode, enters in (("late", False), ("early", True)):
        learner = new(algorithm, goal_mode=mode, previous_action=False)
        _, hidden_states = act_along(learner, x, goal, resets)
        _, others = act_along(learner, x, goal + 1, resets)
        assert enters == any(
            not torch.equal(a, b)
            for a, b in zip(hidden_states[-1][1:], others[-1][1:], strict=True)
        )


@ALGORITHMS
def test_a_hidden_goal_has_no_effect(algorithm):
    learner = new(algorithm, goal_mode="early")
    x, goal, resets = episode()
    hidden = np.zeros(3, np.float32)
    hidden_state = learner.initial(3)
    one, state_one = learner.act(
        x[0], goal[0], hidden_state, resets[0], explore=False, visible=hidden
    )
    two, state_two = learner.act(
        x[0], goal[1], hidden_state, resets[0], explore=False, visible=hidden
    )
    np.testing.assert_array_equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(state_one, state_two, strict=True))
    visible, _ = learner.act(
        x[0], goal[0], hidden_state, resets[0], explore=False, visible=1 - hidden
    )
    if algorithm is not DQN:
        assert (visible != one).any()


@pytest.mark.parametrize("algorithm", [SAC, TD3])
@pytest.mark.parametrize("reads", [False, True])
def test_only_a_critic_with_the_option_reads_a_hidden_goal(algorithm, reads):
    batch = windows(algorithm)
    batch["goal"][:] = batch["goal"][:, :1]
    batch["visible"] = np.zeros(batch["is_first"].shape, np.float32)
    changed = {**batch, "goal": batch["goal"] + 1}
    one, other = (new(algorithm, goal_mode="early", critic_sees_goal=reads) for _ in range(2))
    found = [transitions(one, part) for part in (batch, changed)]
    for name in one.networks:
        reads_goal = reads and not name.startswith("actor")
        for moment in ("current", "next"):
            goals = [getattr(rows[name], moment)[2] for rows in found]
            assert (goals[0] == 0).all() != reads_goal
            assert torch.equal(*goals) != reads_goal
            expected = one.scaled(one.prepare(batch))["goal"].flatten(0, 1)
            assert torch.equal(goals[0], expected) == reads_goal
    one.update(batch)
    other.update(changed)
    assert same(one.weights(), other.weights()) != reads


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_only_a_critic_that_may_reads_rewards(algorithm):
    learner = new(algorithm, critic_sees_reward=True, previous_action=False)
    rng, batch = np.random.default_rng(0), windows(algorithm)
    found = []
    for _ in range(2):
        batch["previous_reward"] = 9 * rng.normal(size=batch["is_first"].shape).astype(np.float32)
        found.append(transitions(learner, batch))
    for name in learner.networks:
        one, other = (rows[name] for rows in found)
        for pair in ((one.current, other.current), (one.next, other.next)):
            assert torch.equal(pair[0][0], pair[1][0]) == name.startswith("actor")
    x, goal, resets = episode()
    hidden_state, given = learner.initial(3), rng.normal(size=3).astype(np.float32)
    actions = [
        learner.act(x[0], goal[0], hidden_state, resets[0], explore=False, reward=reward)[0]
        for reward in (given, None)
    ]
    np.testing.assert_array_equal(*actions)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_stored_hidden_states_of_critics_have_read_rewards(algorithm):
    env = make_vec_env(make, "rlkit/Pendulum-HiddenAngle-v0", 1, 0)
    options = {**SMALL, "net_arch": [16], "normalise": False, "learning_starts": 500}
    agent = algorithm("MlpPolicy", env, seed=0, critic_sees_reward=True, **options)
    assert agent.config.start == "stored"
    agent.learn(300)
    agent.predict(np.zeros((3, 1), np.float32), deterministic=False)  # of another number of rows
    agent.learn(120, reset_num_timesteps=False)
    check_stored_hidden_states(agent)


@pytest.mark.parametrize("option", [field.name for field in dataclasses.fields(ActorCritic)])
def test_dqn_refuses_options_of_actors(option):
    assert option in SAC.option_names() & TD3.option_names()
    given = {option: getattr(ActorCritic(), option)}
    with pytest.raises(ValueError, match=f"DQN has no option '{option}'"):
        DQN("MlpPolicy", gym.make("CartPole-v1"), **given)


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_the_actor_can_be_the_only_network_with_an_encoder(algorithm):
    learner = new(algorithm, encoder_sharing="actor", burn_in=2)
    assert not isinstance(learner.networks["critic"], RecurrentNetwork)
    assert isinstance(learner.networks["actor"], RecurrentNetwork)
    batch = windows(algorithm, burn_in=2)
    for part, changes in (("actor", True), ("critic", False)):
        rows = []
        for shift in (0, 1):
            shifted = {**batch, "observation": batch["observation"].copy()}
            shifted["observation"][:, 0] += shift  # burn-in: only the hidden state holds it
            rows.append(transitions(learner, shifted, part)[part].current[0])
        assert len(rows[0]) == 4 * (T - 2)
        assert torch.equal(*rows) != changes
    before = copied(learner)
    learner.update(batch)
    assert not same(before, learner.weights())


@ALGORITHMS
def test_features_of_a_batch_equal_those_of_acting(algorithm):
    """Current and next features of every row equal the hidden states of the same steps."""
    learner = new(algorithm, goal_mode="early")
    rows, rng = 3, np.random.default_rng(1)
    batch = windows(algorithm, rows=rows)
    batch["goal"][:] = batch["goal"][:, :1]
    batch["is_first"][:, 0] = True
    batch["is_first"][1, 3] = True
    learner.observe(rng.normal(size=(50, F)), rng.normal(size=(50, G)))
    view = transitions(learner, batch)[learner.acting]
    current, after = (inputs[0].reshape(rows, T, -1) for inputs in (view.current, view.next))
    hidden_state = learner.initial(rows)
    for t in range(T + 1):
        hidden_state = learner.acted(hidden_state, batch["previous_action"][:, t])
        goal = batch["goal"][:, min(t, T - 1)]
        first = batch["is_first"][:, t]
        _, hidden_state = learner.act(
            batch["observation"][:, t], goal, hidden_state, first, explore=False
        )
        if t < T:
            torch.testing.assert_close(hidden_state[1], current[:, t].detach(), **CLOSE)
        if t > 0:
            torch.testing.assert_close(hidden_state[1], after[:, t - 1].detach(), **CLOSE)


@ALGORITHMS
def test_padding_never_changes_an_update(algorithm):
    one, other = new(algorithm), new(algorithm)
    batch = windows(algorithm)
    batch["mask"][1:, 4:] = 0
    noisy = {name: array.copy() for name, array in batch.items()}
    noisy["observation"][1:, 5:] = 9
    noisy["reward"][1:, 4:] = -50
    noisy["previous_action"][1:, 5:] = 1
    one.update(batch)
    other.update(noisy)
    assert same(one.weights(), other.weights())


@ALGORITHMS
def test_the_burn_in_sets_the_hidden_state_and_is_not_learned_from(algorithm):
    batch = windows(algorithm, burn_in=2)
    for moment in ("current", "next"):
        full, part = (
            getattr(transitions(new(algorithm, burn_in=burn_in), batch).critic, moment)[0]
            for burn_in in (0, 2)
        )
        torch.testing.assert_close(full.reshape(4, T, -1)[:, 2:], part.reshape(4, T - 2, -1))
    rewarded = {**batch, "reward": batch["reward"].copy()}
    rewarded["reward"][:, :2] = 100
    one, other = new(algorithm, burn_in=2), new(algorithm, burn_in=2)
    one.update(batch)
    other.update(rewarded)
    assert same(one.weights(), other.weights())


@pytest.mark.parametrize("algorithm", [SAC, TD3])
@pytest.mark.parametrize(("sharing", "is_trained"), [("detached", False), ("joint", True)])
def test_the_actor_trains_only_a_joint_encoder(algorithm, sharing, is_trained):
    learner = new(algorithm, encoder_sharing=sharing)
    assert not isinstance(learner.networks["actor"], RecurrentNetwork)
    rows = transitions(learner, windows(algorithm), "actor", "critic")
    assert rows.actor.current[0].requires_grad == is_trained
    assert torch.equal(rows.actor.current[0], rows.critic.current[0])
    assert not rows.actor.detached()[0].requires_grad


def test_the_encoder_has_a_learning_rate_of_its_own():
    slow, fast = (new(DQN, encoder_lr=rate, learning_rate=1e-2) for rate in (1e-4, 1e-2))
    start = copied(slow)
    for learner in (slow, fast):
        learner.update(windows(DQN))
    for name, before in start.items():
        if not name.startswith("critic."):
            continue
        moved, moved_fast = slow.weights()[name] - before, fast.weights()[name] - before
        ratio = 0.01 if ".encoder." in name else 1.0
        torch.testing.assert_close(moved, ratio * moved_fast, atol=2e-6, rtol=1e-3)


class Recall(gym.Env):
    """Only the first observation determines the action that is rewarded at the end."""

    LENGTH = 4

    def __init__(self, discrete=False):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.time = 2 * int(self.np_random.integers(2)) - 1, 0
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        ended = self.time == self.LENGTH
        discrete = isinstance(self.action_space, spaces.Discrete)
        chosen = 2 * int(action) - 1 if discrete else float(np.clip(action[0], -1, 1))
        return self._observe(), self.cue * chosen if ended else 0.0, ended, False, {}

    def _observe(self):
        return np.array([self.cue if self.time == 0 else 0, self.time / self.LENGTH], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["gru", "none"])
@ALGORITHMS
def test_a_recurrent_agent_solves_what_a_feed_forward_one_cannot(algorithm, encoder):
    settings = {"net_arch": [32], "learning_rate": 3e-3, "learning_starts": 200, "gamma": 0.9}
    options = {"exploration_fraction": 0.5} if algorithm is DQN else {"tau": 0.02}
    agent = algorithm(
        "MlpPolicy",
        Monitor(Recall(discrete=algorithm is DQN)),
        seed=0,
        encoder={"name": encoder, "hidden": 16} if encoder == "gru" else encoder,
        window=4,
        update_ratio=0.5,
        **settings,
        **options,
    )
    agent.learn(1600 if encoder == "gru" else 800)
    score, _ = evaluate_policy(agent, Monitor(Recall(algorithm is DQN)), 40, warn=False)
    assert score > 0.8 if encoder == "gru" else abs(score) < 0.5


@pytest.mark.slow
@ALGORITHMS
def test_stored_hidden_states_equal_recomputed_ones(algorithm):
    """Late mode: hidden states do not depend on goals, so hindsight keeps them valid."""
    env_id = "rlkit/BitFlip-v0" if algorithm is DQN else "rlkit/PlanarReach-v0"
    agent = algorithm(
        "MultiInputPolicy",
        gym.make(env_id),
        seed=0,
        normalise=False,  # running moments would change the encoder's input
        learning_starts=300,
        start="stored",
        replay={"hindsight": "future"},
        **{**SMALL, "net_arch": [16]},
    )
    agent.learn(150)
    assert check_stored_hidden_states(agent).relabelled.any()


def check_stored_hidden_states(agent):
    """Checks that they equal recomputed ones; returns the batch of windows that begin with them."""
    batch = agent.replay_buffer.sample(32)
    tensors = agent.learner.prepare(agent.adapter.batch(batch))
    for name in agent.learner.recurrent._stepping:
        stored = agent.learner.recurrent.stored(tensors, name)
        again = [_recomputed_hidden_state(agent, name, int(p)) for p in batch.position]
        for i, part in enumerate(stored):
            expected = torch.stack([hidden_state[i] for hidden_state in again])
            torch.testing.assert_close(part, expected, **CLOSE)
    return batch


def _recomputed_hidden_state(agent, name, position):
    """The hidden state before a step, computed from its episode's beginning."""
    storage = agent.replay_buffer.storage
    env = np.zeros(1, np.int64)
    first, _ = storage.episode_bounds(env, np.array([position]))
    encoder = agent.learner.recurrent.encoder
    hidden_state = encoder.initial(1)
    vector = agent.learner.state[name][: encoder.size]
    for p in range(int(first[0]), position):
        flat = int(storage.flat(env, np.array([p]))[0])
        observation = {key: part[flat][None] for key, part in storage.observation.items()}
        if storage.goals is None:
            observation = observation["observation"]
        else:
            observation["desired_goal"] = storage.goals.take(storage.goal_id[[flat]])
        x, goal = agent.adapter.vectors(observation)
        is_first = torch.tensor([p == first[0]])
        previous = storage.action[[flat - 1]]
        read = {
            "observation": torch.from_numpy(x),
            "goal": torch.from_numpy(goal),
            "previous_action": torch.from_numpy(previous),
            "previous_reward": torch.from_numpy(storage.reward[[flat - 1]]),
            "is_first": is_first,
        }
        x = agent.learner.recurrent.inputs_of(name, agent.learner.recurrent.inputs(read))
        hidden_state = encoder.step(vector, x, hidden_state, is_first)[1]
    return tuple(part[0] for part in hidden_state)


@ALGORITHMS
def test_predict_passes_the_state_on_as_recurrent_policies_of_sb3_do(algorithm):
    env_id = "rlkit/BitFlip-v0" if algorithm is DQN else "rlkit/PlanarReach-v0"
    env = gym.make(env_id)
    agent = algorithm("MultiInputPolicy", env, seed=0, **{**SMALL, "net_arch": [16]})
    observation, _ = env.reset(seed=0)
    action, state = agent.predict(observation, deterministic=True)
    assert env.action_space.contains(action)
    assert state is not None
    again, other = agent.predict(observation, state, np.array([True]), deterministic=True)
    np.testing.assert_array_equal(again, action)
    for a, b in zip(state, other, strict=True):
        assert torch.equal(a, b)
    _, later = agent.predict(observation, state, np.array([False]), deterministic=True)
    assert not torch.equal(later[1], state[1])


def test_an_agent_with_an_encoder_object_is_saved_and_loaded(tmp_path):
    agent = SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=0, encoder=GRU(hidden=8, layers=2))
    agent.save(tmp_path / "agent")
    again = SAC.load(tmp_path / "agent")
    assert again.learner.recurrent.encoder == agent.learner.recurrent.encoder
    assert same(agent.learner.weights(), again.learner.weights())
    assert "actor.encoder.0.recurrent.weight" in agent.learner.weights()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "gruu"}, "Did you mean 'gru'"),
        ({"encoder": {"name": "gru", "width": 3}}, "width"),
        ({"encoder": "bidirectional"}, "reads the future"),
        ({"compile": True}, "compile = True does not go with an encoder"),
        ({"goal_mode": "late", "previous_reward": True}, "previous_reward"),
        ({"goal_mode": "early", "start": "stored"}, 'start = "stored"'),
        ({"goal_mode": "late", "critic_sees_reward": True}, "critic_sees_reward = True does not"),
        ({"encoder_sharing": "detached", "critic_sees_reward": True}, "encoder_sharing"),
        ({"window": 0, "burn_in": 4}, "burn_in = 4"),
        ({"window": -1}, "window = -1"),
        ({"encoder_lr": 0}, "encoder_lr = 0"),
        ({"encoder_sharing": "both"}, "encoder_sharing = 'both'"),
        ({"start": "fresh"}, "start = 'fresh'"),
        ({"goal_mode": "soon"}, "goal_mode = 'soon'"),
    ],
)
def test_bad_settings_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        SAC("MultiInputPolicy", gym.make("rlkit/PointMaze-U-v0"), **{"encoder": "gru", **options})


def test_rewards_that_do_not_follow_from_goals_cannot_be_read():
    with pytest.raises(ValueError, match="PreviousStep"):
        SAC("MlpPolicy", gym.make("Pendulum-v1"), encoder="gru", previous_reward=True)


def test_goals_enter_early_where_they_are_hidden():
    for env_id, mode in (("rlkit/HiddenGoalReach-v0", "early"), ("rlkit/PlanarReach-v0", "late")):
        agent = SAC("MultiInputPolicy", gym.make(env_id), **{**SMALL, "net_arch": [16]})
        assert agent.config.goal_mode == mode
