"""The arms of a recipe's evidence: the recipe as it is, and what it stands beside.

A recurrent result says little alone. The same recipe without its memory shows what the task hides,
and the same recipe without memory in the environment that hides nothing shows what there is to
reach; both get the same steps. This is the only place that knows which environment that is.
"""

from __future__ import annotations

from rlkit.experiment.plugins import load_agent
from rlkit.experiment.recipe import load_recipe

AGENT, RECURRENT, MEMORYLESS, ORACLE = "agent", "recurrent", "memoryless", "oracle"

FULL_STATE: dict[str, tuple[str, ...]] = {
    "cartpole-hidden-velocity": ("env=CartPole-v1", "env_options={}"),
    "cue-maze": ("env_options.visible_steps=1_000_000",),
    "fetch-reach-masked": ("env=FetchReach-v4", "env_options={}"),
    "hidden-goal-reach": ("env=rlkit/PlanarReach-v0", "env_options={}"),
    "mountain-car-hidden-velocity": ("env=MountainCarContinuous-v0", "env_options={}"),
    "pendulum-hidden-angle": ("env=Pendulum-v1", "env_options={}"),
    "pendulum-hidden-velocity": ("env=Pendulum-v1", "env_options={}"),
    "planar-push-hidden-velocity": (
        "env=rlkit/PlanarPush-v0",
        "env_options={damping = 3.0, friction = 0.15}",
    ),
    "point-maze-hidden-velocity": ("env=rlkit/PointMaze-U-v0", "env_options={damping = 0.3}"),
}
"""Settings that turn a recipe's environment into the one that hides nothing."""


def arm_names(recipe: str) -> tuple[str, ...]:
    """The arms that a recipe's evidence needs."""
    return (RECURRENT, MEMORYLESS, ORACLE) if recipe in FULL_STATE else (AGENT,)


def arm_settings(recipe: str, arm: str) -> tuple[str, ...]:
    """What changes a recipe into one of its arms, as `rlkit train --set` takes it.

    Raises:
        ValueError: If the recipe has no such arm.
    """
    if arm in (AGENT, RECURRENT):
        return ()
    if arm == MEMORYLESS:
        return _without_memory(recipe)
    if arm != ORACLE:
        known = ", ".join((AGENT, RECURRENT, MEMORYLESS, ORACLE))
        raise ValueError(f"unknown arm {arm!r}; known: {known}")
    if recipe not in FULL_STATE:
        raise ValueError(
            f"no oracle is known for the recipe {recipe!r}; add the environment that hides "
            f"nothing to FULL_STATE in runs/arms.py"
        )
    return (*_without_memory(recipe), *FULL_STATE[recipe])


def _without_memory(recipe: str) -> tuple[str, ...]:
    plan = load_recipe(recipe)
    settings: tuple[str, ...] = ("agent_options.encoder=none",)
    if "batch_size" in plan.agent_options:
        # The recipe counts windows of many steps; as a number of single steps it would be too few.
        usual = load_agent(plan.agent).learner_class.config_class.default_batch_size
        settings += (f"agent_options.batch_size={usual}",)
    return settings
