"""Losses, gradients and weights that are not finite: skipped, counted, never saved."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.agents import DQN, MPC, SAC, TD3
from rlkit.envs.make import make
from rlkit.experiment.evaluate import evaluate
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import read_metrics
from rlkit.experiment.train import resume, train
from rlkit.io.checkpoint import load_latest
from rlkit.networks import ADAM, DivergenceError, UpdateFunction, adam_state
from rlkit.networks.fit import descend
from rlkit.networks.gradient import MOST_SKIPPED, SKIPPED

SMALL = {"learning_starts": 20, "net_arch": [8], "batch_size": 16, "seed": 0, "device": "cpu"}


class Paying(gym.Env):
    """Episodes of ten steps with random observations; the reward of one step is `odd`."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, odd=1.0, odd_at=30, discrete=False):
        self.action_space = spaces.Discrete(3) if discrete else spaces.Box(-1.0, 1.0, (2,))
        self.odd, self.odd_at, self.total, self.time = odd, odd_at, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        assert np.isfinite(action).all()
        self.total, self.time = self.total + 1, self.time + 1
        reward = self.odd if self.total == self.odd_at else 1.0
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, reward, False, self.time == 10, {}


def tensors(agent):
    return agent.learner.state.values()


def is_finite(agent):
    return all(bool(value.isfinite().all()) for value in tensors(agent))


def regression(state, batch, learning_rate):
    error = state["w"] - batch["x"]
    changes = ADAM.step(state, "w", 2 * error, learning_rate)
    return changes, {"loss": (error**2).sum()}


# What the compiler imports warns.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_bad_update_changes_nothing_and_is_counted(compiled):
    update = UpdateFunction(regression, compiled, 8)
    state = adam_state("w", torch.ones(4))
    rate = torch.tensor(0.1)
    assert update(state, {"x": torch.zeros(4)}, rate)[0] == ["loss"]
    before = {name: value.clone() for name, value in state.items()}
    for x in (torch.nan, torch.inf, 1e30):  # squared, the last one is infinite
        names, values = update(state, {"x": torch.full((4,), x)}, rate)
        assert dict(zip(names, values.tolist(), strict=True)) == {SKIPPED: 1.0}
        for name, value in state.items():
            assert torch.equal(value, before[name]), name
    update(state, {"x": torch.zeros(4)}, rate)
    assert not torch.equal(state["w"], before["w"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_skips_without_being_waited_for():
    update = UpdateFunction(regression, False, 8)
    state = {k: v.cuda() for k, v in adam_state("w", torch.ones(4)).items()}
    rate, good = torch.tensor(0.1).cuda(), {"x": torch.zeros(4).cuda()}
    bad = {"x": torch.full((4,), torch.nan).cuda()}
    names, values = update(state, good, rate)
    assert (names, values[-1].item()) == (["loss", SKIPPED], 0.0)
    before = state["w"].clone()
    names, values = update(state, bad, rate)
    assert values.tolist() == [0.0, 1.0]
    assert torch.equal(state["w"], before)

    def many():
        for _ in range(64):
            update(state, bad, rate)

    with pytest.raises(DivergenceError):
        many()


def test_a_step_beyond_what_numbers_can_hold_is_bad_too():
    update, state = UpdateFunction(regression, False, 8), adam_state("w", torch.ones(4))
    assert update(state, {"x": torch.zeros(4)}, torch.tensor(torch.inf))[0] == [SKIPPED]
    assert torch.equal(state["w"], torch.ones(4))


def test_skipped_updates_in_a_row_end_the_training_and_name_their_cause():
    update, state = UpdateFunction(regression, False, 8), adam_state("w", torch.ones(4))
    good = {"x": torch.zeros(4), "reward": torch.zeros(3)}
    bad = {"x": torch.full((4,), torch.nan), "reward": torch.tensor([0.0, 2.0, torch.nan])}
    for batch in [bad] * (MOST_SKIPPED - 1) + [good] + [bad] * (MOST_SKIPPED - 1):
        update(state, batch, torch.tensor(0.1))
    with pytest.raises(
        DivergenceError,
        match=r"10 updates in a row were skipped: loss is nan; .*of w; "
        r"rewards of the last batch: 0 to 2, and 1 of 3 not finite",
    ):
        update(state, bad, torch.tensor(0.1))
    assert state["w"].isfinite().all()


def test_a_fit_skips_bad_batches_and_ends_where_there_are_no_others():
    def loss(vector, x, step):
        return ((vector - x) ** 2).sum(), {}

    def fit(state, batches):
        return list(descend(state, loss, batches, model=loss, learning_rate=0.1))

    state, other = adam_state("vector", torch.ones(2)), adam_state("vector", torch.ones(2))
    assert [set(found) for found in fit(state, [0.0, torch.nan, 0.0])][1] == {SKIPPED}
    fit(other, [0.0, 0.0])
    assert torch.equal(state["vector"], other["vector"])
    for batches in ([torch.nan] * 3, [0.0, *[torch.inf] * MOST_SKIPPED]):
        with pytest.raises(DivergenceError, match="lower learning_rate"):
            fit(state, batches)
    assert state["vector"].isfinite().all()


@pytest.mark.parametrize(
    ("agent_class", "options"),
    [
        (SAC, {"learning_rate": 1e18}),
        (TD3, {"learning_rate": 1e18}),
        (SAC, {"ent_coef": 1e30}),
        (SAC, {"learning_rate": 1e18, "encoder": "gru", "window": 4, "batch_size": 4}),
    ],
)
def test_settings_that_diverge_are_noticed_and_weights_stay_finite(agent_class, options):
    agent = agent_class("MlpPolicy", Paying(), **{**SMALL, **options})
    with pytest.raises(DivergenceError, match="10 updates in a row"):
        agent.learn(400)
    assert is_finite(agent)


@pytest.mark.parametrize("agent_class", [SAC, TD3, DQN])
def test_one_huge_reward_costs_the_updates_that_read_it(agent_class):
    env = Paying(odd=1e30, discrete=agent_class is DQN)
    agent = agent_class("MlpPolicy", env, **{**SMALL, "batch_size": 4})
    agent.learn(150, log_interval=1)
    assert is_finite(agent)
    if agent_class is not DQN:  # its loss grows linearly and stays finite
        assert agent.metrics.state_dict()[SKIPPED] > 0


def test_mpc_skips_what_its_world_model_cannot_learn():
    options = {"learning_starts": 50, "first_fit": 10, "gradient_steps": 5, "train_freq": 10}
    planner = {"name": "shooting", "horizon": 2, "samples": 10}
    options |= {"world": {"name": "ensemble", "members": 2, "hidden": [8]}, "planner": planner}
    agent = MPC("MlpPolicy", Paying(odd=1e30), seed=0, device="cpu", **options)
    try:
        agent.learn(100)
    except FloatingPointError as error:
        assert "lower learning_rate" in str(error)  # noqa: PT017
    assert all(bool(value.isfinite().all()) for value in agent.learner.weights().values())


CONTENT = {
    "env": "rlkit/PointMaze-Open-v0",
    "steps": 400,
    "num_envs": 4,
    "device": "cpu",
    "check_env": False,
    "evaluation": {"every": 0, "final_episodes": 2},
    "checkpoint": {"every": 100},
    "pictures": {"video_episodes": 0},
    "agent_options": {"net_arch": [8], "batch_size": 16, "learning_starts": 100},
}


@pytest.mark.slow
def test_a_run_that_diverges_keeps_its_last_good_checkpoint_and_goes_on_from_it(tmp_path):
    plan = make_recipe(CONTENT, ["agent_options.learning_rate=1e18"])
    with pytest.raises(
        FloatingPointError, match=r"step-100, is from before.*--set agent_options.learning_rate="
    ):
        train(plan, make, tmp_path / "run")
    step, state = load_latest(tmp_path / "run" / "checkpoints")
    assert step == 100
    assert all(bool(value.isfinite().all()) for value in state["weights"].values())
    outcome = resume(tmp_path / "run", make, settings=["agent_options.learning_rate=1e-3"])
    assert outcome["steps"] == 400
    change = {"agent_options.learning_rate": [1e18, 1e-3]}
    assert RunFolder(tmp_path / "run").changes() == [{"step": 100, "settings": change}]
    assert all("train/skipped_updates" not in row for row in read_metrics(tmp_path / "run"))


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    run = RunFolder(tmp_path)
    for part in ("weights", "optimiser"):
        with pytest.raises(FloatingPointError, match=f"{part}.q holds numbers that are not finite"):
            run.save_checkpoint(5, {part: {"p": torch.ones(1), "q": torch.tensor([torch.nan])}})
    assert not run.checkpoints.exists()


def test_an_agent_that_is_not_finite_is_not_saved(tmp_path):
    agent = SAC("MlpPolicy", Paying(), **SMALL)
    agent.learner.state["actor"][0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"weights.actor.* not finite"):
        agent.save(tmp_path / "agent.zip")
    assert list(tmp_path.iterdir()) == []


def test_evaluation_gives_no_environment_an_action_that_is_not_finite():
    class Lost:
        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            return np.full((len(episode_start), 2), np.nan, np.float32), None

    from rlkit.vec.vec_env import make_vec_env

    venv = make_vec_env(make, "rlkit/PointMaze-Open-v0", 2)
    with pytest.raises(FloatingPointError, match="action for environment 0 is nan"):
        evaluate(Lost(), venv, 2, 0)
