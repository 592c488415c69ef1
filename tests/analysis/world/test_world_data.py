import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.analysis.world.collect import Explorer, gather_episodes
from rlkit.analysis.world.columns import Columns
from rlkit.analysis.world.data import Source, deviations, load_data, split_settings
from rlkit.analysis.world.replay import replay_episodes
from rlkit.envs.make import make
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.train import train
from rlkit.latents import PCA, FittedLatent
from rlkit.world import Episodes, Layout
from rlkit.world.data.minari import write_minari

MAZE = "rlkit/PointMaze-U-v0"
PIXELS = "rlkit/PointMaze-U-Pixels-v0"
SMALL = ["num_envs=2", "check_env=false", "evaluation.final_episodes=2", "threads=1"]
SMALL += ["pictures.video_episodes=0", "evaluation.every=0", "checkpoint.every=0"]


def fitted_latent(dims=3):
    frames = np.random.default_rng(0).integers(0, 255, (120, 48, 48, 3), np.uint8)
    generator = torch.Generator().manual_seed(0)
    latent = FittedLatent(PCA(dims=dims).with_shape((48, 48, 3)), generator)
    for _ in latent.fit(frames, steps=1, generator=generator):
        pass
    return latent


def explored(space, share, steps=3000):
    explorer = Explorer(space, 2, share, seed=0)
    first = np.zeros((steps, 2), bool)
    first[::100] = True
    return np.stack([explorer.act(row) for row in first])


@pytest.mark.slow
def test_actions_are_uniform_whether_correlated_or_not():
    space = spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)
    for share, low, high in ((0.0, -0.05, 0.05), (1.0, 0.7, 0.97)):
        actions = explored(space, share).reshape(-1, 2, 2)
        assert all(action in space for action in actions[:50].reshape(-1, 2))
        assert np.allclose(actions.mean((0, 1)), [0.0, 0.5], atol=0.3)
        assert np.allclose(actions.std((0, 1)), [4 / 12**0.5, 1 / 12**0.5], rtol=0.15)
        series = actions[:, 0, 0]
        assert low < np.corrcoef(series[1:], series[:-1])[0, 1] < high


@pytest.mark.slow
def test_discrete_actions_are_repeated():
    changes = [
        (np.diff(explored(spaces.Discrete(4), share), axis=0) != 0).mean() for share in (0, 1)
    ]
    assert changes[0] == pytest.approx(0.75, abs=0.03)
    assert changes[1] < 0.25


@pytest.mark.slow
def test_boxes_without_bounds_are_explored():
    actions = explored(spaces.Box(-np.inf, np.inf, (1,)), 0.5)
    assert actions.dtype == np.float32
    assert np.isfinite(actions).all()
    assert actions.std() == pytest.approx(1, abs=0.1)


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"\[0, 1\], got 2"):
        Explorer(spaces.Discrete(2), 1, 2, seed=0)


def test_what_is_gathered_is_what_the_environment_does():
    found, layout, names = gather_episodes("Pendulum-v1", make, 450, 7)
    assert names == ("observation 0", "observation 1", "observation 2")
    assert layout == Layout(3, 1, (), ("reward", "terminated"))
    # Four environments of 113 steps each, all cut in the middle.
    assert found.spans[:, 2].tolist() == [113] * 4
    env = gym.make("Pendulum-v1")
    for i, (first, record, steps) in enumerate(found.spans):
        observation, _ = env.reset(seed=7 + i)
        for t in range(steps):
            assert np.allclose(found.observation[first + t], observation, atol=1e-6)
            observation, reward, *_ = env.step(found.action[record + t])
            assert found.outcomes["reward"][record + t] == pytest.approx(reward, rel=1e-5)
        assert np.allclose(found.observation[first + steps], observation, atol=1e-6)


def test_episodes_end_where_they_end():
    found, _, _ = gather_episodes("CartPole-v1", make, 300, 0, correlated=1.0)
    assert found.steps == 300
    ends = found.spans[:, 1] + found.spans[:, 2] - 1
    terminated = found.outcomes["terminated"]
    assert terminated.sum() >= 3
    assert terminated[np.setdiff1d(np.arange(300), ends)].sum() == 0
    # The last observation is that of the fall, not of the next start.
    for (first, _, steps), ended in zip(found.spans, terminated[ends], strict=True):
        x, angle = found.observation[first + steps, [0, 2]]
        assert ended == (abs(angle) > 0.209 or abs(x) > 2.4)
        assert np.abs(found.observation[first]).max() <= 0.05
    assert found.action.shape == (300, 2)
    assert (found.action.sum(1) == 1).all()


def test_achieved_goals_are_columns_and_rewards_are_no_outcomes():
    found, layout, names = gather_episodes("rlkit/PlanarReach-v0", make, 120, 0)
    assert layout == Layout(10, 2, (0, 1))
    assert names[:3] == ("achieved goal 0", "achieved goal 1", "observation 0")
    # The observation of this arm holds its tip, which is the goal.
    assert np.allclose(found.observation[:, 8:], found.observation[:, :2], atol=1e-5)


def test_the_parts_come_from_different_episodes():
    data = load_data(Source("Pendulum-v1", gather=400), make, seed=3)
    assert [part.steps for part in (data.training, data.validation, data.test)] == [400, 100, 100]
    starts = [part.observation[part.spans[:, 0]] for part in (data.training, data.test)]
    starts.append(data.validation.observation[data.validation.spans[:, 0]])
    everything = np.concatenate(starts)
    assert len(np.unique(everything, axis=0)) == len(everything)
    again = load_data(Source("Pendulum-v1", gather=400), make, seed=3)
    assert again.fingerprint() == data.fingerprint()
    other = load_data(Source("Pendulum-v1", gather=400), make, seed=4)
    assert other.fingerprint() != data.fingerprint()


@pytest.mark.slow
def test_images_become_latents():
    latent = fitted_latent()
    _, layout, names = gather_episodes(PIXELS, make, 130, 5, latent=latent)
    assert names == ("latent 0", "latent 1", "latent 2")
    assert layout == Layout(3, 2)
    env = make(PIXELS)
    columns = Columns.of(PIXELS, env.observation_space, latent)
    for key in ("observation", "achieved_goal"):
        assert env.observation_space[key].dtype == np.uint8
    observation = {key: space.sample()[None] for key, space in env.observation_space.spaces.items()}
    assert np.array_equal(columns(observation), latent.encode(observation["observation"]))
    with pytest.raises(ValueError, match="--latent FOLDER"):
        gather_episodes(PIXELS, make, 130, 5)
    with pytest.raises(ValueError, match=r"reads images of shape \(48, 48, 3\), Pendulum-v1 has"):
        gather_episodes("Pendulum-v1", make, 130, 5, latent=latent)


def test_numbers_that_are_none_are_named():
    class Broken(gym.ObservationWrapper):
        def observation(self, observation):
            return observation * np.float32("nan")

    def broken(env_id, **arguments):
        return Broken(gym.make(env_id, **arguments))

    with pytest.raises(ValueError, match="observation is nan"):
        gather_episodes("Pendulum-v1", broken, 100, 0)


def generated(tmp_path, *settings):
    recipe = load_recipe("plain", ["env=Pendulum-v1", "steps=130", *SMALL, *settings])
    train(recipe, make, tmp_path / "run")
    return tmp_path / "run"


def assert_pendulum(episodes):
    """What was stored is Pendulum's law, actions in its own units."""
    for first, record, steps in episodes.spans:
        x = episodes.observation[first : first + steps + 1].astype(np.float64)
        torque = episodes.action[record : record + steps, 0]
        speed = x[:-1, 2] + (15 * x[:-1, 1] + 3 * torque) * 0.05
        assert np.allclose(x[1:, 2], speed.clip(-8, 8), atol=1e-3)


@pytest.mark.slow
def test_a_run_gives_the_episodes_of_its_replay_buffer(tmp_path):
    episodes, layout, names, latent = replay_episodes(generated(tmp_path), make)
    assert (episodes.steps, layout.widths.observation, latent) == (130, 3, None)
    assert len(names) == 3
    assert_pendulum(episodes)
    data = load_data(Source(str(tmp_path / "run")), make)
    assert data.training.steps + data.validation.steps + data.test.steps == 130


@pytest.mark.slow
def test_a_ring_that_was_written_over_is_read_in_order(tmp_path):
    run = generated(tmp_path, "agent_options.buffer_size=90", "env_options.max_episode_steps=20")
    episodes, *_ = replay_episodes(run, make)
    assert 60 < episodes.steps < 90
    assert episodes.spans[:, 2].max() == 20
    assert_pendulum(episodes)


@pytest.mark.slow
def test_stored_latents_of_an_agent_are_columns(tmp_path):
    options = [
        f"env={PIXELS}",
        "steps=60",
        "env_options.size=32",
        'agent_options.latent={name="pca", dims=2}',
        "agent_options.pretraining={frames=60, steps=1}",
        "agent_options.learning_starts=100",
    ]
    train(load_recipe("goal", [*options, *SMALL]), make, tmp_path / "run")
    episodes, layout, names, latent = replay_episodes(tmp_path / "run", make)
    assert (episodes.steps, layout, names) == (60, Layout(2, 2), ("latent 0", "latent 1"))
    assert latent is not None
    assert latent.dims == 2
    as_data = load_data(
        Source(PIXELS, 60, latent=str(tmp_path / "run"), env_options={"size": 32}), make
    )
    assert as_data.layout == layout


def test_series_are_split_by_time(tmp_path):
    rows = [f"{t},{np.sin(t / 5):.5f},{t % 7}" for t in range(100)]
    (tmp_path / "series.csv").write_text("\n".join(["t,level,valve", *rows]))
    source = Source(str(tmp_path / "series.csv"), targets=("level",), drivers=("valve",), time="t")
    data = load_data(source, make)
    assert (data.names, data.layout) == (("level",), Layout(1, 1))
    assert [len(part) for part in (data.training, data.validation, data.test)] == [1, 1, 1]
    starts = [int(part.spans[0, 0]) for part in (data.training, data.validation, data.test)]
    assert starts == sorted(starts)
    assert data.training.spans[0, 2] < starts[1] + 1
    with pytest.raises(ValueError, match="--targets A B"):
        load_data(Source(str(tmp_path / "series.csv")), make)


@pytest.mark.slow
def test_tanks_and_minari(tmp_path):
    data = load_data(Source("tanks", gather=1200), make, seed=1)
    assert data.training.spans[:, 2].tolist() == [400] * 3
    assert (data.test.steps, len(data.names)) == (300, 3)
    rng = np.random.default_rng(0)
    episodes = Episodes.of(
        [{"observation": rng.random((9, 2)), "action": rng.random((8, 1))} for _ in range(12)]
    )
    write_minari(tmp_path / "set", episodes, Layout(2, 1))
    data = load_data(Source(str(tmp_path / "set")), make)
    assert [len(part) for part in (data.training, data.validation, data.test)] == [8, 2, 2]


def test_deviations_of_constants_are_zero():
    episodes = Episodes.of(
        [{"observation": np.array([[1.0, 5], [3, 5]]), "action": np.ones((1, 1))}]
    )
    assert deviations(episodes).tolist() == [1.0, 0.0]


def test_options_of_the_environment_are_separated():
    options, others = split_settings(["env_options.size=32", "hidden=[8]", "ensemble.members=2"])
    assert options == {"size": 32}
    assert others == [(["hidden"], [8]), (["ensemble", "members"], 2)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("Pendulum-v9"), "Pendulum-v9"),
        (Source("none.csv", targets=("a",)), "there is no file 'none.csv'"),
        (Source("Pendulum-v1", gather=0), "steps to gather must be >= 1, got 0"),
        (Source("Pendulum-v1", latent="nowhere"), "nowhere"),
        (Source("Pendulum-v1", correlated=-1.0), "got -1.0"),
        (Source(PIXELS), "--latent FOLDER"),
    ],
)
def test_mistakes_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        load_data(source, make)
