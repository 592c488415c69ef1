"""A power failure: what is not synced may be lost, in any order."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit.io import atomic_write, checkpoint
from rlkit.io.checkpoint import load_latest, prune, write_checkpoint


@pytest.fixture
def operations(monkeypatch):
    """What reaches the disk and in which order: ("sync" or "rename" or "remove", path)."""
    found = []

    def sync(path):
        found.append(("sync", Path(path)))

    def rename(source, target):
        found.append(("rename", Path(source)))
        real_rename(source, target)

    def rmtree(path, **options):
        found.append(("remove", Path(path)))
        real_rmtree(path, **options)

    real_rename, real_rmtree = os.rename, checkpoint.shutil.rmtree
    monkeypatch.setattr(checkpoint, "sync", sync)
    monkeypatch.setattr(atomic_write, "sync", sync)
    monkeypatch.setattr(checkpoint.os, "rename", rename)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", rmtree)
    return found


def test_a_checkpoint_is_durable_before_an_older_one_is_removed(tmp_path, operations):
    for step in (1, 2, 3):
        state = {"weights": {"w": torch.ones(3)}, "replay": np.zeros(5000), "step": step}
        write_checkpoint(tmp_path / f"step-{step}", state)
        prune(tmp_path, newest=step)
    staged = tmp_path / ".step-3.staged"
    moved = operations.index(("rename", staged))
    synced = {path for kind, path in operations[:moved] if kind == "sync"}
    members = {staged / entry.name for entry in (tmp_path / "step-3").iterdir()}
    assert synced >= members | {staged}, "every member and their folder, before the rename"
    durable = operations.index(("sync", tmp_path), moved)
    removed = operations.index(("rename", tmp_path / "step-1"))
    assert removed > durable, "the older one, after the new name is on the disk"
    assert load_latest(tmp_path)[0] == 3
