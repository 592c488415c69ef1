"""Training episodes that pursue the goals of a generator."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from resuming import assert_resumes
from test_observation_encoder import LITTLE, MAZE, SETTINGS, SMALL_VAE, agent_of

from rlkit.agents import DQN, SAC
from rlkit.envs.make import make
from rlkit.goals.generators import Imagined, Uniform
from rlkit.latents import PCA
from rlkit.offpolicy.episode_goals import DECODED

PRIOR = {"name": "imagined", "source": "prior"}
REACH, FLIP = "rlkit/PlanarReach-v0", "rlkit/BitFlip-v0"
SMALL = {
    "net_arch": [16, 16],
    "batch_size": 16,
    "learning_starts": 40,
    "buffer_size": 2000,
    "seed": 0,
}


def latent_agent(generator=PRIOR, latent=SMALL_VAE, **options):
    chosen = {"reward_source": "latent", "goal_generator": generator, **options}
    return agent_of(MAZE, latent, **chosen)


def vector_agent(generator, **options):
    return SAC("MultiInputPolicy", make(REACH), goal_generator=generator, **{**SMALL, **options})


@dataclass
class Constant:
    """Proposes one goal, and keeps the outcomes of episodes."""

    value: float = 0.25
    share: float = 1.0
    outcomes: list = field(init=False, default_factory=list)

    def attach(self, context):
        self.context = context

    def propose(self, desired, rng):
        return np.full_like(desired, self.value)

    def observe(self, goals, achieved, success):
        self.outcomes.append((goals.copy(), achieved.copy(), success.copy()))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_proposed_goal_lasts_for_an_episode():
    goals = latent_agent().episode_goals
    observation = {key: np.zeros((3, 3), np.float32) for key in ("observation", "achieved_goal")}
    observation["desired_goal"] = np.full((3, 3), 7, np.float32)
    rng = np.random.default_rng(0)
    first = goals.replace(observation, None, np.ones(3, bool), rng)
    assert (first["desired_goal"] != 7).all()
    second = goals.replace(observation, first, np.array([False, True, False]), rng)
    kept = (second["desired_goal"] == first["desired_goal"]).all(1)
    assert kept.tolist() == [True, False, True]
    assert (observation["desired_goal"] == 7).all(), "the environment's observation stays"


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_a_share_of_episodes_pursues_proposed_goals(share, low, high):
    goals = latent_agent({**PRIOR, "share": share}).episode_goals
    observation = {"desired_goal": np.full((500, 3), 7, np.float32)}
    new = goals.replace(observation, None, np.ones(500, bool), np.random.default_rng(0))
    assert low <= (new["desired_goal"] != 7).all(1).mean() <= high


@pytest.mark.slow
def test_episodes_and_hindsight_pursue_them_and_the_latent_gives_rewards():
    hindsight = {"future": 0.4, "generated": 0.4, "original": 0.2}
    agent = latent_agent(replay={"hindsight": hindsight}).learn(240)
    storage = agent.replay_buffer.storage
    stored = storage.goals.take(storage.goal_id[storage.has_action])
    assert 2 < len(np.unique(stored, axis=0)) < 20, "one goal per episode"
    batch = agent.replay_buffer.sample(400)
    achieved = batch.observation["achieved_goal"][:, 1]
    reached = agent.observation_encoder.latent_rule.success(achieved, batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.reward[:, 0], reached - 1.0)
    visited = storage.observation["achieved_goal"]
    known = (batch.desired_goal[:, :1] == visited.reshape(1, -1, 3)[:, : len(visited)]).all(2)
    assert 0.3 < known.any(1).mean() < 0.5, "future goals were achieved, the others never"


@pytest.mark.slow
def test_the_environments_success_is_no_outcome_of_a_proposed_goal():
    with_goals, alone = (agent.learn(240) for agent in (latent_agent(), agent_of(MAZE, SMALL_VAE)))
    assert with_goals._episode_num == alone._episode_num > 0
    counts = [len(agent.goal_outcomes[0]) for agent in (with_goals, alone)]
    assert counts == [0, alone._episode_num]


@pytest.mark.slow
@pytest.mark.parametrize("generator", [PRIOR, Imagined(), Imagined(skew=-1.0)])
def test_decoding_goals_changes_nothing(generator):
    agent = latent_agent(generator)
    if generator != PRIOR:
        assert agent.episode_goals.decoded() is None, "nothing was visited yet"
    agent.learn(60)
    before = agent.episode_goals.state_dict(), agent.rng.bit_generator.state
    images = agent.episode_goals.decoded()
    assert images.shape == (DECODED, 32, 32, 3)
    assert 0 <= images.min() < images.max() <= 1
    assert len(np.unique(images, axis=0)) > 1
    after = agent.episode_goals.state_dict(), agent.rng.bit_generator.state
    np.testing.assert_equal(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("generator", [PRIOR, {"name": "imagined", "skew": -1.0, "share": 0.7}])
def test_resume_with_latents_is_exact(tmp_path, generator):
    options = {
        **SETTINGS,
        "latent": SMALL_VAE,
        "reward_source": "latent",
        "goal_generator": generator,
        "replay": {"hindsight": {"future": 0.5, "generated": 0.5}},
    }
    del options["seed"]
    assert_resumes(tmp_path, SAC, make, MAZE, 2, options, size=32)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["uniform", {"name": "imagined", "skew": -1.0, "share": 0.7}])
def test_resume_with_vectors_is_exact(tmp_path, generator):
    options = {
        **SMALL,
        "goal_generator": generator,
        "replay": {"hindsight": {"future": 0.5, "generated": 0.5}},
    }
    del options["seed"]
    assert_resumes(tmp_path, SAC, make, REACH, 2, options)


@pytest.mark.slow
@pytest.mark.parametrize("generator", [Imagined(), Imagined(skew=-0.5), Uniform(), Constant()])
def test_rewards_of_vector_goals_are_those_of_the_proposed_ones(generator):
    agent = vector_agent(generator).learn(250)
    storage = agent.replay_buffer.storage
    slots = np.flatnonzero(storage.has_action)
    goals = storage.goals.take(storage.goal_id[slots])
    achieved = storage.observation["achieved_goal"][slots + 1]
    np.testing.assert_array_equal(storage.reward[slots], agent.rule.reward(achieved, goals))
    if isinstance(generator, Constant):
        assert (goals == 0.25).all()
    batch = agent.replay_buffer.sample(300)
    rewards = agent.rule.reward(batch.observation["achieved_goal"][:, 1], batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.reward[:, 0], rewards)


@pytest.mark.slow
def test_outcomes_of_finished_episodes_are_observed():
    agent = vector_agent(Constant(share=0.5)).learn(400)
    outcomes = agent.episode_goals.generator.outcomes
    goals, achieved, success = (np.concatenate(part) for part in zip(*outcomes, strict=True))
    assert len(goals) == agent._episode_num > 2
    np.testing.assert_array_equal(success, agent.rule.success(achieved, goals))
    assert 0 < (goals == 0.25).all(1).mean() < 1, "the environment's goals are observed, too"
    ends = agent.replay_buffer.storage.truncated | agent.replay_buffer.storage.terminated
    last = agent.replay_buffer.storage.observation["achieved_goal"][np.flatnonzero(ends) + 1]
    np.testing.assert_array_equal(achieved, last)


@pytest.mark.slow
def test_an_end_by_the_environments_goal_is_a_truncation_for_another():
    """Bit flipping ends at its own goal, and would end at a proposed one."""
    env = make(FLIP, bits=3)
    generator = Imagined()
    agent = DQN("MultiInputPolicy", env, goal_generator=generator, **SMALL).learn(300)
    storage, rule = agent.replay_buffer.storage, agent.rule
    slots = np.flatnonzero(storage.has_action)
    goals = storage.goals.take(storage.goal_id[slots])
    achieved = storage.observation["achieved_goal"][slots + 1]
    reached = rule.terminated(achieved, goals)
    ended = storage.terminated[slots] | storage.truncated[slots]
    assert (storage.terminated[slots] <= reached).all()
    assert (ended & ~reached & storage.truncated[slots]).any()
    batch = agent.replay_buffer.sample(300)
    expected = rule.terminated(batch.observation["achieved_goal"][:, 1], batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.terminated[:, 0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal_generator": {"name": "imagine"}}, r"unknown goal generator 'imagine'.*'imagined'"),
        ({"imagination": {"source": "prior"}}, "goal_generator"),
        ({"reward_source": "environment"}, 'source = "prior" needs'),
        ({"latent": PCA(dims=3)}, 'source = "prior" needs'),
        ({"pretraining": {**LITTLE, "refresh_every": 40}}, "refresh_every = 0"),
    ],
)
def test_what_does_not_go_with_a_generator_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        latent_agent(**options)


def test_an_environment_without_goals_is_refused():
    with pytest.raises(ValueError, match="needs an environment with goals"):
        SAC("MlpPolicy", "Pendulum-v1", goal_generator="uniform")


def test_a_model_without_a_prior_proposes_what_was_visited():
    agent = latent_agent(Imagined(), PCA(dims=3)).learn(60)
    assert isinstance(agent.episode_goals.generator, Imagined)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["uniform", Imagined(skew=-0.5)])
def test_a_saved_agent_keeps_its_generator(tmp_path, generator):
    agent = vector_agent(generator).learn(60)
    agent.save(tmp_path / "agent.zip")
    assert SAC.load(tmp_path / "agent.zip").predict(agent.env.reset())[0].shape[0] == 1
    loaded = SAC.load(tmp_path / "agent.zip", make(REACH))
    assert loaded.episode_goals.generator == agent.episode_goals.generator
    loaded.learn(60)
