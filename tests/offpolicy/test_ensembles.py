"""Ensembles of critics: random subsets in targets, what actors maximise, quantiles."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_batches import A, F, G, random_batch, same
from small_envs import Recorder

from rlkit.agents import SAC, TD3, TQC, Sizes
from rlkit.goals import DistanceRule
from rlkit.offpolicy.transitions import TD_ERROR

SMALL = {"net_arch": (16, 16), "batch_size": 8, "entropy_in_target": False}
REDQ = {"critics": 5, "target_critics": 2, "actor_critics": "mean"}
TRUNCATED = {"critics": 3, "quantiles": 7, "actor_critics": "mean"}
RECURRENT = {"encoder": {"name": "gru", "hidden": 8}, "window": 4, "goal_mode": "late"}
BOTH = pytest.mark.parametrize("algorithm", [SAC, TD3])


def new(algorithm, seed=0, sizes=None, rule=None, **options):
    options = {**SMALL, **options}
    if algorithm is TD3:
        del options["entropy_in_target"]
        options |= {"policy_delay": 1, "target_policy_noise": 0.0}
    config = algorithm.learner_class.config_class(**options)
    return algorithm.learner_class(config, sizes or Sizes(F, G, A), seed=seed, rule=rule)


def windows(seed=0, steps=1):
    batch = random_batch(SAC, seed, 8, steps)
    batch["previous_action"] = random_batch(SAC, seed + 100, 8, steps + 1)["action"]
    batch["is_first"] = np.zeros((8, steps + 1), np.bool_)
    return batch


def target_and_values(learner, rows):
    """The target of rows, and every target critic's outputs `(N, R, ...)` behind it."""
    noise = torch.zeros(8, A)
    if isinstance(learner, SAC.learner_class):
        action, _ = learner._sample(learner.state["actor"], rows.actor.next, noise)
        target = learner._target(learner.state, rows, torch.zeros(1), noise)
    else:
        actor = learner.state["actor_target"]
        action = learner.actor(actor, rows["actor_target"].next)[0].tanh()
        target = learner._target(learner.state, rows, noise)
    inputs = (*rows["critic_target"].next, action)
    return target, learner.critic(learner.state["critic_target"], inputs)


def rows_of(learner, **batch):
    batch = learner.prepare({**windows(), **batch})
    return learner.transitions(learner.state, batch, *learner.networks)


@BOTH
def test_targets_are_the_minimum_of_the_drawn_critics(algorithm):
    learner = new(algorithm, **REDQ)
    for drawn in ([0, 3], [4, 1]):
        rows = rows_of(learner, target_critics=np.array(drawn))
        target, values = target_and_values(learner, rows)
        lowest = torch.stack([values[n, :, 0] for n in drawn]).min(0).values
        torch.testing.assert_close(target, rows.reward + rows.discount * lowest)
    rows = rows_of(learner)
    target, values = target_and_values(learner, rows)
    torch.testing.assert_close(target, rows.reward + rows.discount * values[..., 0].min(0).values)


@BOTH
def test_every_update_draws_a_subset_of_its_own(algorithm):
    learner, seen = new(algorithm, **REDQ), []
    for_target = learner.transitions

    def transitions(state, batch, *networks):
        seen.append(tuple(sorted(batch["target_critics"].tolist())))
        return for_target(state, batch, *networks)

    learner.transitions = transitions
    for seed in range(150):
        learner.update(windows(seed % 3))
    assert set(seen) == set(itertools.combinations(range(5), 2))


@BOTH
def test_nothing_is_drawn_where_all_critics_count(algorithm):
    learner = new(algorithm, critics=5)
    rows = rows_of(learner)
    assert rows.target_critics is None
    before = learner.generator.get_state()
    learner.draw_noise(8)
    expected = learner.generator.get_state()
    learner.generator.set_state(before)
    learner.update(windows())
    assert torch.equal(learner.generator.get_state(), expected)


@pytest.mark.parametrize("chosen", ["min", "mean", "first"])
@pytest.mark.parametrize(("algorithm", "quantiles"), [(SAC, 0), (SAC, 4), (TD3, 0)])
def test_the_actor_maximises_what_was_chosen(algorithm, chosen, quantiles):
    more = {"quantiles": quantiles} if quantiles else {}
    learner = new(algorithm, critics=3, actor_critics=chosen, **more)
    rows, state = rows_of(learner), learner.state
    if algorithm is SAC:
        rest = torch.zeros(1), torch.zeros(8, A)
        action = learner._sample(state["actor"], rows.actor.current, rest[1])[0]
    else:
        rest = ()
        action = learner.actor(state["actor"], rows.actor.current)[0].tanh()
    _, metrics = learner.actor_loss(state["actor"], state["critic"], rows, *rest)
    values = learner.critic(state["critic"], (*rows.critic.current, action)).numpy().mean(-1)
    expected = {"min": values.min(0), "mean": values.mean(0), "first": values[0]}[chosen]
    assert float(metrics["actor_loss"]) == pytest.approx(-expected.mean(), rel=1e-5)


@pytest.mark.parametrize("recurrent", [{}, {**RECURRENT, "encoder_sharing": "joint"}])
def test_policies_of_sac_may_wait_for_several_updates_of_the_critics(recurrent):
    learner, moved = new(SAC, policy_delay=3, **REDQ, **recurrent), []
    for seed in range(6):
        before = {name: value.clone() for name, value in learner.state.items()}
        names, _ = learner.update(windows(seed, steps=4))
        changed = {name for name, value in learner.state.items() if not value.equal(before[name])}
        assert {"critic", "critic_target"} <= changed
        assert ("actor" in changed) == ("log_ent_coef" in changed) == ("actor_loss" in names)
        moved.append("actor" in changed)
    assert moved == [False, False, True, False, False, True]


def test_quantile_targets_are_truncated_together_and_bounded():
    learner = new(SAC, rule=DistanceRule(1.0), gamma=0.5, **TRUNCATED)
    rows = replace(rows_of(learner), reward=torch.linspace(-3, 1, 8))
    target, quantiles = target_and_values(learner, rows)
    assert target.shape == (8, 3 * 5)
    for row in range(8):
        kept = np.sort(quantiles[:, row].numpy().ravel())[: 3 * 5]
        expected = float(rows.reward[row]) + float(rows.discount[row]) * kept
        np.testing.assert_allclose(target[row], expected.clip(-2, 0), rtol=1e-5, atol=1e-6)


def test_entropy_counts_in_every_quantile_of_a_target():
    learner = new(SAC, **{**TRUNCATED, "entropy_in_target": True})
    rows, noise, weight = rows_of(learner), torch.zeros(8, A), torch.tensor([0.3])
    with_entropy = learner._target(learner.state, rows, weight, noise)
    without = learner._target(learner.state, rows, 0 * weight, noise)
    log_prob = learner._sample(learner.state["actor"], rows.actor.next, noise)[1]
    bonus = (rows.discount * 0.3 * log_prob)[:, None].expand(-1, 15)
    torch.testing.assert_close(without - with_entropy, bonus, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (SAC, {**REDQ, "policy_delay": 2}),
        (TD3, REDQ),
        (SAC, TRUNCATED),
        (SAC, {**TRUNCATED, "target_critics": 2}),
    ],
    ids=["SAC-REDQ", "TD3-REDQ", "TQC", "TQC-REDQ"],
)
@pytest.mark.parametrize("recurrent", [{}, RECURRENT], ids=["", "gru"])
def test_training_continues_bit_for_bit(algorithm, options, recurrent):
    one, other = (new(algorithm, seed, **options, **recurrent) for seed in (3, 99))
    before = {name: value.clone() for name, value in one.weights().items()}
    for seed in range(3):
        _, values = one.update(windows(seed, steps=4))
        assert torch.isfinite(values).all()
    assert not same(before, one.weights())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in (one, other):
        for seed in range(3, 6):
            learner.update(windows(seed, steps=4))
    assert same(one.state, other.state)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "options"), [(SAC, REDQ), (TD3, REDQ), (SAC, TRUNCATED)])
def test_a_task_of_two_goals_is_learned(algorithm, options):
    """One step, in which the goal determines the better action; chance earns about 0."""
    rng = np.random.default_rng(0)
    learner = new(algorithm, sizes=Sizes(1, 1, A), learning_rate=3e-3, **options)
    for _ in range(400):
        goal = rng.choice([-1.0, 1.0], (64, 1)).astype(np.float32)
        action = rng.uniform(-1, 1, (64, A)).astype(np.float32)
        learner.update(
            {
                "observation": np.zeros((64, 2, 1), np.float32),
                "goal": goal[:, None],
                "action": action[:, None],
                "reward": 1 - 2 * ((action - 0.5 * goal) ** 2).mean(-1, keepdims=True),
                "discount": np.zeros((64, 1), np.float32),
                "mask": np.ones((64, 1), np.float32),
            }
        )
    goal = np.array([[-1.0], [1.0]], np.float32)
    zeros = np.zeros((2, 1), np.float32)
    action, _ = learner.act(zeros, goal, (), np.ones(2, np.bool_), explore=False)
    assert (1 - 2 * ((action - 0.5 * goal) ** 2).mean(-1)).min() > 0.8


def test_critics_give_their_quantiles(tmp_path):
    kwargs = {"n_quantiles": 6, "n_critics": 3, "net_arch": [8]}
    agent = SAC("MlpPolicy", Recorder(), policy_kwargs=kwargs, learning_starts=5, device="cpu")
    agent.learn(12)
    x, action = torch.randn(4, 3), torch.rand(4, 2)
    assert [tuple(found.shape) for found in agent.critic(x, action)] == [(4, 6)] * 3
    agent.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    assert torch.equal(loaded.critic(x, action)[0], agent.critic(x, action)[0])


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        (TD3, {"target_critics": 0}, "target_critics = 0 must be >= 1 or None"),
        (
            SAC,
            {"critics": 2, "target_critics": 3},
            "target_critics = 3 must be at most critics = 2",
        ),
        (TD3, {"actor_critics": "last"}, "actor_critics = 'last' must be one of"),
        (SAC, {"policy_delay": 0}, "policy_delay = 0 must be >= 1"),
        (SAC, {"quantiles": -1}, "quantiles = -1 must be >= 0"),
        (
            SAC,
            {"quantiles": 3, "top_quantiles_to_drop_per_net": 3},
            "top_quantiles_to_drop_per_net = 3 must be >= 0 and less than quantiles = 3",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(algorithm, settings, message):
    with pytest.raises(ValueError, match=message):
        new(algorithm, **settings)


def test_tqc_is_sac_with_quantiles(tmp_path):
    settings = {"net_arch": [8], "learning_starts": 5, "seed": 0, "device": "cpu"}
    agent = TQC("MlpPolicy", Recorder(), **settings).learn(20)
    same_as = {"quantiles": 25, "actor_critics": "mean"}
    other = SAC("MlpPolicy", Recorder(), **settings, **same_as).learn(20)
    assert same(agent.learner.state, other.learner.state)
    agent.save(tmp_path / "agent")
    assert same(TQC.load(tmp_path / "agent", device="cpu").learner.state, agent.learner.state)
    with pytest.raises(ValueError, match="quantiles = 0 must be >= 1"):
        TQC("MlpPolicy", Recorder(), quantiles=0)


def test_errors_of_quantiles_are_those_of_their_means():
    learner = new(SAC, **TRUNCATED)
    rows = rows_of(learner)
    target, _ = target_and_values(learner, rows)
    quantiles = learner.critic(learner.state["critic"], (*rows.critic.current, rows.action))
    expected = (quantiles.mean(-1) - target.mean(-1)).abs().mean(0)
    rows = replace(rows, reports_errors=True)
    _, metrics = learner.critic_loss(learner.state["critic"], rows, target)
    torch.testing.assert_close(metrics[TD_ERROR], expected)
