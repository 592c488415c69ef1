"""The contract of learners, tested for every agent that is installed by its entry point."""

import copy
import inspect
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_batches import A, F, G, is_discrete, random_batch, same
from small_envs import Recorder

from rlkit.agents import SAC, Algorithm, GradientLearner, Learner, SACLearner, Sizes
from rlkit.envs.make import make
from rlkit.goals import DistanceRule
from rlkit.vec.vec_env import make_vec_env

INSTALLED = {point.name: point.load() for point in entry_points(group="rlkit.agents")}
# MPC learns from episodes, not from batches: `test_mpc.py` tests its learner.
ALGORITHMS = {
    name: found
    for name, found in INSTALLED.items()
    if issubclass(found.learner_class, GradientLearner)
}
SMALL = {"net_arch": (16, 16), "batch_size": 8}


def new(algorithm, seed=0, rule=None, sizes=None, **options):
    config = algorithm.learner_class.config_class(**{**SMALL, **options})
    return algorithm.learner_class(config, sizes or Sizes(F, G, A), seed=seed, rule=rule)


def inputs(rows=5, seed=7):
    rng = np.random.default_rng(seed)
    x, goal = rng.normal(size=(rows, F)), rng.normal(size=(rows, G))
    return x.astype(np.float32), goal.astype(np.float32)


def act(learner, explore=False):
    first = np.ones(5, np.bool_)
    return learner.act(*inputs(), learner.initial(5), first, explore=explore)[0]


def train(learner, algorithm, seeds, **shape):
    for seed in seeds:
        names, values = learner.update(random_batch(algorithm, seed, **shape))
        assert len(names) == len(values)
    return values


def snapshot(learner):
    return {name: value.clone() for name, value in learner.weights().items()}


PUBLIC = [name for name in vars(Learner) if not name.startswith("_")]
METHODS = [name for name in PUBLIC if inspect.isfunction(vars(Learner)[name])]


@pytest.mark.parametrize("name", INSTALLED)
def test_learners_satisfy_the_protocol(name):
    algorithm = INSTALLED[name]
    env = Recorder() if spaces.Box in algorithm.action_spaces else Recorder(spaces.Discrete(3))
    agent = algorithm("MlpPolicy", env, seed=0, device="cpu")
    learner, other = agent.learner, algorithm("MlpPolicy", env, seed=1, device="cpu").learner
    assert {*METHODS, *inspect.get_annotations(Learner)} <= set(dir(learner))
    for method in METHODS:
        wanted = inspect.signature(getattr(Learner, method)).parameters
        found = inspect.signature(getattr(type(learner), method)).parameters
        assert list(found) == list(wanted)
        for key, parameter in wanted.items():
            assert (found[key].kind, found[key].default) == (parameter.kind, parameter.default)
    assert isinstance(learner.config, type(learner).config_class)
    assert learner.config.windows == agent.batch_size
    assert learner.acting is None or learner.acting in {k.split(".")[0] for k in learner.weights()}
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert same(learner.weights(), other.weights())
    x = np.ones((2, 3), np.float32), np.zeros((2, 0), np.float32)
    first, actions = np.ones(2, np.bool_), []
    for one in (learner, other):
        one.set_rule(None)
        hidden_state = one.initial(2)
        one.to_store(hidden_state)
        action, hidden_state = one.act(*x, hidden_state, first, explore=True)
        actions.append(action)
        after = one.acted(hidden_state, action)
        assert [part.shape for part in after] == [part.shape for part in one.initial(2)]
    np.testing.assert_array_equal(*actions)


@pytest.fixture(params=ALGORITHMS.values(), ids=ALGORITHMS.keys())
def algorithm(request):
    assert issubclass(request.param, Algorithm)
    return request.param


def test_actions_have_the_shape_and_range_that_the_replay_buffer_stores(algorithm):
    learner = new(algorithm)
    for explore in (False, True):
        action = act(learner, explore)
        if is_discrete(algorithm):
            assert action.shape == (5,)
            assert np.isin(action, np.arange(A)).all()
        else:
            assert action.shape == (5, A)
            assert (np.abs(action) <= 1).all()


def test_acting_greedily_is_a_function_of_the_input(algorithm):
    learner = new(algorithm)
    np.testing.assert_array_equal(act(learner), act(learner))


def test_the_same_seed_gives_the_same_training(algorithm):
    one, other, third = new(algorithm, seed=3), new(algorithm, seed=3), new(algorithm, seed=4)
    for learner in (one, other, third):
        learner.observe(*inputs(rows=50))
        train(learner, algorithm, range(4))
    assert same(one.weights(), other.weights())
    np.testing.assert_array_equal(act(one, explore=True), act(other, explore=True))
    assert not same(one.weights(), third.weights())


def test_updates_change_the_weights_and_stay_finite(algorithm):
    learner = new(algorithm)
    before = snapshot(learner)
    values = train(learner, algorithm, range(20))
    assert torch.isfinite(values).all()
    assert all(torch.isfinite(value).all() for value in learner.weights().values())
    changed = [
        name for name, value in learner.weights().items() if not (value == before[name]).all()
    ]
    assert {name.split(".")[0] for name in changed} >= set(learner.networks)


@pytest.mark.parametrize("options", [{}, {"optimiser": "adamw", "weight_decay": 0.1}], ids=str)
def test_a_loaded_learner_continues_bit_for_bit(algorithm, options):
    learner, other = (new(algorithm, seed=seed, **options) for seed in (3, 99))
    learner.observe(*inputs(rows=50))
    train(learner, algorithm, range(3))  # an odd number, so that delayed updates are under way
    act(learner, explore=True)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    np.testing.assert_array_equal(act(learner, explore=True), act(other, explore=True))
    for one in (learner, other):
        one.observe(*inputs(rows=20, seed=8))
        train(one, algorithm, range(3, 6))
    assert same(learner.weights(), other.weights())
    assert same(learner.state, other.state)


def test_the_state_of_another_agent_is_refused(algorithm):
    state = new(algorithm).state_dict()
    with pytest.raises(ValueError, match="net_arch differ"):
        new(algorithm, net_arch=(17, 16)).load_state_dict(state)
    with pytest.raises(ValueError, match="belong to another agent"):
        new(algorithm, net_arch=(16,)).load_state_dict(state)


def test_padding_never_changes_an_update(algorithm):
    one, other = new(algorithm), new(algorithm)
    batch = random_batch(algorithm, rows=6, steps=4)
    batch["mask"][:3, 2:] = 0
    noisy = {name: array.copy() for name, array in batch.items()}
    garbage = random_batch(algorithm, seed=5, rows=6, steps=4)
    for name in ("goal", "action", "reward", "discount"):
        noisy[name][:3, 2:] = garbage[name][:3, 2:]
    noisy["observation"][:3, 3:] = garbage["observation"][:3, 3:]
    for _ in range(3):
        one.update(batch)
        other.update(noisy)
    assert same(one.weights(), other.weights())


def test_a_window_counts_like_the_steps_in_it(algorithm):
    window = random_batch(algorithm, rows=4, steps=3)
    next_x, x = window["observation"][:, 1:], window["observation"][:, :-1]
    steps = {
        name: array.reshape(12, 1, *array.shape[2:])
        for name, array in window.items()
        if name != "observation"
    }
    steps["observation"] = np.stack([x.reshape(12, F), next_x.reshape(12, F)], axis=1)
    one, other = new(algorithm), new(algorithm)
    for _ in range(2):
        one.update(window)
        other.update(steps)
    for name, value in one.weights().items():
        torch.testing.assert_close(value, other.weights()[name], rtol=0, atol=1e-6)


def test_sums_of_several_steps_continue_where_they_end(algorithm):
    # With `bootstrap` the value follows from the named observation, and from no other.
    window = random_batch(algorithm, rows=6, steps=3)
    first = {name: array[:, :1] for name, array in window.items() if name != "observation"}
    end = np.array([[1], [2], [3], [1], [2], [3]])
    summed = {**first, "observation": window["observation"], "bootstrap": end}
    bootstrapped = np.take_along_axis(window["observation"], end[..., None], axis=1)
    single = {
        **first,
        "observation": np.concatenate([window["observation"][:, :1], bootstrapped], axis=1),
    }
    one, other = new(algorithm), new(algorithm)
    for _ in range(2):
        one.update(summed)
        other.update(single)
    assert same(one.weights(), other.weights())


@pytest.mark.slow
def test_targets_stay_within_reachable_returns(algorithm):
    """Unbounded, rewards of 100 drive values up; bounded by [-5, 0], they stay there."""
    options = {"learning_rate": 1e-2, "tau": 1.0, "gamma": 0.8}
    if issubclass(algorithm, SAC):
        options["entropy_in_target"] = False
    q = {}
    for rule in (None, DistanceRule(1.0)):
        learner = new(algorithm, rule=rule, **options)
        assert learner.bounds == (None if rule is None else pytest.approx((-5, 0)))
        batch = random_batch(algorithm)
        batch["reward"][:] = 100.0
        for _ in range(300):
            names, values = learner.update(batch)
        q[rule] = dict(zip(names, values.tolist(), strict=True))["q_mean"]
    assert q[None] > 20
    assert abs(q[DistanceRule(1.0)]) < 1


@pytest.mark.parametrize(
    "options",
    [
        {"critics": 1},
        {"critics": 2},
        {"critics": 5},
        {"layer_norm": True},
        {"net_arch": (8,)},
        {"net_arch": (8, 12, 8), "critics": 3, "layer_norm": True},
        {"net_arch": (200, 200)},
        {"normalise": False},
        {"target_update_interval": 3},
        {"max_grad_norm": 1e-3},
        {"optimiser": "adamw"},
        {"optimiser": "adamw", "weight_decay": 0.1},
    ],
    ids=str,
)
def test_architectures_and_options_train(algorithm, options):
    learner = new(algorithm, **options)
    learner.observe(*inputs(rows=50))
    before = snapshot(learner)
    values = train(learner, algorithm, range(6))
    assert torch.isfinite(values).all()
    assert not same(before, learner.weights())
    assert act(learner).shape[0] == 5


def test_weight_decay_shrinks_parameters_apart_from_the_gradient(algorithm):
    decayed, plain, adamw = (
        new(algorithm, learning_rate=1e-2, **options)
        for options in ({"optimiser": "adamw", "weight_decay": 0.1}, {}, {"optimiser": "adamw"})
    )
    start = plain.state["critic"].clone()
    for learner in (decayed, plain, adamw):
        learner.update(random_batch(algorithm))
    assert same(adamw.weights(), plain.weights())
    difference = plain.state["critic"] - decayed.state["critic"]
    torch.testing.assert_close(difference, 1e-3 * start, atol=1e-6, rtol=1e-3)


def test_goals_are_optional(algorithm):
    learner = new(algorithm, sizes=Sizes(F, 0, A))
    batch = random_batch(algorithm)
    batch["goal"] = batch["goal"][..., :0]
    before = snapshot(learner)
    learner.update(batch)
    assert not same(before, learner.weights())


def test_the_target_moves_only_at_its_interval(algorithm):
    options = {"policy_delay": 1} if algorithm.__name__ == "TD3" else {}
    learner = new(algorithm, target_update_interval=3, tau=1.0, **options)
    target = learner.state["critic_target"]
    moved = []
    for seed in range(6):
        before = target.clone()
        train(learner, algorithm, [seed])
        moved.append(not torch.equal(before, target))
    assert moved == [False, False, True, False, False, True]
    assert torch.equal(target, learner.state["critic"])


def test_gradients_are_clipped(algorithm):
    learner = new(algorithm, max_grad_norm=0.5)
    long, short = torch.full((4,), 3.0), torch.full((4,), 0.1)
    assert abs(learner.clip(long).norm().item() - 0.5) < 1e-5
    torch.testing.assert_close(learner.clip(long) * 12, long, rtol=1e-5, atol=0)
    assert torch.equal(learner.clip(short), short)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("batch_size", 0),
        ("gamma", 1.1),
        ("gamma", -0.1),
        ("tau", -0.1),
        ("tau", 1.5),
        ("target_update_interval", 0),
        ("net_arch", (16, 0)),
        ("critics", 0),
        ("max_grad_norm", 0.0),
        ("optimiser", "sdg"),
        ("weight_decay", -0.1),
    ],
)
def test_settings_out_of_range_are_named_with_their_value(algorithm, name, value):
    with pytest.raises(ValueError) as refused:
        new(algorithm, **{name: value})
    assert name in str(refused.value)
    assert str(value) in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_task_of_two_goals_is_learned(algorithm, seed):
    """One step, in which the goal determines the better action; chance earns about 0."""
    rng = np.random.default_rng(seed)
    learner = new(algorithm, seed=seed, sizes=Sizes(1, 1, A), learning_rate=3e-3)
    for _ in range(400):
        goal = rng.choice([-1.0, 1.0], (64, 1)).astype(np.float32)
        if is_discrete(algorithm):
            action = rng.integers(0, A, 64)
        else:
            action = rng.uniform(-1, 1, (64, A)).astype(np.float32)
        learner.update(
            {
                "observation": np.zeros((64, 2, 1), np.float32),
                "goal": goal[:, None],
                "action": action[:, None],
                "reward": earned(goal, action)[:, None].astype(np.float32),
                "discount": np.zeros((64, 1), np.float32),
                "mask": np.ones((64, 1), np.float32),
            }
        )
    goal = np.array([[-1.0], [1.0]], np.float32)
    start = learner.initial(2), np.ones(2, np.bool_)
    action, _ = learner.act(np.zeros((2, 1), np.float32), goal, *start, explore=False)
    assert earned(goal, action).min() > 0.8


def earned(goal, action):
    if action.ndim == 1:
        return np.where(action == (goal[:, 0] > 0), 1.0, -1.0)
    return 1 - 2 * ((action - 0.5 * goal) ** 2).mean(axis=-1)


def test_an_unknown_option_names_the_nearest(algorithm):
    with pytest.raises(ValueError, match=r"no option 'learning_rat'. Did you mean 'learning_rate'"):
        algorithm("MlpPolicy", None, learning_rat=1e-3)


if "td3" in ALGORITHMS:

    @pytest.mark.parametrize(
        "option", ["policy_delay", "target_policy_noise", "target_noise_clip", "exploration_noise"]
    )
    def test_td3_refuses_its_own_settings_out_of_range(option):
        with pytest.raises(ValueError, match=rf"{option} must be >= .*-1"):
            new(ALGORITHMS["td3"], **{option: -1})


class Simplified(SACLearner):
    """Losses of a user's own, which read a view per network."""

    def critic_loss(self, critic, batch, target):
        q = self.critic(critic, (*batch.critic.current, batch.action)).squeeze(-1)
        loss = batch.mean((q - target).abs()).sum()
        return loss, {"critic_loss": loss, "q_mean": batch.mean(q).mean()}

    def actor_loss(self, actor, critic, batch, ent_coef, noise):
        action, log_prob = self._sample(actor, batch.actor.current, noise)
        q = self.critic(critic, (*batch.critic.detached(), action)).squeeze(-1).mean(0)
        loss = batch.mean(ent_coef * log_prob - q)
        return loss, {"my_loss": loss, "entropy": -batch.mean(log_prob)}


class SimplifiedSAC(SAC):
    learner_class = Simplified


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": {"name": "gru", "hidden": 6}, "window": 4},
        {"encoder": {"name": "gru", "hidden": 6}, "window": 4, "encoder_sharing": "joint"},
    ],
    ids=str,
)
def test_losses_of_a_subclass_read_views(options):
    env = make_vec_env(make, "rlkit/HiddenGoalReach-v0", 2, 0)
    settings = {**SMALL, "learning_starts": 20, "critic_sees_goal": True, **options}
    agent = SimplifiedSAC("MultiInputPolicy", env, seed=0, device="cpu", **settings)
    before = snapshot(agent.learner)
    agent.learn(60, log_interval=None)
    (names,) = agent.metrics.state_dict()["sums"]
    assert {"my_loss", "critic_loss", "entropy"} <= set(names.split(","))
    after = agent.learner.weights()
    for network in agent.learner.networks:
        moved = [not torch.equal(before[k], after[k]) for k in after if k.startswith(f"{network}.")]
        assert all(moved)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_exploration_noise_has_the_given_correlation(share):
    learner = new(ALGORITHMS["sac"], coloured_noise=share)
    like = torch.zeros(500, A)
    steps = torch.stack([learner.exploration_noise(like) for _ in range(40)])
    assert steps.std() == pytest.approx(1, abs=0.05)
    assert (steps[1:] * steps[:-1]).mean() == pytest.approx(share, abs=0.05)
    other = new(ALGORITHMS["sac"], coloured_noise=share)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert torch.equal(learner.exploration_noise(like), other.exploration_noise(like))
