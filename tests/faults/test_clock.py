"""A clock that jumps: durations come from a monotonic one, and results do not depend on it."""

import time

import pytest
from test_failing_environments import plan
from test_last_evaluation import weights

from rlkit.envs.make import make
from rlkit.experiment.train import train


@pytest.mark.parametrize("jump", [-86_400.0, 3_600.0])
def test_jumps_of_the_clock_change_nothing(tmp_path, monkeypatch, jump):
    train(plan("Failing", steps=40), make, tmp_path / "steady")
    real, calls = time.time, [0]

    def jumping():
        calls[0] += 1
        return real() + jump * (calls[0] % 3)

    monkeypatch.setattr(time, "time", jumping)
    outcome = train(plan("Failing", steps=40), make, tmp_path / "jumping")
    assert calls[0] > 0
    assert 0 <= outcome["wall_s"] < 60
    assert weights(tmp_path / "jumping") == weights(tmp_path / "steady")
