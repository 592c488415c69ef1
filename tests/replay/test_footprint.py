from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from gymnasium import spaces
from naive import KINDS, World, observation_space

from rlkit.replay import EpisodeStorage, available_bytes, estimate_footprint, footprint

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
PIXELS = observation_space("pixels")


@pytest.mark.parametrize("hidden_state", [(), ((3,), (2, 5))])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_an_estimate_is_what_the_arrays_take(kind, num_envs, hidden_state):
    capacity = 5000
    world = World(kind, num_envs, capacity, end=0.0, new_goal=0.0, hidden_state=hidden_state)
    storage = world.replay.storage
    arrays = {name: array.nbytes for name, array in storage._rings().items()}
    estimate = estimate_footprint(
        observation_space(kind), ACTIONS, capacity, num_envs, hidden_state=hidden_state
    ).total
    size = num_envs * storage.slots
    goals = 0 if storage.goals is None else -(-size // 50) * storage.goals.rows[0].nbytes
    assert estimate == sum(arrays.values()) + goals


def test_sharing_halves_images():
    shared, unshared = (
        estimate_footprint(PIXELS, ACTIONS, 10_000, share=share).total for share in ("auto", False)
    )
    assert unshared - shared == 10_002 * 12


def machine(monkeypatch, memory, disk=10**18):
    monkeypatch.setattr(footprint, "available_bytes", lambda: memory)
    usage = shutil.disk_usage("/")._replace(free=disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("memory", [10_000, 123_456, 7_000_000])
def test_what_does_not_fit_is_refused_with_what_would(monkeypatch, tmp_path, memory, share):
    machine(monkeypatch, memory)
    need = estimate_footprint(PIXELS, ACTIONS, 10**6, share=share).total
    with pytest.raises(ValueError, match=rf"1,000,000 steps .* take {need:,} bytes") as error:
        EpisodeStorage(PIXELS, ACTIONS, 10**6, share=share)
    assert f"of {memory:,} that are available" in str(error.value)
    advice = int(re.search(r"lower buffer_size to ([\d,]+)", str(error.value))[1].replace(",", ""))
    assert 0.85 * memory < estimate_footprint(PIXELS, ACTIONS, advice, share=share).total <= memory
    EpisodeStorage(PIXELS, ACTIONS, advice, share=share)


def test_a_disk_is_offered_where_it_helps(monkeypatch, tmp_path):
    need = estimate_footprint(PIXELS, ACTIONS, 10_000)
    machine(monkeypatch, need.rest)
    with pytest.raises(ValueError, match="or keep observations on disk with directory = "):
        EpisodeStorage(PIXELS, ACTIONS, 10_000)
    EpisodeStorage(PIXELS, ACTIONS, 10_000, directory=tmp_path)
    machine(monkeypatch, need.rest - 1)
    for directory in (None, tmp_path):
        with pytest.raises(ValueError, match=r"lower buffer_size to [1-9,0]+$"):
            EpisodeStorage(PIXELS, ACTIONS, 10_000, directory=directory)
    machine(monkeypatch, 1)
    with pytest.raises(ValueError, match="no buffer_size fits"):
        EpisodeStorage(PIXELS, ACTIONS, 10)


def test_a_disk_without_room_is_refused_before_a_file_is_there(monkeypatch, tmp_path):
    need = estimate_footprint(PIXELS, ACTIONS, 10_000)
    machine(monkeypatch, 10**9, disk=need.observations - 1)
    with pytest.raises(ValueError, match=r"in .*later, and [\d,]+ are left there: lower .* to 9,"):
        EpisodeStorage(PIXELS, ACTIONS, 10_000, directory=tmp_path / "later")
    assert not (tmp_path / "later").exists()


def test_the_hidden_state_of_every_step_is_named(monkeypatch):
    machine(monkeypatch, 10_000)
    with pytest.raises(
        ValueError, match=r'40,080 of them for the hidden state.* set start = "zero"'
    ):
        EpisodeStorage(PIXELS, ACTIONS, 1000, hidden_state=[(10,)])


def test_a_failed_allocation_gives_the_same_error(monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr("rlkit.replay.storage.make_columns", refuse)
    with pytest.raises(ValueError, match=r"1,000 steps \(buffer_size\) would take"):
        EpisodeStorage(PIXELS, ACTIONS, 1000)


# What the system leaves


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def system(root, groups="0::/\n"):
    write(root / "proc", meminfo="MemTotal: 900 kB\nMemAvailable:  700 kB\nSwapFree: 0 kB\n")
    write(root / "proc/self", cgroup=groups)


def test_the_system_s_own_figure(tmp_path):
    system(tmp_path)
    assert available_bytes(tmp_path) == 700 * 1024


@pytest.mark.parametrize("group", ["a/b", "a"])
def test_limits_of_a_group_and_its_parents(tmp_path, group):
    system(tmp_path, "0::/a/b\n")
    mount = tmp_path / "sys/fs/cgroup"
    facts = {"memory__current": "3000\n", "memory__stat": "anon 5\ninactive_file 1000\n"}
    for name in ("a", "a/b"):
        write(mount / name, memory__max="9000\n" if name == group else "max\n", **facts)
    assert available_bytes(tmp_path) == 7000


def test_limits_that_a_container_sees_as_its_root(tmp_path):
    system(tmp_path, "0::/\n")
    stat = "inactive_file 0\n"
    write(
        tmp_path / "sys/fs/cgroup",
        memory__max="5000\n",
        memory__current="6000\n",
        memory__stat=stat,
    )
    assert available_bytes(tmp_path) == 0


def test_limits_of_version_1(tmp_path):
    system(tmp_path, "5:cpu:/x\n4:memory,hugetlb:/x\n0::/\n")
    write(
        tmp_path / "sys/fs/cgroup/memory/x",
        memory__limit_in_bytes="8000\n",
        memory__usage_in_bytes="3000\n",
        memory__stat="cache 9\ntotal_inactive_file 500\n",
    )
    assert available_bytes(tmp_path) == 5500
    write(tmp_path / "sys/fs/cgroup/memory/x", memory__limit_in_bytes="9223372036854771712\n")
    assert available_bytes(tmp_path) == 700 * 1024


def test_other_systems_report_their_memory(tmp_path, monkeypatch):
    figures = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100}
    monkeypatch.setattr(footprint.os, "sysconf", figures.__getitem__)
    assert available_bytes(tmp_path) == 409_600
    monkeypatch.delattr(footprint.os, "sysconf")
    assert available_bytes(tmp_path) == 2**63 - 1


def test_this_system_has_some_memory():
    assert 2**20 < available_bytes() < 2**50
