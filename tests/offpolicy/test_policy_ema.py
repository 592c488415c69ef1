"""The average of the acting network's weights, against a naive one."""

import numpy as np
import pytest
import torch
from random_batches import A, F, G, random_batch, same

from rlkit.agents import DQN, SAC, TD3, Sizes
from rlkit.envs.make import make

SMALL = {"net_arch": (16, 16), "batch_size": 8, "learning_rate": 1e-2}
RECURRENT = {"encoder": {"name": "gru", "hidden": 8}, "window": 4, "goal_mode": "early"}


def new(algorithm, **options):
    config = algorithm.learner_class.config_class(**{**SMALL, **options})
    return algorithm.learner_class(config, Sizes(F, G, A), seed=0)


def batch_of(algorithm, seed, rows=6, steps=1):
    batch = random_batch(algorithm, seed, rows, steps)
    batch["previous_action"] = random_batch(algorithm, seed + 100, rows, steps + 1)["action"]
    batch["is_first"] = np.zeros((rows, steps + 1), np.bool_)
    return batch


def acts(learner, batch, explore=False):
    x, goal = batch["observation"][:, 0], batch["goal"][:, 0]
    first = np.ones(len(x), np.bool_)
    return learner.act(x, goal, learner.initial(len(x)), first, explore=explore)[0]


@pytest.mark.parametrize("options", [{}, RECURRENT], ids=["", "recurrent"])
@pytest.mark.parametrize("algorithm", [SAC, TD3, DQN], ids=lambda one: one.__name__)
def test_deterministic_actions_are_those_of_the_average(algorithm, options):
    learner, plain = (new(algorithm, policy_ema=ema, **options) for ema in (0.8, 0.0))
    name, seen = learner.acting, []
    for seed in range(12):
        for each in (learner, plain):
            each.update(batch_of(algorithm, seed, steps=4 if options else 1))
        seen.append(plain.state[name].clone())
    assert same(learner.state, plain.state)
    expected = seen[0]
    for count, weights in enumerate(seen[1:], 2):
        rate = max(0.2, 1 / count)
        expected = (1 - rate) * expected + rate * weights
    assert torch.allclose(learner.average.weights, expected, atol=1e-6)
    assert not torch.allclose(learner.average.weights, learner.state[name], atol=1e-4)

    batch = batch_of(algorithm, 50, rows=40)
    own = learner.state[name]
    averaged = acts(learner, batch)
    assert learner.state[name] is own
    plain.state[name].copy_(expected)
    assert np.allclose(acts(plain, batch), averaged, atol=1e-5)
    if algorithm is not DQN:  # whose best actions need not differ
        plain.state[name].copy_(own)
        assert not np.allclose(acts(plain, batch), averaged, atol=1e-4)


def test_exploring_actions_are_those_of_the_network_itself():
    learner, plain = new(SAC, policy_ema=0.9), new(SAC)
    for seed in range(5):
        for each in (learner, plain):
            each.update(batch_of(SAC, seed))
    batch = batch_of(SAC, 9)
    assert np.array_equal(acts(learner, batch, True), acts(plain, batch, True))


def test_weights_without_an_average_load_and_begin_one():
    plain, learner = new(SAC), new(SAC, policy_ema=0.99)
    plain.update(batch_of(SAC, 0))
    learner.load_state_dict(plain.state_dict())
    batch = batch_of(SAC, 1)
    assert np.array_equal(acts(learner, batch), acts(plain, batch))


def test_policies_of_sb3_act_by_the_average_and_loading_their_weights_replaces_it():
    env = make("rlkit/PointMaze-Open-v0")
    small = {"net_arch": [16], "learning_starts": 20, "batch_size": 16}
    agents = [
        SAC("MultiInputPolicy", env, policy_ema=0.95, learning_rate=1e-2, seed=seed, **small)
        for seed in (0, 1)
    ]
    for agent in agents:
        agent.learn(60)
    observation, _ = env.reset(seed=3)
    tensors = {key: torch.from_numpy(value[None]) for key, value in observation.items()}
    first, second = (agent.predict(observation, deterministic=True)[0] for agent in agents)
    with torch.no_grad():
        found = agents[0].policy(tensors, deterministic=True)[0].numpy()
    assert np.allclose(found, first, atol=1e-5)
    assert not np.allclose(first, second, atol=1e-3)
    agents[1].policy.load_state_dict(agents[0].policy.state_dict())
    learners = [agent.learner for agent in agents]
    assert torch.equal(learners[1].average.weights, learners[0].state["actor"])


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=rf"policy_ema = {value} must be in \[0, 1\)"):
        new(SAC, policy_ema=value)
