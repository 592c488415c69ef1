"""How many files a reader has to open to follow one step and one update."""

from importlib import import_module

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "most"), [("feed-forward", 17), ("recurrent", 25)])
def test_one_step_and_one_update_run_through_few_files(agent, most):
    trace = import_module("trace_step")
    files = trace.counted(trace.files_of_a_step(trace.AGENTS[agent]()))
    assert len(files) <= most, "\n".join(files)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["feed-forward", "recurrent"])
def test_the_trace_names_files_in_their_order(agent):
    trace = import_module("trace_step")
    files = list(trace.files_of_a_step(trace.AGENTS[agent]()))
    wanted = ["rlkit/offpolicy/algorithm.py", "rlkit/replay/replay_buffer.py", "agents/sac.py"]
    if agent == "recurrent":
        wanted += ["rlkit/latents/vae.py", "rlkit/networks/encoders/recurrent.py"]
    assert set(wanted) <= set(files)
    assert files[0] == "rlkit/offpolicy/algorithm.py"
    assert any(name.startswith("envs/") for name in files)
