"""Files that grow, lie about their size, lead outside of their folder, or contain pickles."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy
from originals import ENV
from watch import watched

import rlkit
from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.train import resume
from rlkit.io import checkpoint
from rlkit.io.checkpoint import CheckpointError
from rlkit.latents import FittedLatent
from rlkit.world import World


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def header(shape, descr="<f4"):
    stream = io.BytesIO()
    npy.write_array_header_2_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def object_array():
    stream = io.BytesIO()
    npy.write_array(stream, np.array([Bomb()], object), allow_pickle=True)
    return stream.getvalue()


def safetensors(shape, end):
    text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return len(text).to_bytes(8, "little") + text


# Contents of members, with sums in the manifest that agree: only the content itself is hostile.
MEMBERS = {
    "a pickle as weights": ("weights.safetensors", pickle.dumps(Bomb())),
    "a pickle as an array": ("a.npy", object_array()),
    "a pickle as state": ("state.json", pickle.dumps(Bomb())),
    "weights of 4 TB": ("weights.safetensors", safetensors([10**12], 4 * 10**12)),
    "weights that lie about their end": ("weights.safetensors", safetensors([10], 4 * 10**12)),
    "a header of weights of 2^60 bytes": ("weights.safetensors", (2**60).to_bytes(8, "little")),
    "an array of 4 TB": ("a.npy", header((10**12,)) + bytes(8)),
    "an array of negative sides": ("a.npy", header((-1, -2)) + bytes(8)),
    "an array of empty numbers": ("a.npy", header((10**12,), "|V0")),
    "an array with a long header": ("a.npy", header((1,), [(f"f{i}", "<f4") for i in range(9999)])),
    "a deep state": ("state.json", b'{"state": ' + b'{"a": ' * 50_000 + b"1" + b"}" * 50_001),
    "a deep list": ("state.json", b"[" * 10**6),
    "a long number": ("state.json", b'{"state": {"a": ' + b"9" * 10**6 + b"}}"),
    "a state of 7 MB, where 1 MB is the limit": (
        "state.json",
        b'{"state": {"a": [' + b"0," * 3_500_000 + b"0]}}",
    ),
    "an array that is not there": ("state.json", b'{"state": {"a": {"$array": "../../x.npy"}}}'),
    "a tensor that is not there": (
        "state.json",
        b'{"state": {"a": {"$tensor": ["/etc/passwd", "a"]}}}',
    ),
    "an inline pickle": ("state.json", json.dumps({"state": {"a": {"$npy": "gASVAAAA"}}}).encode()),
    "no state": ("state.json", b"{}"),
}


def forge(folder, name, content):
    """Replaces a member, and makes the manifest agree."""
    (folder / name).write_bytes(content)
    facts = json.loads((folder / "manifest.json").read_bytes())["members"]
    facts[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "manifest.json").write_bytes(checkpoint._manifest(facts, checkpoint.FORMAT, "0"))


def zipped(folder, target, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(target, "w", compression) as archive:
        for member in folder.iterdir():
            archive.write(member, member.name)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MEMBERS)
def test_members(name, here, originals, monkeypatch):
    monkeypatch.setattr(checkpoint, "JSON_LIMIT", 2**20)
    member, content = MEMBERS[name]
    with zipfile.ZipFile(originals.folder / "sac.zip") as archive:
        archive.extractall(here / "members")
    forge(here / "members", member, content)
    zipped(here / "members", here / "a.zip")
    for kind in ("latent", "world"):
        shutil.copytree(originals.folder / kind, here / kind)
        forge(here / kind, member, content)
    run = originals.run(here / "run")
    (step,) = (run / "checkpoints").iterdir()
    forge(step, member, content)
    loads = [
        lambda: SAC.load("a.zip"),
        lambda: rlkit.load("a.zip"),
        lambda: SAC.load(run),
        lambda: rlkit.load(run),
        lambda: resume(run, make, steps=60),
        lambda: FittedLatent.load("latent"),
        lambda: World.load("world"),
    ]
    for load in loads:
        with watched(here), pytest.raises(CheckpointError):
            load()


def compressed(here, path):
    zipped(here / "members", path, zipfile.ZIP_DEFLATED)


def named(name, path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")


def overlapping(path):
    """Many entries of the directory that all lead to the same bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("big", bytes(10**6))
        first = archive.infolist()[-1]
        for number in range(200):
            info = zipfile.ZipInfo(f"big{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(info, field, getattr(first, field))
            archive.filelist.append(info)
            archive._didModify = True


def linked(path):
    info = zipfile.ZipInfo("link.npy")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")


ARCHIVES = {
    "compressed zeros": lambda here: (
        forge(here / "members", "zeros.npy", header((10**7,)) + bytes(4 * 10**7)),
        compressed(here, here / "a.zip"),
    ),
    "compressed": lambda here: compressed(here, here / "a.zip"),
    "members that overlap": lambda here: overlapping(here / "a.zip"),
    "a member above": lambda here: named("../outside", here / "a.zip"),
    "a member at the root": lambda here: named("/tmp/outside-of-all", here / "a.zip"),
    "a member in a folder": lambda here: named("folder/a", here / "a.zip"),
    "a member of Windows": lambda here: named("..\\..\\outside", here / "a.zip"),
    "a member twice": lambda here: (
        here / "a.zip",
        pytest.warns(UserWarning, match="Duplicate"),
        named_twice(here / "a.zip"),
    ),
    "no manifest": lambda here: (
        (here / "members" / "manifest.json").unlink(),
        zipped(here / "members", here / "a.zip"),
    ),
    "an archive of Stable-Baselines3": lambda here: (
        shutil.rmtree(here / "members"),
        (here / "members").mkdir(),
        (here / "members" / "data").write_text('{"policy": {":serialized:": "gASV"}}'),
        (here / "members" / "policy.pth").write_bytes(pickle.dumps(Bomb())),
        zipped(here / "members", here / "a.zip"),
    ),
    "a pickle": lambda here: (here / "a.zip").write_bytes(pickle.dumps(Bomb())),
    "nothing": lambda here: (here / "a.zip").write_bytes(b""),
}


def named_twice(path):
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("state.json")
        archive.NameToInfo.clear()
        archive.writestr(info, b'{"state": {}}')


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name, here, originals, monkeypatch):
    with zipfile.ZipFile(originals.folder / "sac.zip") as archive:
        archive.extractall(here / "members")
    zipped(here / "members", here / "a.zip")
    ARCHIVES[name](here)

    def unpack(*arguments):
        raise AssertionError("something was unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", unpack)
    agent = SAC("MultiInputPolicy", make(ENV), buffer_size=200)
    loads = [
        lambda: SAC.load("a.zip"),
        lambda: rlkit.load("a.zip"),
        lambda: agent.load_replay_buffer("a.zip"),
    ]
    for load in loads:
        with watched(here), pytest.raises(CheckpointError):
            load()


def test_a_link_in_an_archive_is_a_file(here, originals):
    shutil.copy(originals.folder / "sac.zip", here / "a.zip")
    linked(here / "a.zip")
    with watched(here):
        SAC.load("a.zip")  # the manifest does not list it


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ".hidden", "a/b", "", "a\nb"])
def test_manifests_that_lead_outside(name, here, originals):
    for kind, load in (("latent", FittedLatent.load), ("world", World.load)):
        shutil.copytree(originals.folder / kind, here / kind)
        manifest = checkpoint._manifest({name: {"sha256": "0" * 64, "size": 0}}, 2, "0")
        (here / kind / "manifest.json").write_bytes(manifest)
        with watched(here), pytest.raises(CheckpointError, match="not a plain file"):
            load(here / kind)


@pytest.mark.parametrize("member", ["weights.safetensors", "state.json"])
def test_links_in_folders(member, here, originals):
    for kind, load in (("latent", FittedLatent.load), ("world", World.load)):
        shutil.copytree(originals.folder / kind, here / kind)
        (here / kind / member).rename(here / f"{kind}-{member}")
        (here / kind / member).symlink_to(here / f"{kind}-{member}")
        with watched(here), pytest.raises(CheckpointError, match="not a plain file"):
            load(here / kind)


def test_a_damaged_list_of_evaluations_is_named(here, originals):
    run = originals.run(here / "run")
    (run / "evaluations.json").write_text("[{")
    with watched(here), pytest.raises(ValueError, match=r"run/evaluations\.json is damaged"):
        resume(RunFolder.open(run).path, make, steps=60)


# Settings of a few bytes that describe something huge, each loaded in one process that is measured.
HUGE = {
    "net_arch": ("sac", {"net_arch": [200_000, 200_000]}),
    "one wide layer": ("sac", {"net_arch": [10**9]}),
    "critics": ("sac", {"critics": 10**7}),
    "encoder": ("sac", {"encoder": {"name": "gru", "hidden": 10**5}}),
    "deep encoder": ("sac", {"encoder": {"name": "lstm", "layers": 10**6, "hidden": 64}}),
    "buffer_size": ("sac", {"buffer_size": 10**15}),
    "stats_window_size": ("sac", {"stats_window_size": 10**15}),
    "world": ("mpc", {"world": {"name": "ensemble", "members": 10**7}}),
    "hidden layers of a world": ("mpc", {"world": {"name": "mdn_rnn", "mixtures": 10**8}}),
}
LOAD = """
import resource, sys, time
from rlkit.agents import MPC, SAC
from rlkit.latents import FittedLatent
from rlkit.world import World
SAC.load(sys.argv[1] + "/sac.zip"), MPC.load(sys.argv[1] + "/mpc.zip")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[3:]:
    path, began = f"{sys.argv[2]}/{name}", time.monotonic()
    load = {"sac": SAC.load, "mpc": MPC.load, "latent": FittedLatent.load, "world": World.load}
    try:
        load[name.split("-")[0]](path)
    except ValueError as error:
        print(name, "refused:", str(error)[-150:], f"{time.monotonic() - began:.1f} s")
    else:
        print(name, "loaded")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_settings_allocate_no_more_than_weights_justify(here, originals):
    names = []
    for index, (kind, options) in enumerate(HUGE.values()):
        originals.archive(
            here / f"{kind}-{index}.zip", kind, lambda s, o=options: s["agent"]["options"].update(o)
        )
        names.append(f"{kind}-{index}.zip")
    originals.archive(here / "sac-n.zip", "sac", lambda s: s["agent"].update(num_envs=10**12))
    for dims in (10**6, 10**9):
        originals.model(
            here / f"latent-{dims}", "latent", lambda s, d=dims: s["latent"]["model"].update(dims=d)
        )
        originals.model(
            here / f"world-{dims}",
            "world",
            lambda s, d=dims: s["world"]["model"].update(mixtures=d),
        )
        names += [f"latent-{dims}", f"world-{dims}"]
    originals.model(
        here / "latent-s", "latent", lambda s: s["latent"].update(shape=[10**5, 10**5, 3])
    )
    originals.model(
        here / "world-l", "world", lambda s: s["world"]["layout"].update(observation=10**9)
    )
    names += ["sac-n.zip", "latent-s", "world-l"]
    command = [sys.executable, "-c", LOAD, str(originals.folder), str(here), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, grown = done.stdout.splitlines()
    print(done.stdout)
    accepted = [line for line in lines if line.split()[1] != "refused:"]
    assert accepted == [f"sac-{list(HUGE).index('stats_window_size')}.zip loaded"]
    assert int(grown) < 400 * 1024  # KB
