"""The arms of a recipe's evidence: the recipe as it is, and what it stands beside.

A recurrent result says little alone. The same recipe without its memory shows what the task hides,
and the same recipe without memory in the environment that hides nothing shows what there is to
reach; both get the same steps. Agents that see by a latent model stand beside others that see by
other models, or by the state itself; agents that plan stand beside one that learns without a model.
This is the only place that knows what is beside what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlkit.experiment.recipe import load_recipe
from rlkit.plugins import AGENTS

AGENT, RECURRENT, MEMORYLESS, ORACLE = "agent", "recurrent", "memoryless", "oracle"

FULL_STATE: dict[str, tuple[str, ...]] = {
    "cartpole-hidden-velocity": ("env=CartPole-v1", "env_options={}"),
    "cue-maze": ("env_options.visible_steps=1_000_000",),
    "fetch-reach-masked": ("env=FetchReach-v4", "env_options={}"),
    "hidden-goal-reach": ("env=rlkit/PlanarReach-v0", "env_options={}"),
    "latent-memory": (
        "env=rlkit/PointMaze-U-v0",
        "agent_options.latent=none",
        "agent_options.normalise=true",
    ),
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

FURTHER: dict[str, dict[str, tuple[str, ...]]] = {
    "pendulum-hidden-angle": {
        "critic sees no reward": ("agent_options.critic_sees_reward=false",),
    },
}
"""What a recipe with memory stands beside as well."""


def arm_names(recipe: str) -> tuple[str, ...]:
    """The arms that a recipe's evidence needs."""
    if recipe in BESIDE:
        return tuple(BESIDE[recipe])
    if recipe in FULL_STATE:
        return (RECURRENT, MEMORYLESS, ORACLE, *FURTHER.get(recipe, ()))
    return (AGENT,)


def arm_settings(recipe: str, arm: str) -> tuple[str, ...]:
    """What changes a recipe into one of its arms, as `rlkit train --set` takes it.

    Raises:
        ValueError: If the recipe has no such arm.
    """
    beside = BESIDE.get(recipe, {}) | FURTHER.get(recipe, {})
    if arm in beside:
        return beside[arm]
    if arm in (AGENT, RECURRENT):
        return ()
    if arm == MEMORYLESS:
        return _without_memory(recipe)
    if arm != ORACLE:
        known = ", ".join((AGENT, RECURRENT, MEMORYLESS, ORACLE, *beside))
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
        usual = AGENTS.load(plan.agent).learner_class.config_class.default_batch_size
        settings += (f"agent_options.batch_size={usual}",)
    return settings


_SCALED = "agent_options.normalise=true"  # codes of models without a prior have no scale
_NO_LATENT = ("agent_options.latent=none", _SCALED)


def _seen(recipe: str, batch: int, *state: str) -> dict[str, tuple[str, ...]]:
    """The same pictures through other models, and the state instead.

    Args:
        recipe: Its latent model is a VAE.
        batch: Windows per update where all pictures of a batch are encoded anew, fewer than else.
        state: What turns the environment into the one that shows the state.
    """
    vae = load_recipe(recipe).agent_options["latent"]
    same = _inline({key: vae[key] for key in ("dims", "spatial", "hidden") if key in vae})
    untrained = (
        "agent_options.pretraining.steps=1",
        "agent_options.pretraining.learning_rate=1e-9",
    )
    latent = "agent_options.latent="
    return {
        "vae": (),
        "state": (*state, *_NO_LATENT),
        "pca": (latent + f"{{name = 'pca', dims = {max(vae['dims'], 32)}}}", _SCALED),
        "autoencoder": (latent + f"{{name = 'autoencoder', {same}}}", _SCALED),
        "random encoder": (*untrained, _SCALED),
        "cnn end to end": (
            latent + "{name = 'autoencoder', dims = 32, squash = true}",
            "agent_options.joint=true",
            "agent_options.reconstruction=0.0",
            f"agent_options.batch_size={batch}",
        ),
    }


def _model_free(recipe: str, steps: int, *changes: str) -> tuple[str, ...]:
    """The agent of another recipe in the place of one that plans, without memory."""
    plan = load_recipe(recipe, [*_without_memory(recipe), *changes])
    return (
        f"steps={steps}",
        f"agent={plan.agent}",
        f"agent_options={{{_inline(plan.agent_options)}}}",
    )


def _inline(options: Mapping[str, Any]) -> str:
    """Settings as they stand in one line of a recipe."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())


_HINDSIGHT, _IMAGINED = "agent_options.replay.hindsight=", "agent_options.imagination="
BESIDE: dict[str, dict[str, tuple[str, ...]]] = {
    "latent-goals": {
        "mix": (),
        "no hindsight": (_HINDSIGHT + "{original = 1.0}",),
        "future goals": (_HINDSIGHT + "{future = 0.8, original = 0.2}",),
        "imagined goals": (_HINDSIGHT + "{imagined = 0.8, original = 0.2}",),
        "mix, no skew": (_IMAGINED + "{source = 'visited'}",),
        "mix, prior": (_IMAGINED + "{source = 'prior'}",),
    },
    "pendulum-mpc": {
        "mpc": (),
        "sac": _model_free("pendulum-hidden-velocity", 2_000),
    },
    "pixel-maze": _seen("pixel-maze", 128, "env=rlkit/PointMaze-U-v0"),
    "pixel-reach": {
        **_seen("pixel-reach", 16, "env=rlkit/PlanarReach-v0", *_without_memory("pixel-reach")),
        "memoryless": _without_memory("pixel-reach"),
    },
    "reach-mpc": {
        "mpc": (),
        # One environment and an update per step, which take it the fewest steps.
        "sac": _model_free("planar-reach", 15_000, "agent_options.update_ratio=1.0"),
    },
}
"""The arms of recipes whose controls are no question of memory, the recipe as it is first."""
