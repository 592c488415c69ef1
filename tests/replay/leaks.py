"""Where windows that hindsight relabelled with one goal still depend on the old goal."""

from __future__ import annotations

import numpy as np

from rlkit.goals import GoalRule
from rlkit.replay import Batch


def traces_of_old_goal(batch: Batch, original: Batch, rule: GoalRule) -> list[str]:
    """The fields of `batch` that the new goals, the achieved ones and the actions do not explain.

    Args:
        batch: Relabelled windows, before n-step sums.
        original: The same windows with their original goals.
        rule: The goal rule.
    """
    traces = set()
    for row in range(len(batch)):
        changed = batch.relabelled[row].any()
        expected = _under(original, row, batch.desired_goal[row, batch.burn_in], rule, changed)
        for name, values in expected.items():
            for i, value in values.items():
                if not np.array_equal(getattr(batch, name)[row, i], value):
                    traces.add(name)
    return sorted(traces)


def _under(original, row, goal, rule, changed):
    """What each field holds by record or observation, had the window pursued a goal."""
    records = range(original.mask.shape[1])
    names = ("desired_goal", "reward", "terminated", "mask", "previous_reward")
    if not changed:
        return {name: dict(enumerate(getattr(original, name)[row])) for name in names}
    achieved = original.observation["achieved_goal"][row]
    own_goal = original.desired_goal[row]
    fields = {name: {} for name in names}
    over = False
    for i in records:
        # A record before the episode's start is followed by an observation that is still a first.
        happened = (
            original.mask[row, i] if i >= original.burn_in else not original.is_first[row, i + 1]
        )
        after = achieved[i + 1][None]
        fields["desired_goal"][i] = goal
        fields["mask"][i] = bool(original.mask[row, i] and not over)
        fields["terminated"][i] = False
        if happened:
            fields["reward"][i] = np.float32(rule.reward(after, goal[None])[0])
            fell = original.terminated[row, i] and not rule.terminated(after, own_goal[i][None])[0]
            fields["terminated"][i] = bool(fell or rule.terminated(after, goal[None])[0])
        over |= fields["terminated"][i]
    for i in range(original.observation_count):
        reward = 0.0 if original.is_first[row, i] else rule.reward(achieved[i][None], goal[None])[0]
        fields["previous_reward"][i] = np.float32(reward)
    return fields
