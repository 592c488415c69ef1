import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from small_envs import Clock

from rlkit.envs import make as construct
from rlkit.envs.make import make
from rlkit.envs.planar_reach import PlanarReachSimulation
from rlkit.envs.wrappers.partial_observation import (
    Delay,
    DropFrames,
    Flicker,
    HideIndices,
    ObservationNoise,
    PreviousStep,
)
from rlkit.envs.wrappers.partial_simulation import HiddenGoal, Masked, MaskedEnv
from rlkit.goals import goal_rule, is_goal_space
from rlkit.goals.check import check_env as check_training
from rlkit.vec.env_state import env_state, set_env_state
from rlkit.vec.vec_env import make_vec_env, vec_goal_rule

PLAIN, GOALS = "Pendulum-v1", "rlkit/PointMaze-U-v0"
WRAPPERS = {
    "hide": lambda env: HideIndices(env, [2]),
    "noise": lambda env: ObservationNoise(env, 0.3),
    "flicker": lambda env: Flicker(env, 0.4),
    "delay": lambda env: Delay(env, 3),
    "drop": lambda env: DropFrames(env, 0.4),
    "previous": PreviousStep,
    "stack": lambda env: Delay(DropFrames(Flicker(ObservationNoise(env, 0.1), 0.3), 0.3), 2),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
ICE = {
    "rlkit/PointMaze-U-HiddenVelocity-v0": {"damping": 0.3},
    "rlkit/PlanarPush-HiddenVelocity-v0": {"damping": 3.0, "friction": 0.15},
}
VARIANTS = {
    "rlkit/Pendulum-HiddenVelocity-v0": ("Pendulum-v1", [0, 1]),
    "rlkit/Pendulum-HiddenAngle-v0": ("Pendulum-v1", [2]),
    "rlkit/CartPole-HiddenVelocity-v0": ("CartPole-v1", [0, 2]),
    "rlkit/MountainCarContinuous-HiddenVelocity-v0": ("MountainCarContinuous-v0", [0]),
    "rlkit/PointMaze-U-HiddenVelocity-v0": ("rlkit/PointMaze-U-v0", [0, 1]),
    "rlkit/PlanarReach-HiddenVelocity-v0": ("rlkit/PlanarReach-v0", [0, 1, 2, 3, 6, 7]),
    "rlkit/PlanarPush-HiddenVelocity-v0": ("rlkit/PlanarPush-v0", [0, 1, 4, 5, 8, 9]),
}


def array_of(observation):
    return observation["observation"] if isinstance(observation, dict) else observation


def actions_of(env, count, seed=5):
    space = pickle.loads(pickle.dumps(env.action_space))
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def observations(env, count, seed=0):
    """The first entry of every observation."""
    observed = [array_of(env.reset(seed=seed)[0])[0]]
    observed += [array_of(env.step(action)[0])[0] for action in actions_of(env, count)]
    return np.array(observed)


def trace(env, actions):
    """All that steps return, with a reset at the end of each episode."""
    observed = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        observed += [array_of(observation), reward, terminated, truncated]
        if isinstance(observation, dict):
            observed += [observation["achieved_goal"], observation["desired_goal"]]
        if terminated or truncated:
            observed.append(array_of(env.reset()[0]))
    return observed


def assert_same(one, two):
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


@every_wrapper
@pytest.mark.parametrize("env_id", [PLAIN, GOALS])
def test_laws(env_id, wrap):
    env = TimeLimit(wrap(make(env_id)), 40)
    problems = {p.law: str(p) for p in check_training(lambda: env) if p.level != "note"}
    assert problems == {}


# The checker warns of infinite bounds, unnormalised actions, and every wrapper.
@pytest.mark.filterwarnings("ignore:.*(infinity|recommend|unwrapped)")
@every_wrapper
@pytest.mark.parametrize("env_id", [PLAIN, GOALS])
def test_gymnasium_checker_passes(env_id, wrap):
    check_env(wrap(make(env_id)), skip_render_check=True)


@every_wrapper
def test_only_the_key_observation_changes(wrap):
    plain, env = make(GOALS), wrap(make(GOALS))
    assert is_goal_space(env.observation_space)
    assert goal_rule(env) == goal_rule(plain)
    first, other = plain.reset(seed=3)[0], env.reset(seed=3)[0]
    for action in actions_of(plain, 20):
        for key in ("achieved_goal", "desired_goal"):
            assert env.observation_space[key] == plain.observation_space[key]
            np.testing.assert_array_equal(other[key], first[key])
        assert env.observation_space.contains(other)
        first, *rest = plain.step(action)
        other, *others = env.step(action)
        assert rest == others
    assert (
        env.get_wrapper_attr("compute_reward")(first["achieved_goal"], first["desired_goal"])
        == (rest[0])
    )


@every_wrapper
@pytest.mark.parametrize("env_id", [PLAIN, GOALS])
def test_a_saved_state_continues_bit_for_bit(env_id, wrap):
    def build():
        # Gymnasium's Pendulum has no get_state, the suite's has one.
        inner = make(env_id) if env_id == GOALS else make("rlkit/Pendulum-HiddenVelocity-v0").env
        return TimeLimit(wrap(inner), 13)

    one, two = build(), build()
    actions = actions_of(one, 60)
    one.reset(seed=3)
    two.reset(seed=8)
    trace(one, actions[:20])
    trace(two, actions[:5])
    state = env_state(one)
    assert state is not None
    wanted = trace(one, actions[20:])
    set_env_state(two, state)
    assert_same(trace(two, actions[20:]), wanted)


@every_wrapper
def test_wrappers_survive_pickling_in_mid_episode(wrap):
    env = wrap(make(GOALS))
    env.reset(seed=1)
    actions = actions_of(env, 30)
    trace(env, actions[:9])
    copy = pickle.loads(pickle.dumps(env))
    assert_same(trace(copy, actions[9:]), trace(env, actions[9:]))


@every_wrapper
def test_a_spec_rebuilds_the_wrappers(wrap):
    env = wrap(make(GOALS))
    again = gym.make(env.spec)
    assert again.observation_space == env.observation_space
    env.reset(seed=4)
    again.reset(seed=4)
    actions = actions_of(env, 20)
    assert_same(trace(again, actions), trace(env, actions))


def test_hidden_indices():
    env = HideIndices(
        Clock(spaces.Box(np.arange(4.0), np.arange(4.0) + 9, dtype=np.float64)), [0, -2]
    )
    assert env.observation_space == spaces.Box(
        np.array([1.0, 3.0]), np.array([10.0, 12.0]), dtype=np.float64
    )
    inner = make(PLAIN)
    for indices, kept in (([1], [0, 2]), ((-1, 0), [1]), (np.array([2, 1]), [0])):
        hidden = HideIndices(make(PLAIN), indices)
        np.testing.assert_array_equal(hidden.reset(seed=5)[0], inner.reset(seed=5)[0][kept])


def test_delay():
    np.testing.assert_array_equal(observations(Delay(Clock(), 3), 8), [1, 1, 1, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(observations(Delay(Clock(), 0), 4), [1, 2, 3, 4, 5])
    env = Delay(Clock(), 2)
    observations(env, 5)
    np.testing.assert_array_equal(
        observations(env, 3), [1, 1, 1, 2]
    )  # nothing of the previous episode


def test_dropped_frames():
    observed = observations(DropFrames(Clock(), 0.3), 4000)
    time = np.arange(1, 4002)
    fresh = observed == time
    assert fresh[0]
    np.testing.assert_array_equal(observed, np.maximum.accumulate(np.where(fresh, time, 0)))
    assert abs(fresh[1:].mean() - 0.7) < 0.03
    assert (observations(DropFrames(Clock(), 1.0), 5) == 1).all()
    np.testing.assert_array_equal(observations(DropFrames(Clock(), 0.0), 5), np.arange(1, 7))


def test_flicker():
    env = Flicker(Clock(), 0.25)
    assert (env.observation_space.low == 0).all()  # although the clock starts at 1
    observed = observations(env, 4000)
    blank = observed == 0
    np.testing.assert_array_equal(observed[~blank], np.arange(1, 4002)[~blank])
    assert abs(blank.mean() - 0.25) < 0.03
    assert not blank[1:][blank[:-1]].all()  # independent from step to step
    assert (observations(Flicker(Clock(), 1.0), 5) == 0).all()
    assert Flicker(make("rlkit/BitFlip-v0"), 0.5).reset(seed=0)[0]["observation"].dtype == np.int8


def test_noise():
    env = ObservationNoise(Clock(), [0.5, 0.0, 2.0])
    assert env.observation_space.low.tolist() == [-np.inf, 1, -np.inf]
    assert env.observation_space.high.tolist() == [np.inf, 1000, np.inf]
    observed = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in actions_of(env, 900)]
    noise = np.array(observed) - np.arange(1, 902)[:, None]
    assert observed[0].dtype == np.float32
    np.testing.assert_allclose(noise.std(axis=0), [0.5, 0, 2], rtol=0.1)
    assert abs(noise[:, 2].mean()) < 0.2
    assert (noise[:, 1] == 0).all()
    assert abs(np.corrcoef(noise[:, 0], noise[:, 2])[0, 1]) < 0.1


def test_previous_step():
    env = PreviousStep(Clock(), reward=True)  # Discrete(3, start=1)
    assert env.observation_space.low.tolist() == [1, 1, 1, 0, 0, 0, -np.inf]
    assert env.reset(seed=0)[0].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert env.step(1)[0].tolist() == [2, 2, 2, 1, 0, 0, 2]
    assert env.step(3)[0].tolist() == [3, 3, 3, 0, 0, 1, 3]
    assert env.reset()[0].tolist() == [1, 1, 1, 0, 0, 0, 0]
    env = PreviousStep(Clock(action_space=spaces.Box(2, 5, (2,), np.float32)))
    assert env.observation_space.low.tolist() == [
        1,
        1,
        1,
        0,
        0,
    ]  # the zeros after a reset are included
    assert env.observation_space.high.tolist() == [1000] * 3 + [5, 5]
    env.reset(seed=0)
    observation = env.step(np.array([3, 99], np.float32))[0]
    assert observation.tolist() == [2, 2, 2, 3, 5]
    assert observation.dtype == np.float32
    only = PreviousStep(Clock(), action=False, reward=True)
    only.reset(seed=0)
    assert only.step(2)[0].tolist() == [2, 2, 2, 2]


def test_random_wrappers_do_not_change_the_environment_and_differ_from_each_other():
    plain, noisy = make(GOALS), ObservationNoise(make(GOALS), 1.0)
    for seed in (7, None):  # starts of later episodes too
        first, other = plain.reset(seed=seed)[0], noisy.reset(seed=seed)[0]
        np.testing.assert_array_equal(first["desired_goal"], other["desired_goal"])
    inner = Flicker(Clock(), 0.5)
    both = Flicker(inner, 0.5)
    blank = observations(both, 2000) == 0
    assert abs(blank.mean() - 0.75) < 0.05  # with the same random numbers it would be a half
    np.testing.assert_array_equal(observations(both, 50, seed=1), observations(both, 50, seed=1))
    assert (observations(both, 50, seed=1) != observations(both, 50, seed=2)).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HideIndices(Clock(), [3]), r"indices 0 to 2, got \[3\]"),
        (lambda: HideIndices(Clock(), [0, -3]), r"repeat: \[0, -3\]"),
        (lambda: HideIndices(Clock(), [0, 1, 2]), "leaves nothing"),
        (lambda: HideIndices(Clock(), []), r"list of integers, got \[\]"),
        (lambda: HideIndices(Clock(), [0.5]), r"list of integers, got \[0.5\]"),
        (lambda: HideIndices(Clock(spaces.Box(0, 1, (2, 2))), [0]), "Box with one axis, got Box"),
        (lambda: HideIndices(Clock(spaces.Discrete(4)), [0]), r"an array, .* got Discrete\(4\)"),
        (lambda: Delay(Clock(spaces.Dict(a=spaces.Discrete(2))), 1), "FlattenObservation"),
        (lambda: ObservationNoise(Clock(), -1.0), "not negative, got -1.0"),
        (lambda: ObservationNoise(Clock(), np.nan), "finite and not negative, got nan"),
        (
            lambda: ObservationNoise(Clock(), [1.0, 2.0]),
            r"shape \(2,\), .* fit observations \(3,\)",
        ),
        (
            lambda: ObservationNoise(Clock(spaces.Box(0, 255, (3,), np.uint8)), 1.0),
            "noise needs an observation of floats",
        ),
        (lambda: Flicker(Clock(), 1.5), r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: DropFrames(Clock(), float("nan")), "probability .* got nan"),
        (lambda: Delay(Clock(), -1), "at least 0, got -1"),
        (lambda: Delay(Clock(), 1.5), "an integer of at least 0, got 1.5"),
        (lambda: PreviousStep(Clock(), action=False), "nothing to append"),
        (lambda: PreviousStep(make(GOALS), reward=True), "original goal's reward would stay"),
        (
            lambda: PreviousStep(Clock(action_space=spaces.Sequence(spaces.Discrete(2)))),
            "fixed size to be appended",
        ),
        (lambda: Masked(PlanarReachSimulation(), (8,)), r"0 to 7, got \(8,\)"),
        (lambda: HiddenGoal(PlanarReachSimulation(), 0), "visible_steps must be .* got 0"),
        (
            lambda: MaskedEnv("gymnasium.envs.classic_control:CartPoleEnv", (1,)),
            "no Simulation, it builds CartPoleEnv",
        ),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("env_id", VARIANTS)
def test_variants_observe_entries_of_the_full_observation(env_id):
    name, kept = VARIANTS[env_id]
    whole, part = make(name, **ICE.get(env_id, {})), make(env_id)
    assert gym.spec(env_id).max_episode_steps == gym.spec(name).max_episode_steps
    inner = whole.observation_space
    inner = inner["observation"] if is_goal_space(inner) else inner
    outer = part.observation_space
    outer = outer["observation"] if is_goal_space(outer) else outer
    assert outer == spaces.Box(inner.low[kept], inner.high[kept])
    assert whole.action_space == part.action_space
    first, other = whole.reset(seed=6)[0], part.reset(seed=6)[0]
    np.testing.assert_array_equal(array_of(first)[kept], array_of(other))
    for action in actions_of(whole, 60):
        first, *rest = whole.step(action)
        other, *others = part.step(action)
        np.testing.assert_array_equal(array_of(first)[kept], array_of(other), strict=True)
        assert rest == others
        if rest[1] or rest[2]:
            break


@pytest.mark.slow
@pytest.mark.parametrize("env_id", VARIANTS)
def test_variants_keep_the_laws_and_continue_exactly(env_id):
    assert [str(p) for p in check_training(lambda: make(env_id)) if p.level != "note"] == []
    one, two = make(env_id), make(env_id)
    one.reset(seed=1)
    two.reset(seed=2)
    actions = actions_of(one, 260)
    trace(one, actions[:30])
    state = env_state(one)
    set_env_state(two, state)
    assert_same(trace(two, actions[30:]), trace(one, actions[30:]))


def test_masked_variants_have_native_vector_environments():
    venv = make_vec_env(make, "rlkit/PlanarPush-HiddenVelocity-v0", 3, seed=0)
    assert isinstance(venv.env.unwrapped.simulation, Masked)
    assert venv.reset()["observation"].shape == (3, 6)
    single = make("rlkit/PlanarPush-v0")
    np.testing.assert_array_equal(
        venv.reset()["observation"].shape[1:], (len(single.reset(seed=0)[0]["observation"]) - 4,)
    )
    assert vec_goal_rule(venv) == goal_rule(single)
    dense = gym.make_vec("rlkit/PlanarPush-HiddenVelocity-v0", 2, reward="dense")
    assert not dense.unwrapped.rule.sparse


@pytest.mark.slow
@pytest.mark.parametrize(("name", "observed"), [("FetchReach", range(5)), ("FetchPush", range(14))])
def test_masked_fetch_is_delayed_and_without_velocities(name, observed):
    pytest.importorskip("gymnasium_robotics", reason="the extra `robotics` is not installed")
    env_id, kept = f"rlkit/{name}-Masked-v0", list(observed)
    plain, masked = make(f"{name}-v4"), make(env_id)
    assert gym.spec(env_id).max_episode_steps == gym.spec(f"{name}-v4").max_episode_steps
    assert goal_rule(masked) == goal_rule(plain)
    history = [plain.reset(seed=2)[0]["observation"][kept]]
    assert_same([masked.reset(seed=2)[0]["observation"]], history)
    actions = actions_of(plain, 50)
    for t, action in enumerate(actions, start=1):
        first, *rest = plain.step(action)
        other, *others = masked.step(action)
        history.append(first["observation"][kept])
        np.testing.assert_array_equal(other["observation"], history[max(t - 2, 0)])
        for key in ("achieved_goal", "desired_goal"):
            np.testing.assert_array_equal(other[key], first[key])
        assert rest == others
    assert rest[2]
    again = make(env_id)
    again.reset(seed=9)
    masked.reset(seed=3)
    trace(masked, actions[:20])
    set_env_state(again, env_state(masked))
    assert_same(trace(again, actions[:40]), trace(masked, actions[:40]))
    assert [
        str(p) for p in check_training(lambda: make(env_id), episodes=2) if p.level != "note"
    ] == []


@pytest.mark.slow
def test_masked_fetch_without_its_extra(monkeypatch):
    monkeypatch.setattr(construct, "_import_robotics", lambda: False)
    with pytest.raises(ValueError, match=r"FetchReach-Masked-v0.*rlkit-suite\[robotics\]"):
        make("rlkit/FetchReach-Masked-v0")
    code = (
        "import sys; sys.modules['gymnasium_robotics'] = None\n"
        "import gymnasium, rlkit.envs\n"
        "assert 'mujoco' not in sys.modules\n"
        "assert 'rlkit.envs.wrappers.partial_observation' not in sys.modules\n"
        "try: gymnasium.make('rlkit/FetchPush-Masked-v0')\n"
        "except ImportError as error: print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert 'pip install "rlkit-suite[robotics]"' in answer.stdout
