"""What every learner owes, whoever wrote it: an installed agent joins by its entry point."""

import copy
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.agents import DQN, Algorithm, GradientLearner, Learner, Sizes
from rlkit.goals import DistanceRule

INSTALLED = {point.name: point.load() for point in entry_points(group="rlkit.agents")}
# MPC learns from episodes, not from batches: `test_mpc.py` tests its learner.
ALGORITHMS = {
    name: found
    for name, found in INSTALLED.items()
    if issubclass(found.learner_class, GradientLearner)
}
SMALL = {"net_arch": (16, 16), "batch_size": 8}
F, G, A = 3, 2, 2


def is_discrete(algorithm):
    return spaces.Discrete in algorithm.action_spaces


def new(algorithm, seed=0, rule=None, sizes=None, **options):
    config = algorithm.learner_class.config_class(**{**SMALL, **options})
    return algorithm.learner_class(config, sizes or Sizes(F, G, A), seed=seed, rule=rule)


def random_batch(algorithm, seed=0, rows=8, steps=1):
    rng = np.random.default_rng(seed)
    if is_discrete(algorithm):
        action = rng.integers(0, A, (rows, steps))
    else:
        action = rng.uniform(-1, 1, (rows, steps, A)).astype(np.float32)
    return {
        "observation": rng.normal(size=(rows, steps + 1, F)).astype(np.float32),
        "goal": rng.normal(size=(rows, steps, G)).astype(np.float32),
        "action": action,
        "reward": rng.normal(size=(rows, steps)).astype(np.float32),
        "discount": np.full((rows, steps), 0.9, np.float32),
        "mask": np.ones((rows, steps), np.float32),
    }


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


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(params=ALGORITHMS.values(), ids=ALGORITHMS.keys())
def algorithm(request):
    assert issubclass(request.param, Algorithm)
    return request.param


def test_actions_have_the_shape_and_range_that_the_replay_stores(algorithm):
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


def test_one_seed_gives_one_course(algorithm):
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


def test_a_loaded_learner_goes_on_bit_for_bit(algorithm):
    learner, other = new(algorithm, seed=3), new(algorithm, seed=99)
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


def test_a_foreign_state_is_refused(algorithm):
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
    following, x = window["observation"][:, 1:], window["observation"][:, :-1]
    steps = {
        name: array.reshape(12, 1, *array.shape[2:])
        for name, array in window.items()
        if name != "observation"
    }
    steps["observation"] = np.stack([x.reshape(12, F), following.reshape(12, F)], axis=1)
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
    following = np.take_along_axis(window["observation"], end[..., None], axis=1)
    single = {
        **first,
        "observation": np.concatenate([window["observation"][:, :1], following], axis=1),
    }
    one, other = new(algorithm), new(algorithm)
    for _ in range(2):
        one.update(summed)
        other.update(single)
    assert same(one.weights(), other.weights())


def test_targets_stay_within_reachable_returns(algorithm):
    """Unbounded, rewards of 100 drive values up; bounded by [-5, 0], they stay there."""
    options = {"learning_rate": 1e-2, "tau": 1.0, "gamma": 0.8}
    if algorithm.__name__ == "SAC":
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


def test_gradients_are_cut_to_length(algorithm):
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
        ("tau", 0.0),
        ("tau", 1.5),
        ("target_update_interval", 0),
        ("net_arch", (16, 0)),
        ("critics", 0),
        ("max_grad_norm", 0.0),
        ("optimiser", "sgd"),
        ("weight_decay", -0.1),
    ],
)
def test_settings_out_of_range_are_named_with_their_value(algorithm, name, value):
    with pytest.raises(ValueError) as refused:
        new(algorithm, **{name: value})
    assert name in str(refused.value)
    assert str(value) in str(refused.value)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_task_of_two_goals_is_learned(algorithm, seed):
    """One step, in which the goal tells the better action; chance earns about 0."""
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


def test_an_unknown_option_names_its_neighbour(algorithm):
    with pytest.raises(ValueError, match=r"no option 'learning_rat'. Did you mean 'learning_rate'"):
        algorithm("MlpPolicy", None, learning_rat=1e-3)


if "td3" in ALGORITHMS:

    @pytest.mark.parametrize(
        "option", ["policy_delay", "target_policy_noise", "target_noise_clip", "exploration_noise"]
    )
    def test_td3_refuses_its_own_settings_out_of_range(option):
        with pytest.raises(ValueError, match=rf"{option} must be >= .*-1"):
            new(ALGORITHMS["td3"], **{option: -1})


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_exploration_noise_is_as_correlated_as_asked(share):
    learner = new(ALGORITHMS["sac"], coloured_noise=share)
    like = torch.zeros(500, A)
    steps = torch.stack([learner.exploration_noise(like) for _ in range(40)])
    assert steps.std() == pytest.approx(1, abs=0.05)
    assert (steps[1:] * steps[:-1]).mean() == pytest.approx(share, abs=0.05)
    other = new(ALGORITHMS["sac"], coloured_noise=share)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert torch.equal(learner.exploration_noise(like), other.exploration_noise(like))
