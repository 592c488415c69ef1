"""TD errors go back to the replay buffer that draws by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from resuming import assert_resumes

import rlkit.envs  # noqa: F401 registers the environments
from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.transitions import TD_ERROR, rows_of
from rlkit.replay.prioritised import SMALLEST

SMALL: dict[str, Any] = {"net_arch": [8], "batch_size": 16, "learning_starts": 30, "seed": 0}
GRU: dict[str, Any] = {"encoder": {"name": "gru", "hidden": 6}, "window": 5, "burn_in": 2}
AGENTS: list[tuple[Any, str]] = [
    (SAC, "rlkit/PointMaze-U-v0"),
    (TD3, "rlkit/PointMaze-U-v0"),
    (DQN, "rlkit/BitFlip-v0"),
]


def agent_of(algorithm: Any, env: str, sampler: Any = "prioritised", **options: Any) -> Any:
    replay = {"sampler": sampler, **options.pop("replay", {})}
    return algorithm("MultiInputPolicy", env, replay=replay, **SMALL, **options)


def record_errors(agent: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    """Rewards and errors of every critic loss, and what the replay buffer gets."""
    learner, replay = agent.learner, agent.replay_buffer
    losses: list[Any] = []
    given: list[Any] = []
    own, update = learner.critic_loss, replay.update_priorities

    def critic_loss(critic: Any, rows: Any, target: Any) -> Any:
        loss, metrics = own(critic, rows, target)
        if isinstance(agent, DQN):
            values = learner.critic(critic, rows.critic.current)
            q = learner.value_of(rows.action.reshape(len(rows.reward), -1), values)
        else:
            q = learner.critic(critic, (*rows.critic.current, rows.action))[..., 0]
        pairs = [zip(member, target.tolist(), strict=True) for member in q.detach().tolist()]
        error = np.mean([[abs(a - b) for a, b in pair] for pair in pairs], axis=0)
        losses.append((rows.reward.numpy().copy(), error))
        return loss, metrics

    def update_priorities(batch: Any, value: Any) -> None:
        given.append((batch, value))
        update(batch, value)

    monkeypatch.setattr(learner, "critic_loss", critic_loss)
    monkeypatch.setattr(replay, "update_priorities", update_priorities)
    return losses, given


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, GRU], ids=["single", "gru"])
@pytest.mark.parametrize(("algorithm", "env"), AGENTS)
def test_every_step_gets_its_own_error(
    algorithm: Any, env: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_of(algorithm, env, {"name": "prioritised", "alpha": 1.0}, **options).learn(40)
    losses, given = record_errors(agent, monkeypatch)
    agent.train(5)
    assert len(losses) == len(given) == 5
    expected = {}
    sampler, storage = agent.replay_buffer.sampler, agent.replay_buffer.storage
    for (reward, error), (batch, value) in zip(losses, given, strict=True):
        assert len(batch) == 16
        np.testing.assert_array_equal(reward, batch.reward[:, batch.burn_in :].reshape(-1))
        np.testing.assert_allclose(value.reshape(-1), error, rtol=1e-4, atol=1e-6)
        mask = batch.mask[:, batch.burn_in :]
        for row in range(16):
            own = value[row][mask[row]]
            for t in np.flatnonzero(mask[row]):
                step = int(batch.env[row]), int(batch.position[row] + t)
                expected[step] = 0.9 * own.max() + 0.1 * own.mean() + SMALLEST
    for (env_, position), priority in expected.items():
        leaf = sampler._tree.leaves[storage.flat(np.array(env_), np.array(position))]
        assert leaf == pytest.approx(priority, rel=1e-5)


@pytest.mark.parametrize("options", [{}, GRU], ids=["single", "gru"])
def test_weights_of_rows_are_importance_over_its_sum(options: Any) -> None:
    replay = {"already_achieved_weight": 0.2}
    agent = agent_of(SAC, "rlkit/PointMaze-U-v0", replay=replay, **options).learn(40)
    sampled = agent.replay_buffer.sample(16)
    assert len(np.unique(sampled.importance)) > 1
    learner: GradientLearner = agent.learner
    tensors = learner._tensors(agent.adapter.batch(sampled))
    weight = rows_of(tensors, learner.burn_in, learner.scaling)["weight"].reshape(16, -1).numpy()
    plain = (sampled.loss_weight() * sampled.importance[:, None])[:, sampled.burn_in :]
    np.testing.assert_allclose(weight, plain / plain.sum(), rtol=1e-5)


def test_an_update_that_is_skipped_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_of(SAC, "rlkit/PointMaze-U-v0").learn(40)
    _, given = record_errors(agent, monkeypatch)
    sample = agent.replay_buffer.sample

    def broken(count: int) -> Any:
        batch = sample(count)
        batch.reward[:16] = np.nan  # the first update's
        return batch

    monkeypatch.setattr(agent.replay_buffer, "sample", broken)
    agent.train(3)
    assert len(given) == 2
    assert all(np.isfinite(value).all() for _, value in given)


def test_uniform_replay_asks_for_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_of(SAC, "rlkit/PointMaze-U-v0", "uniform").learn(40)
    _, given = record_errors(agent, monkeypatch)
    agent.train(2)
    assert given == []
    assert agent.learner.td_error is None
    assert "importance" not in agent.adapter.batch(agent.replay_buffer.sample(4))


class Silent(SAC.learner_class):  # type: ignore[misc, name-defined]
    """Critics whose loss gives no errors."""

    def critic_loss(self, critic: Any, rows: Any, target: Any) -> Any:
        loss, metrics = super().critic_loss(critic, rows, target)
        return loss, {name: metric for name, metric in metrics.items() if name != TD_ERROR}


class SilentSAC(SAC):
    learner_class = Silent


def test_losses_without_errors_are_refused() -> None:
    with pytest.raises(ValueError, match="this agent's losses give none"):
        agent_of(SilentSAC, "rlkit/PointMaze-U-v0").learn(40)
    agent_of(SilentSAC, "rlkit/PointMaze-U-v0", "uniform").learn(40)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, GRU], ids=["single", "gru"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_it_resumes(tmp_path: Any, num_envs: int, options: Any) -> None:
    replay = {
        "sampler": {"name": "prioritised", "anneal": 5000},
        "already_achieved_weight": 0.2,
        "out_of_range_weight": 0.3,
        "hindsight": {"future": 0.5, "desired": 0.3, "original": 0.2},
    }
    setting = (SAC, make, "rlkit/PointMaze-U-v0", num_envs, {"replay": replay, **options})
    assert_resumes(tmp_path, *setting, rounds=(35, 20, 12))
