"""Memory that is refused: for the replay buffer before the training, for an update during it.

Estimates, limits of containers and the file on disk: tests/replay/test_footprint.py and
tests/replay/test_shared_and_disk.py.
"""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from test_failing_environments import plan

from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.experiment.train import resume, train
from rlkit.io.checkpoint import saved_steps
from rlkit.replay import footprint


@pytest.mark.parametrize("have", [10**15, 10**9, 3000])
def test_the_advice_is_always_less_than_what_was_refused(monkeypatch, have):
    monkeypatch.setattr(footprint, "available_bytes", lambda: have)
    need = footprint.Footprint(observations=8 * 10**9, hidden_state=0, rest=10**9)
    text = str(footprint.too_large(need, 1_000_000, None))
    found = re.search(r"lower buffer_size to ([\d,]+)|(no buffer_size fits)", text)
    assert found, text
    assert found[2] or 0 < int(found[1].replace(",", "")) < 1_000_000


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_an_update_without_memory_stops_with_a_checkpoint(tmp_path, monkeypatch, error):
    def refused(self, *arguments):
        if self.num_timesteps == 25:
            raise error
        update(self, *arguments)

    update = SAC.train
    with monkeypatch.context() as patch:
        patch.setattr(SAC, "train", refused)
        with pytest.raises(MemoryError, match=r"memory.*after step 25.*saved.*batch_size"):
            train(plan("Failing", steps=40), make, tmp_path / "run")
    assert saved_steps(tmp_path / "run" / "checkpoints") == [25]
    outcome = resume(tmp_path / "run", make, settings=["agent_options.batch_size=4"], trust=True)
    assert outcome["steps"] == 40


@pytest.mark.slow
def test_a_limit_of_the_process_is_one_line(tmp_path):
    arguments = ["--env", "failing_envs:Failing-v0", "--out", str(tmp_path / "run"), "--set"]
    settings = ["check_env=false", "device=cpu", "agent_options.buffer_size=400000000"]
    process = subprocess.run(
        [sys.executable, "-m", "rlkit", "train", *arguments, *settings],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    lines = [line for line in process.stderr.splitlines() if "error" in line]
    assert len(lines) == 1, process.stderr
    assert "lower buffer_size to" in lines[0]
    assert not (tmp_path / "run").exists()
