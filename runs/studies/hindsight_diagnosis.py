"""Shows why plain hindsight learns FetchPush so slowly, and what changes it.

    python runs/studies/hindsight_diagnosis.py --steps 30000 --seed 0

Trains the recipe and plain hindsight with the same networks, steps and seed, and measures in both

- how many goals of the strategy "future" are achieved already before the action, by the age of the
  episode: such rows say nothing about how to move the achieved goal;
- the critic's values of the steps before the first contact, for the goal that the episode reached:
  where they are flat, nothing leads the policy to the contact;
- in how many episodes the policy, uniform random actions, and held ones move the achieved goal.

Writes `runs/results/hindsight-diagnosis.json` and its figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import training_runs
from figures import BLUE
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlkit.envs.make import make
from rlkit.experiment.evaluate import TEST_SEED, wilson
from rlkit.experiment.plots import remove_spines
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.session import Session
from rlkit.goals import GoalRule
from rlkit.goals.action_repeat import make_repeating
from rlkit.offpolicy.goal_diagnostics import relabelled

RECIPE = "fetch-push"
PLAIN = (
    "action_repeat=1",
    "agent_options.input_features=none",
    "agent_options.goal_input=absolute",
    "agent_options.imitation=0.0",
    "agent_options.explorer=none",
    "agent_options.replay={hindsight = 'future'}",
)
BEFORE = (10, 5, 3, 2, 1, 0)  # decisions before the first contact
AGES = ((0, 20), (20, 100), (100, 300), (300, 600))  # episodes, in the order of their start
HOLDS = (1, 5, 10)  # environment steps
EPISODES = 60
ORANGE = "#D55E00"
TOUCH = 0.01  # metres by which the object moves at a contact


def trained(settings: Sequence[str], steps: int, seed: int) -> Any:
    """An agent after some steps, with its replay buffer."""
    recipe = load_recipe(RECIPE, (*settings, f"steps={steps}"), seed=seed)
    agent = Session.build(recipe, make).agent
    agent.learn(steps)
    return agent


def episodes_of(agent: Any) -> list[NDArray[np.int64]]:
    """Slots of every stored episode's observations, in the order in which they began."""
    storage = agent.replay_buffer.storage
    found = []
    for env in range(storage.num_envs):
        first = 0
        while first < storage.cursor[env]:
            at = storage.flat(np.array([env]), np.array([first]))[0]
            length = int(storage.length[at])
            if length == 0:
                break
            found.append((first, env, at + np.arange(length + 1)))
            first += length + 1
    return [slots for _, _, slots in sorted(found, key=lambda row: row[:2])]


def already_achieved(agent: Any) -> list[float | None]:
    """Share of "future" goals that are achieved before the action, by the episodes' age."""
    storage, rule = agent.replay_buffer.storage, agent.replay_buffer.rule
    shares = []
    for slots in episodes_of(agent):
        achieved = storage.achieved(slots)
        now, later = np.triu_indices(len(slots), k=1)
        weight = 1.0 / (len(slots) - 1 - now)  # every step draws its goal uniformly
        hit = rule.success(achieved[now], achieved[later])
        shares.append(float((weight * hit).sum() / weight.sum()))
    groups = (shares[low:high] for low, high in AGES)
    return [float(np.mean(group)) if group else None for group in groups]


@torch.no_grad()
def values_before_contact(agent: Any) -> dict[int, float]:
    """Mean value by the number of environment steps before the object first moves."""
    storage, learner = agent.replay_buffer.storage, agent.learner
    slots, goals = [], []
    for episode in episodes_of(agent):
        achieved = storage.achieved(episode)
        moved = np.linalg.norm(achieved - achieved[0], axis=1) > TOUCH
        contact = int(moved.argmax()) - 1  # the step whose action moves it
        is_far = not agent.rule.success(achieved[:1], achieved[-1:])[0]
        if moved.any() and is_far and contact >= BEFORE[0]:
            slots.append([episode[contact - k] for k in BEFORE])
            goals.append(achieved[-1])
    table = np.array(slots, np.int64).reshape(-1, len(BEFORE))
    found = {}
    for column, k in enumerate(BEFORE):
        env, position = table[:, column] // storage.slots, table[:, column] % storage.slots
        batch = relabelled(agent, env, position, np.array(goals), agent.rule)
        values = learner.values(learner.prepare(agent.adapter.batch(batch)))
        found[k * agent.action_repeat] = float(values.mean())
    return found


def moved_episodes(rule: GoalRule, agent: Any | None, hold: int, seed: int) -> int:
    """Episodes of `EPISODES` in which the object moves further than the task's tolerance.

    Args:
        rule: The task's.
        agent: The policy; None for uniform random actions.
        hold: Environment steps for which every action is held.
        seed: Of the random actions and the episodes.
    """
    env = make_repeating(make, hold, load_recipe(RECIPE).env)
    rng, moved = np.random.default_rng(seed), 0
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=TEST_SEED + seed + episode)
        start, is_over = observation["achieved_goal"].copy(), False
        while not is_over:
            if agent is not None:
                action, _ = agent.predict(observation, deterministic=True)
            else:
                action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            observation, _, terminated, truncated, _ = env.step(action)
            is_over = terminated or truncated
        moved += not rule.success(observation["achieved_goal"][None], start[None])[0]
    env.close()
    return int(moved)


def figure_of(content: Mapping[str, Any]) -> Figure:
    """The three measures side by side."""
    figure = Figure(figsize=(11.4, 3.8), dpi=110, layout="constrained")
    shares, values, contact = figure.subplots(1, 3)
    for arm, colour in (("plain hindsight", ORANGE), ("recipe", BLUE)):
        row = content["arms"][arm]
        known = [100 * share for share in row["already_achieved"] if share is not None]
        names = [f"{low} to {high}" for low, high in AGES][: len(known)]
        shares.plot(names, known, "o-", color=colour, label=arm)
        steps, value = zip(*((-int(k), v) for k, v in row["values"].items()), strict=True)
        values.plot(steps, np.array(value) - value[-1], "o-", color=colour, label=arm)
    shares.set(ylim=(0, 100), xlabel="episode", title="future goals achieved already, %")
    values.set(xlabel="steps to the first contact", title="value, less that at contact")
    names, counts = zip(*content["moved"].items(), strict=True)
    bounds = np.array([wilson(count, EPISODES) for count in counts]).T * 100
    share = 100 * np.array(counts) / EPISODES
    contact.barh(names, share, xerr=abs(bounds - share), color=BLUE, alpha=0.8, capsize=3)
    contact.invert_yaxis()
    contact.set(xlim=(0, 100), title="episodes that move the block, %")
    shares.legend(frameon=False)
    for axes in (shares, values, contact):
        remove_spines(axes)
    return figure


def main() -> None:
    """Trains both arms, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    arms, moved = {}, {}
    for arm, settings in (("plain hindsight", PLAIN), ("recipe", ())):
        agent = trained(settings, args.steps, args.seed)
        values = values_before_contact(agent)
        arms[arm] = {"already_achieved": already_achieved(agent), "values": values}
        moved[f"policy, {arm}"] = moved_episodes(agent.rule, agent, agent.action_repeat, args.seed)
        print(arm, arms[arm], moved, flush=True)
    for hold in HOLDS:
        moved[f"random, held {hold}"] = moved_episodes(agent.rule, None, hold, args.seed)
    content = {
        "kind": "hindsight diagnosis",
        "recipe": RECIPE,
        "steps": args.steps,
        "seed": args.seed,
        "episodes": EPISODES,
        "versions": training_runs.versions(),
        "arms": arms,
        "moved": moved,
    }
    path = training_runs.RESULTS / "hindsight-diagnosis.json"
    training_runs.write_json(path, content)
    figure_of(content).savefig(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
