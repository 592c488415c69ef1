"""Damage to every member of checkpoints, agents, latents and worlds: every flipped bit is found.

`RLKIT_FUZZ=1000` sets the number of positions in each member.
"""

import contextlib
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

from rlkit.agents import SAC
from rlkit.io import checkpoint
from rlkit.io.archive import read_archive
from rlkit.io.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from rlkit.latents import FittedLatent
from rlkit.world import World

POSITIONS = int(os.environ.get("RLKIT_FUZZ", "12"))


def flips(size, count=POSITIONS):
    """Positions in a file of this size, its ends among them, and a bit for each."""
    rng = np.random.default_rng(size)
    positions = [0, size - 1, *rng.integers(size, size=max(count - 2, 0)).tolist()]
    return [(position, 1 << int(rng.integers(8))) for position in positions[:count]]


def undetected(path, load, region=None):
    """The flips of a file that a load does not notice; the file is whole again afterwards."""
    good = path.read_bytes()
    start, size = region or (0, len(good))
    missed = []
    for position, bit in flips(size):
        damaged = bytearray(good)
        damaged[start + position] ^= bit
        path.write_bytes(damaged)
        try:
            load()
        except CheckpointError:
            continue
        missed.append((path.name, position, bit))
    path.write_bytes(good)
    load()
    return missed


@pytest.mark.parametrize("kind", ["latent", "world", "checkpoint"])
def test_every_flip_in_a_folder_is_found(kind, tmp_path, originals):
    folder = tmp_path / kind
    source = next((originals.folder / "run" / "checkpoints").iterdir())
    shutil.copytree(source if kind == "checkpoint" else originals.folder / kind, folder)
    loads = {"latent": FittedLatent.load, "world": World.load, "checkpoint": read_checkpoint}
    members = sorted(folder.iterdir())
    assert {"manifest.json", "state.json", "weights.safetensors"} <= {m.name for m in members}
    missed = []
    for member in members:
        missed += undetected(member, lambda: loads[kind](folder))
    print(f"{kind}: {len(members)} members, {POSITIONS} positions each, {len(missed)} missed")
    assert missed == []


def test_every_flip_in_a_member_of_an_agents_file_is_found(tmp_path, originals):
    path = tmp_path / "a.zip"
    shutil.copy(originals.folder / "sac.zip", path)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        regions = {}
        for info in archive.infolist():
            file.seek(info.header_offset)
            head = file.read(30)
            start = info.header_offset + 30 + int.from_bytes(head[26:28], "little")
            regions[info.filename] = start + int.from_bytes(head[28:30], "little"), info.file_size
    missed = []
    for region in regions.values():
        missed += undetected(path, lambda: read_archive(path), region)
    print(f"agent: {len(regions)} members, {POSITIONS} positions each, {len(missed)} missed")
    assert missed == []


def test_a_flip_between_the_members_changes_nothing_or_is_found(tmp_path, originals):
    path = tmp_path / "a.zip"
    good = (originals.folder / "sac.zip").read_bytes()
    path.write_bytes(good)
    whole = SAC.load(path)
    rng = np.random.default_rng(0)
    directory = good.index(b"PK\x01\x02")
    for position in rng.integers(directory, len(good), size=5 * POSITIONS):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = SAC.load(path)
        except CheckpointError:
            continue
        assert loaded.options == whole.options
        for name, tensor in whole.learner.weights().items():
            assert torch.equal(loaded.learner.weights()[name], tensor)


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_at_any_moment_leaves_the_old_model_or_the_new_one(moment, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "world", {"version": 1})
    calls = iter(range(100))

    def ending(function):
        def call(*arguments, **options):
            if next(calls) == moment:
                raise Killed
            return function(*arguments, **options)

        return call

    removed = shutil.rmtree
    monkeypatch.setattr(checkpoint.os, "rename", ending(os.rename))
    monkeypatch.setattr(checkpoint, "sync", ending(checkpoint.sync))
    # A killed process removes nothing, also not in a `finally`.
    monkeypatch.setattr(checkpoint.shutil, "rmtree", ending(lambda *a, **k: None))
    with contextlib.suppress(Killed):
        write_checkpoint(tmp_path / "world", {"version": 2})
    monkeypatch.setattr(checkpoint.shutil, "rmtree", removed)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "world")["version"] in (1, 2)
    write_checkpoint(tmp_path / "world", {"version": 3})
    assert read_checkpoint(tmp_path / "world") == {"version": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
