"""Goals that an agent imagines."""

import numpy as np
import pytest
from resuming import assert_resumes
from test_observation_encoder import LITTLE, MAZE, SETTINGS, SMALL_VAE, agent_of

from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.latents import PCA
from rlkit.offpolicy.imagination import POOL, SHOWN, Imagination, Imagining, density
from rlkit.replay import EpisodeStorage


def imagining(latent=SMALL_VAE, imagination=None, **options):
    chosen = {
        "reward_source": "latent",
        "imagination": imagination or {"source": "prior"},
        **options,
    }
    return agent_of(MAZE, latent, **chosen)


class Visited:
    """As much of a storage as drawing goals asks for: codes, and how often each was visited."""

    def __init__(self, codes, counts):
        self.codes = np.repeat(np.asarray(codes, np.float32), counts, axis=0)

    def __len__(self):
        return len(self.codes)

    def sample_steps(self, count, rng):
        return np.zeros(count, np.int64), rng.integers(0, len(self), count) - 1

    def flat(self, env, step):
        return step

    def achieved(self, slots):
        return self.codes[slots]


def drawn(skew, count=4000):
    agent = imagining(imagination={"source": "visited", "skew": skew})
    imagination = agent.imagination
    imagination.rule.threshold = 0.5
    imagination.storage = Visited([[0, 0, 0], [5, 0, 0], [0, 5, 0]], [900, 90, 10])
    goals = imagination.draw(count, np.random.default_rng(0))
    places = [(goals == place).all(1).mean() for place in ([0, 0, 0], [5, 0, 0], [0, 5, 0])]
    assert goals.shape == (count, 3)
    assert sum(places) == pytest.approx(1)
    return places


def test_visited_goals_are_drawn_as_often_as_they_were_visited():
    assert drawn(0.0) == pytest.approx([0.9, 0.09, 0.01], abs=0.02)


def test_a_skew_of_minus_one_draws_all_places_alike():
    assert drawn(-1.0) == pytest.approx([1 / 3] * 3, abs=0.03)


def test_half_a_skew_is_half_way():
    weights = np.sqrt([0.9, 0.09, 0.01])
    assert drawn(-0.5) == pytest.approx(weights / weights.sum(), abs=0.05)


def test_density_equals_a_loop():
    codes = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    loop = [
        np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * 0.7**2)) for b in codes.astype(np.float64)])
        for a in codes.astype(np.float64)
    ]
    np.testing.assert_allclose(density(codes, 0.7), loop, rtol=1e-4)


def test_the_pool_serves_draws_of_any_size():
    agent = imagining(imagination={"source": "visited", "skew": -1.0})
    agent.imagination.rule.threshold = 0.5
    agent.imagination.storage = Visited([[0, 0, 0], [5, 0, 0]], [9, 1])
    rng = np.random.default_rng(0)
    assert len(agent.imagination.draw(2 * POOL + 5, rng)) == 2 * POOL + 5
    assert len(agent.imagination.draw(0, rng)) == 0


def test_goals_of_the_prior_are_standard_normal():
    goals = imagining().imagination.draw(20_000, np.random.default_rng(0))
    assert goals.dtype == np.float32
    np.testing.assert_allclose(goals.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(goals.T), np.eye(3), atol=0.04)


def test_an_imagined_goal_lasts_for_an_episode():
    agent = imagining()
    seen = {key: np.zeros((3, 3), np.float32) for key in ("observation", "achieved_goal")}
    seen["desired_goal"] = np.full((3, 3), 7, np.float32)
    rng = np.random.default_rng(0)
    first = agent.imagination.ask(seen, None, np.ones(3, bool), rng)
    assert (first["desired_goal"] != 7).all()
    ended = np.array([False, True, False])
    second = agent.imagination.ask(seen, first, ended, rng)
    kept = (second["desired_goal"] == first["desired_goal"]).all(1)
    assert kept.tolist() == [True, False, True]
    assert (seen["desired_goal"] == 7).all(), "what environments showed stays as it is"


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_a_share_of_episodes_pursues_imagined_goals(share, low, high):
    agent = imagining(imagination={"source": "prior", "share": share})
    seen = {"desired_goal": np.full((500, 3), 7, np.float32)}
    asked = agent.imagination.ask(seen, None, np.ones(500, bool), np.random.default_rng(0))
    assert low <= (asked["desired_goal"] != 7).all(1).mean() <= high


def test_nothing_visited_yet_leaves_the_environments_goals():
    agent = imagining(imagination={"source": "visited"})
    assert isinstance(agent.imagination.storage, EpisodeStorage)
    seen = {"desired_goal": np.full((4, 3), 7, np.float32)}
    asked = agent.imagination.ask(seen, None, np.ones(4, bool), np.random.default_rng(0))
    assert (asked["desired_goal"] == 7).all()


def test_episodes_and_hindsight_pursue_them_and_the_latent_judges():
    hindsight = {"future": 0.4, "imagined": 0.4, "original": 0.2}
    agent = imagining(replay={"hindsight": hindsight}).learn(240)
    storage = agent.replay_buffer.storage
    stored = storage.goals.take(storage.goal_id[storage.has_action])
    assert 2 < len(np.unique(stored, axis=0)) < 20, "one goal per episode"
    batch = agent.replay_buffer.sample(400)
    achieved = batch.observation["achieved_goal"][:, 1]
    reached = agent.observation_encoder.distance.success(achieved, batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.reward[:, 0], reached - 1.0)
    seen = storage.observation["achieved_goal"]
    known = (batch.desired_goal[:, :1] == seen.reshape(1, -1, 3)[:, : len(seen)]).all(2).any(1)
    assert 0.3 < known.mean() < 0.5, "future goals were achieved, the others never"


def test_the_environments_success_is_no_outcome_of_an_imagined_goal():
    asked, alone = (agent.learn(240) for agent in (imagining(), agent_of(MAZE, SMALL_VAE)))
    assert asked._episode_num == alone._episode_num > 0
    assert [len(agent.goal_outcomes[0]) for agent in (asked, alone)] == [0, alone._episode_num]


@pytest.mark.parametrize("imagination", [{"source": "prior"}, {}, {"skew": -1.0}])
def test_looking_at_imagined_goals_changes_nothing(imagination):
    agent = imagining(imagination={"source": "visited", **imagination})
    if agent.imagination.plan.source == "visited":
        assert agent.imagination.pictures() is None, "nothing was visited yet"
    agent.learn(60)
    before = agent.imagination.state_dict(), agent.rng.bit_generator.state
    shown = agent.imagination.pictures()
    assert shown.shape == (SHOWN, 32, 32, 3)
    assert 0 <= shown.min() < shown.max() <= 1
    assert len(np.unique(shown, axis=0)) > 1
    after = agent.imagination.state_dict(), agent.rng.bit_generator.state
    np.testing.assert_equal(before, after)


@pytest.mark.parametrize("imagination", [{"source": "prior"}, {"skew": -1.0, "share": 0.7}])
def test_resume_is_exact(tmp_path, imagination):
    options = {
        **SETTINGS,
        "latent": SMALL_VAE,
        "reward_source": "latent",
        "imagination": imagination,
        "replay": {"hindsight": {"future": 0.5, "imagined": 0.5}},
    }
    del options["seed"]
    assert_resumes(tmp_path, SAC, make, MAZE, 2, options, size=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "posterior"}, r"source = 'posterior' must be one of \['prior', 'visited'\]"),
        ({"skew": 0.5}, r"skew = 0.5 must be a number in \[-1, 0\]"),
        ({"skew": "much"}, "skew = 'much' must be a number"),
        ({"share": 1.5}, r"share = 1.5 must be a number in \[0, 1\]"),
        ({"source": "prior", "skew": -0.5}, "skew = -0.5 weighs what was visited"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Imagining(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imagination": {"goals": 1}}, r"imagination has no option 'goals'. Known: .*share"),
        (
            {"reward_source": "environment"},
            'no environment can judge: set reward_source = "latent"',
        ),
        ({"latent": PCA(dims=3)}, "PCA has no prior to imagine goals from"),
        ({"pretraining": {**LITTLE, "refresh_every": 40}}, "refresh_every = 0 instead of 40"),
    ],
)
def test_what_does_not_go_with_imagination_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        imagining(**options)


def test_a_model_without_a_prior_can_imagine_what_it_visited():
    agent = imagining(PCA(dims=3), {"source": "visited"}).learn(60)
    assert isinstance(agent.imagination, Imagination)
