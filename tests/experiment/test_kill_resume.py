"""`runs/bench/kill_resume.py` in small: two kills of one agent, and a full disk."""

import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from bench_scripts import bench_fixture

bench = bench_fixture("kill_resume")


@pytest.fixture(scope="module")
def reference(bench, tmp_path_factory):
    """The kind of run, its undisturbed run, and how many seconds that took."""
    kind = bench.Kind("sac", "rlkit/PointMaze-U-v0", 8, 1600)
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    assert bench.finish(bench.start(kind.command(path)))[0] == 0
    return kind, path, time.monotonic() - began


@pytest.mark.slow
def test_a_run_killed_while_saving_and_in_between_ends_the_same(bench, reference, tmp_path):
    kind, whole, seconds = reference
    path = tmp_path / "run"
    process = bench.start(kind.command(path))
    while not any(path.glob("checkpoints/.step-*.staged")):
        assert process.poll() is None
        time.sleep(0.0002)
    process.send_signal(signal.SIGKILL)
    bench.finish(process)
    bench.kill(bench.start(bench.next_command(kind, path)), path, random.Random(1), seconds)
    code, errors = bench.finish(bench.start(bench.next_command(kind, path)))
    assert code == 0, errors
    assert bench.differences(path, whole) == []


@pytest.mark.slow
def test_a_run_that_met_a_full_disk_ends_the_same(bench, reference, tmp_path):
    kind, whole, _ = reference
    outcome = bench.with_full_disk(kind, tmp_path / "run", whole)
    assert outcome["exit_code_when_full"] == 2
    assert "File too large. Earlier checkpoints are untouched" in outcome["message"]
    assert outcome["leftovers"] == []
    assert outcome["exit_code_resumed"] == 0
    assert outcome["differences"] == []


def test_differences_would_be_noticed(bench, reference, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(reference[1], path)
    assert bench.differences(path, reference[1]) == []
    (curves,) = path.glob("events.out.tfevents.*")
    curves.write_bytes(curves.read_bytes() * 2)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join([*lines[:-2], lines[-1]]))
    weights = path / "checkpoints" / "step-1600" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    expected = ["weights.safetensors", "metrics.jsonl", "TensorBoard events"]
    assert bench.differences(path, reference[1]) == expected


def test_agents_with_memory_are_another_kind_of_run(bench):
    """Kills and resumptions of such agents take minutes; in small, tests/agents has them."""
    for kind in bench.KINDS:
        plain, gru = (replace(kind, encoder=name).command(Path("run")) for name in (None, "gru"))
        assert gru[gru.index("--encoder") + 1] == "gru"
        assert 'agent_options.start="stored"' in gru
        assert not {"--encoder", 'agent_options.start="stored"'} & set(plain)
