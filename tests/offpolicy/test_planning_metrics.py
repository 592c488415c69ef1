"""The imagination gap, against numbers worked out by hand."""

import copy

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger

from rlkit.goals import DistanceRule
from rlkit.offpolicy.planning_metrics import Decision, PlanningMetrics
from rlkit.planning import Plan, PredictedOutcome

RULE = DistanceRule(0.5)


def plan(count, score=0.0, rejected=0):
    zeros = torch.zeros(count)
    return Plan(
        sequence=torch.zeros(count, 3, 1),
        state=(),
        score=zeros + score,
        spread=zeros,
        rejected=zeros.long() + rejected,
        failed=zeros.bool(),
        samples=10,
        iterations=1,
        milliseconds=1.0,
    )


def decide(report, rewards, success=None, fallback=None, first=None, **details):
    count = len(rewards)
    predicted = PredictedOutcome(
        torch.tensor(rewards, dtype=torch.float32),
        None if success is None else torch.tensor(success),
        torch.zeros(count),
    )
    no = np.zeros(count, np.bool_)
    failed = no if fallback is None else np.array(fallback)
    decision = Decision(np.zeros((count, 1)), (), plan(count, **details), predicted, failed)
    report.add_decision(decision, no if first is None else np.array(first))


def step(report, reward, done=None, achieved=None):
    count = len(reward)
    observation = None
    if achieved is not None:
        observation = {"achieved_goal": np.array(achieved), "desired_goal": np.zeros((count, 1))}
    dones = np.zeros(count, np.bool_) if done is None else np.array(done)
    report.add_step(
        np.array(reward, np.float32), observation, dones, None if observation is None else RULE
    )


def logged(report):
    logger = Logger(None, [])
    report.write(logger)
    return dict(logger.name_to_value)


def test_a_segment_is_compared_when_the_horizon_is_over():
    report = PlanningMetrics(1, 3)
    for reward in (1.0, 2.0, 4.0):
        decide(report, [[10.0, 10.0, 10.0]] if reward == 1.0 else [[99.0, 99.0, 99.0]])
        assert "imagination/gap" not in logged(copy.deepcopy(report))
        step(report, [reward])
    found = logged(report)
    assert found["imagination/return_imagined"] == 30
    assert found["imagination/return_real"] == 7
    assert found["imagination/gap"] == 23
    assert "imagination/gap" not in logged(report)


def test_an_episode_that_ends_compares_what_there_was():
    report = PlanningMetrics(2, 3)
    decide(report, [[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    step(report, [0.0, 0.0])
    decide(report, [[9.0, 9.0, 9.0]] * 2)
    step(report, [0.5, 0.0], done=[True, False])
    assert logged(report)["imagination/gap"] == 3 - 0.5
    decide(report, [[7.0, 7.0, 7.0]] * 2, first=[True, False])
    step(report, [0.0, 1.0])
    assert logged(report)["imagination/gap"] == 15 - 1


def test_success_is_compared_at_the_end_of_a_segment():
    report = PlanningMetrics(2, 2)
    decide(report, [[0.0, 0.0]] * 2, success=[[0.0, 0.75], [0.0, 0.5]])
    step(report, [-1.0, -1.0], achieved=[[9.0], [9.0]])
    step(report, [0.0, -1.0], achieved=[[0.1], [9.0]])
    found = logged(report)
    assert found["imagination/success_real"] == 0.5
    assert found["imagination/success_imagined"] == 0.625
    assert found["imagination/success_gap"] == pytest.approx(0.125)


def test_a_segment_of_a_cut_episode_is_not_compared():
    report = PlanningMetrics(1, 2)
    decide(report, [[5.0, 5.0]])
    step(report, [1.0])
    decide(report, [[1.0, 1.0]], first=[True])
    step(report, [0.0])
    step(report, [0.0])
    assert logged(report)["imagination/gap"] == 2


def test_fallbacks_are_counted_and_predict_nothing():
    report = PlanningMetrics(2, 1)
    decide(report, [[np.nan], [3.0]], fallback=[True, False], score=2.0, rejected=4)
    step(report, [1.0, 1.0])
    found = logged(report)
    assert found["imagination/gap"] == 2
    assert (found["world/nonfinite"], found["world/fallbacks"]) == (8, 1)
    assert found["planner/score"] == 2
    again = logged(report)
    assert (again["world/nonfinite"], again["world/fallbacks"]) == (0, 0)


def test_a_restored_report_goes_on():
    one = PlanningMetrics(2, 3)
    decide(one, [[1.0, 2.0, 3.0]] * 2, success=[[0.5, 0.5, 0.5]] * 2)
    step(one, [0.0, 1.0], done=[True, False], achieved=[[0.0], [1.0]])
    other = PlanningMetrics(2, 3)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for report in (one, other):
        decide(report, [[4.0, 4.0, 4.0]] * 2, first=[True, False])
        for _ in range(2):
            step(report, [0.0, 0.0], achieved=[[0.0], [1.0]])
    clock = "planner/milliseconds"
    found = [{k: v for k, v in logged(r).items() if k != clock} for r in (one, other)]
    assert found[0] == found[1]
