import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib import format as npy

from rlkit.io import checkpoint, serialisation
from rlkit.io.archive import write_archive
from rlkit.io.checkpoint import (
    CheckpointError,
    load_latest,
    prune,
    read_checkpoint,
    saved_steps,
    write_checkpoint,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)


def example():
    return {
        "weights": {"actor.0": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3)},
        "optimiser": {"m": torch.ones(2, dtype=torch.bfloat16)},
        "replay": {"observation": np.arange(4000.0).reshape(500, 8), "ends": np.array([True])},
        "training": {"rng": np.random.default_rng(1).bit_generator.state, "best": math.inf},
    }


def assert_same(one, two):
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        same = one.contiguous().view(-1).view(torch.uint8), two.reshape(-1).view(torch.uint8)
        assert torch.equal(*same)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert one.tobytes() == two.tobytes()
    elif isinstance(one, float):
        assert repr(one) == repr(two)
    else:
        assert one == two


tensors = st.builds(
    lambda shape, dtype, seed: (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9
    ).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
arrays = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes()),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), tensors, arrays)
keys = st.text(min_size=1).filter(lambda key: not key.startswith("$"))
states = st.dictionaries(
    keys | st.sampled_from(["weights", "optimiser", "a.b", "a"]),
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_size=5,
)


@pytest.mark.slow
@given(states)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_round_trip_is_exact(tmp_path, state):
    write_checkpoint(tmp_path / "step-1", state)
    assert_same(state, read_checkpoint(tmp_path / "step-1"))


@pytest.mark.parametrize("inline", [0, 10**9])
def test_small_and_large_arrays_are_exact(tmp_path, monkeypatch, inline):
    monkeypatch.setattr(serialisation, "INLINE_BYTES", inline)
    state = example()
    write_checkpoint(tmp_path / "step-1", state)
    assert_same(state, read_checkpoint(tmp_path / "step-1"))
    assert (tmp_path / "step-1" / "replay-observation.npy").exists() == (inline == 0)


def test_same_state_gives_the_same_bytes(tmp_path):
    for step in (1, 2):
        write_checkpoint(tmp_path / f"step-{step}", example())
    for path in (tmp_path / "step-1").iterdir():
        assert path.read_bytes() == (tmp_path / "step-2" / path.name).read_bytes()


def test_shared_and_strided_tensors_are_copied(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    write_checkpoint(tmp_path / "step-1", {"weights": {"a": whole, "b": whole, "t": whole.T}})
    weights = read_checkpoint(tmp_path / "step-1")["weights"]
    assert torch.equal(weights["t"], whole.T)
    assert torch.equal(weights["a"], weights["b"])


@pytest.mark.parametrize(
    "bad", [{"a": (1, 2)}, {"a": {1: 2}}, {"a": {"$x": 1}}, {"a": object()}, {"a": {3, 4}}]
)
def test_other_than_plain_data_is_refused(tmp_path, bad):
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        write_checkpoint(tmp_path / "step-1", bad)
    assert list(tmp_path.iterdir()) == []


def test_object_arrays_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"ndarray at replay\.infos"):
        write_checkpoint(tmp_path / "step-1", {"replay": {"infos": np.array([{}], object)}})


def members():
    return ["weights.safetensors", "optimiser.safetensors", "replay-observation.npy", "state.json"]


@pytest.mark.parametrize("name", [*members(), "manifest.json"])
def test_every_flipped_bit_is_detected(tmp_path, name):
    write_checkpoint(tmp_path / "step-1", example())
    path = tmp_path / "step-1" / name
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in {0, len(good) - 1, *rng.integers(len(good), size=40).tolist()}:
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=name.split("-")[0]):
            read_checkpoint(tmp_path / "step-1")
    path.write_bytes(good)
    assert_same(example(), read_checkpoint(tmp_path / "step-1"))


@pytest.mark.parametrize("name", [*members(), "manifest.json"])
def test_truncated_empty_and_missing_members_are_detected(tmp_path, name):
    write_checkpoint(tmp_path / "step-1", example())
    path = tmp_path / "step-1" / name
    good = path.read_bytes()
    for size in (0, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(CheckpointError, match=r"truncated|damaged"):
            read_checkpoint(tmp_path / "step-1")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"is missing|holds no manifest\.json"):
        read_checkpoint(tmp_path / "step-1")


def forge(folder, name, content):
    """Replaces a member and makes the manifest agree, as an attacker would."""
    import hashlib

    (folder / name).write_bytes(content)
    facts = json.loads((folder / "manifest.json").read_bytes())["members"]
    facts[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "manifest.json").write_bytes(checkpoint._manifest(facts, checkpoint.FORMAT, "0"))


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("name", [*members(), "new.npy", "new.safetensors"])
def test_a_pickle_is_refused_and_never_executed(tmp_path, monkeypatch, name):
    import io
    import pickle

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "step-1"
    write_checkpoint(folder, example())
    stream = io.BytesIO()
    npy.write_array(stream, np.array([Bomb()], object), allow_pickle=True)
    payloads = [pickle.dumps(Bomb())] + ([stream.getvalue()] if name.endswith("npy") else [])
    for payload in payloads:
        forge(folder, name, payload)
        with pytest.raises(CheckpointError, match=r"contains a pickle|damaged"):
            read_checkpoint(folder)
        assert not (tmp_path / "exploded").exists()


def test_a_header_may_not_claim_more_memory_than_the_file_has(tmp_path):
    import io

    write_checkpoint(tmp_path / "step-1", example())
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    npy.write_array_header_1_0(stream, header)
    forge(tmp_path / "step-1", "replay-observation.npy", stream.getvalue())
    with pytest.raises(CheckpointError, match="is no npy file"):
        read_checkpoint(tmp_path / "step-1")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", ".hidden", ""])
def test_members_outside_of_the_folder_are_refused(tmp_path, name):
    write_checkpoint(tmp_path / "step-1", example())
    facts = {name: {"sha256": "0" * 64, "size": 0}}
    manifest = checkpoint._manifest(facts, checkpoint.FORMAT, "0")
    (tmp_path / "step-1" / "manifest.json").write_bytes(manifest)
    with pytest.raises(CheckpointError, match="not a plain file"):
        read_checkpoint(tmp_path / "step-1")


def test_links_are_refused(tmp_path):
    write_checkpoint(tmp_path / "step-1", example())
    weights = tmp_path / "step-1" / "weights.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="not a plain file"):
        read_checkpoint(tmp_path / "step-1")


@pytest.mark.parametrize(
    "state",
    [
        b"[]",
        b"{}",
        b'{"state": 3}',
        b'{"state": {"a": {"$array": "x.npy"}}}',
        b'{"state": {"a": {"$npy": "?"}}}',
        b"[" * 100_000,
    ],
)
def test_a_foreign_state_is_refused(tmp_path, state):
    write_checkpoint(tmp_path / "step-1", example())
    forge(tmp_path / "step-1", "state.json", state)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_checkpoint(tmp_path / "step-1")


def test_checkpoints_of_other_versions_and_programs_are_refused(tmp_path):
    folder = tmp_path / "step-1"
    with pytest.raises(CheckpointError, match=r"holds no manifest\.json"):
        read_checkpoint(folder)
    write_checkpoint(folder, example())
    (folder / "manifest.json").write_bytes(checkpoint._manifest({}, 9, "9.0.0"))
    with pytest.raises(
        CheckpointError, match=r"step-1 was written by rlkit-suite 9\.0\.0 .* read it with"
    ):
        read_checkpoint(folder)
    (folder / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match="is foreign"):
        read_checkpoint(folder)
    (tmp_path / "model.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="is a file"):
        read_checkpoint(tmp_path / "model.zip")


def test_latest_falls_back_to_the_previous_one(tmp_path):
    assert load_latest(tmp_path / "none") is None
    for step in (5, 10):
        write_checkpoint(tmp_path / f"step-{step}", {"step": step})
    assert load_latest(tmp_path) == (10, {"step": 10})
    (tmp_path / "step-10" / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match="step-10.*Falling back to step 5"):
        assert load_latest(tmp_path) == (5, {"step": 5})
    (tmp_path / "step-5" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_latest(tmp_path)


def test_prune_keeps_the_last_two_the_best_and_later_ones(tmp_path):
    for step in (5, 10, 20, 100, 200):
        write_checkpoint(tmp_path / f"step-{step}", {"step": step})
    (tmp_path / ".step-7.staged").mkdir()
    prune(tmp_path, newest=100, best=5)
    assert saved_steps(tmp_path) == [5, 20, 100, 200]
    assert not list(tmp_path.glob(".*"))


def test_an_existing_checkpoint_is_replaced(tmp_path):
    for value in (1, 2):
        write_checkpoint(tmp_path / "step-1", {"value": value})
    assert read_checkpoint(tmp_path / "step-1") == {"value": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from rlkit.io.checkpoint import CheckpointError, write_checkpoint
folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
write_checkpoint(folder / "step-1", {"replay": np.zeros(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_checkpoint(folder / "step-2", {"replay": np.zeros(100_000)})
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"cannot save {tmp_path / 'step-2'}: File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert load_latest(tmp_path)[0] == 1


ENDLESS = """
import itertools, sys
from pathlib import Path
import numpy as np
from rlkit.io.checkpoint import prune, write_checkpoint
folder = Path(sys.argv[1])
print("ready", flush=True)
for step in itertools.count(int(sys.argv[2])):
    write_checkpoint(folder / f"step-{step}", {"replay": np.full(20_000, step), "step": step})
    prune(folder, newest=step)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    step = 0
    for _ in range(8):
        command = [sys.executable, "-c", ENDLESS, str(tmp_path), str(step)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.05 + rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found, state = load_latest(tmp_path)
        assert found >= step
        assert (state["replay"] == found).all()
        step = found + 1


@given(st.dictionaries(st.text(min_size=1), tensors, max_size=6))
@settings(max_examples=40, deadline=None)
def test_tensors_are_written_as_the_library_writes_them(named):
    stream = io.BytesIO()
    serialisation.write_tensors(stream, named)
    assert stream.getvalue() == safetensors.torch.save(named)


def test_saving_copies_no_tensor(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a tensor was copied")

    monkeypatch.setattr(torch.Tensor, "clone", refuse)
    monkeypatch.setattr(safetensors.torch, "save", refuse)
    large = torch.ones(3_000_000)
    tracemalloc.start()
    write_checkpoint(tmp_path / "step-1", {"weights": {"a": large}, "optimiser": {"m": large}})
    write_archive(tmp_path / "a.zip", {"weights": {"a": large}})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # of 12 MB
