import json
import sys

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from rlkit.world.data.minari import read_minari, write_minari
from rlkit.world.data.windows import Episodes
from rlkit.world.layout import Layout


def recorded(width=3, driven=2, lengths=(4, 1, 6), outcomes=True):
    rng = np.random.default_rng(0)
    total = sum(lengths)
    ended = np.zeros(total, np.bool_)
    ended[3] = True
    return Episodes(
        rng.normal(size=(total + len(lengths), width)).astype(np.float32),
        rng.normal(size=(total, driven)).astype(np.float32),
        lengths,
        rng.normal(size=total).astype(np.float32) if outcomes else None,
        ended if outcomes else None,
    )


def stored(folder, observation_space, action_space, **episode):
    """A data set as others make it."""
    folder.mkdir(parents=True)
    storage = MinariStorage.new(folder, observation_space, action_space)
    storage.update_metadata({"dataset_id": "test/made-v0", "minari_version": minari.__version__})
    steps = len(episode["actions"])
    ends = {"terminations": np.zeros(steps, np.bool_), "truncations": np.zeros(steps, np.bool_)}
    storage.update_episodes([EpisodeBuffer(rewards=np.arange(steps) * 1.0, **ends, **episode)])
    return folder


@pytest.mark.parametrize("achieved", [(), (0, 1)])
@pytest.mark.parametrize("driven", [0, 2])
def test_what_is_written_is_read(tmp_path, achieved, driven):
    data, layout = recorded(driven=driven), Layout(3, driven, achieved)
    write_minari(tmp_path / "made", data, layout)
    found, columns = read_minari(tmp_path / "made")
    assert columns == Layout(3, driven, achieved, ("reward", "terminated"))
    np.testing.assert_array_equal(found.spans, data.spans)
    np.testing.assert_array_equal(found.observation, data.observation)
    np.testing.assert_array_equal(found.action, data.action)
    for key in ("reward", "terminated"):
        np.testing.assert_array_equal(found.outcomes[key], data.outcomes[key])


def test_minari_reads_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = recorded()
    write_minari(tmp_path / "rlkit" / "some-v1", data, Layout(3, 2, (0,)), "rlkit/some-v1")
    episode = minari.load_dataset("rlkit/some-v1")[2]
    np.testing.assert_array_equal(episode.observations["achieved_goal"], data.observation[-7:, :1])
    np.testing.assert_array_equal(episode.actions, data.action[-6:])
    assert episode.truncations.tolist() == [False] * 5 + [True]
    found, _ = read_minari("rlkit/some-v1")
    np.testing.assert_array_equal(found.observation, data.observation)


def test_episodes_without_outcomes_are_written(tmp_path):
    write_minari(tmp_path, recorded(outcomes=False), Layout(3, 2))
    found, _ = read_minari(tmp_path)
    assert not found.outcomes["reward"].any()
    assert not found.outcomes["terminated"].any()


def test_a_part_of_the_data_is_written_alone(tmp_path):
    first, _ = recorded().split_time(0.5)
    write_minari(tmp_path, first, Layout(3, 2))
    found, _ = read_minari(tmp_path)
    np.testing.assert_array_equal(
        found.forecast_windows(0, 1).future_observation,
        first.forecast_windows(0, 1).future_observation,
    )


def test_goals_are_joined_and_choices_become_one_hot(tmp_path):
    box = spaces.Box(-1, 1, (2,), np.float64)
    goals = spaces.Dict({"achieved_goal": box, "desired_goal": box, "observation": box})
    rng = np.random.default_rng(0)
    observation = {key: rng.uniform(-1, 1, (4, 2)) for key in goals.spaces}
    folder = stored(
        tmp_path / "goals",
        goals,
        spaces.Discrete(3),
        observations=observation,
        actions=np.array([2, 0, 1]),
    )
    data, layout = read_minari(folder)
    assert (layout.observation, layout.action, layout.achieved) == (4, 3, (0, 1))
    wanted = np.concatenate([observation["achieved_goal"], observation["observation"]], 1)
    np.testing.assert_allclose(data.observation, wanted, rtol=1e-6)
    np.testing.assert_array_equal(data.action, np.eye(3)[[2, 0, 1]])
    assert data.outcomes["reward"].tolist() == [0, 1, 2]


def test_large_data_lies_in_files(tmp_path):
    write_minari(tmp_path / "made", recorded(), Layout(3, 2))
    data, _ = read_minari(tmp_path / "made", scratch=tmp_path / "scratch")
    assert isinstance(data.observation, np.memmap)
    np.testing.assert_array_equal(np.load(tmp_path / "scratch" / "action.npy"), data.action)
    np.testing.assert_array_equal(data.observation, recorded().observation)


def test_an_episode_that_lacks_its_last_observation_is_refused(tmp_path):
    box = spaces.Box(-1, 1, (1,))
    folder = stored(
        tmp_path / "short", box, box, observations=np.zeros((3, 1)), actions=np.zeros((3, 1))
    )
    with pytest.raises(
        ValueError, match=r"episode 0 of .* has 3 observations and 3 rewards, not 4"
    ):
        read_minari(folder)


def test_nothing_that_a_file_names_is_made(tmp_path):
    write_minari(tmp_path, recorded(), Layout(3, 2))
    path = tmp_path / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["observation_space"]
    path.write_text(json.dumps(metadata | {"env_spec": '{"id": "Made-v0", "entry_point": "x:Y"}'}))
    with pytest.raises(ValueError, match="does not name its spaces"):
        read_minari(tmp_path)


def test_a_missing_data_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="minari download some/none-v0"):
        read_minari("some/none-v0")


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        (Layout(4, 2), "made/here-v0", r"has \(3, 2\) columns"),
        (Layout(3, 2, (2,)), "made/here-v0", r"must be the first columns, got \(2,\)"),
        (Layout(3, 2), "no name!-v0", "Malformed dataset ID"),
        (Layout(3, 2), "made/here", "'made/here' lacks its version, as in 'made/here-v0'"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, layout, name, message):
    with pytest.raises(ValueError, match=message):
        write_minari(tmp_path / "made", recorded(), layout, name)
    assert not (tmp_path / "made").exists()


def test_a_data_set_is_never_written_over(tmp_path):
    write_minari(tmp_path, recorded(), Layout(3, 2))
    with pytest.raises(ValueError, match="already available"):
        write_minari(tmp_path, recorded(), Layout(3, 2))


def test_without_minari_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'rlkit-suite\[minari\]'"):
        read_minari(tmp_path)
