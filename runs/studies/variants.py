"""Variants of a recipe: the recipe itself and its controls.

A recurrent recipe is compared with the same recipe without its encoder, which shows what the task
hides, and with that agent in the fully observed environment, which shows what can be reached; all
get the same steps. Recipes with a latent model are compared with other latent models and with the
true state, recipes that plan with a model-free agent. Only this file defines the variants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlkit.experiment.recipe import load_recipe
from rlkit.plugins import AGENTS

AGENT, RECURRENT, FEED_FORWARD, ORACLE = "agent", "recurrent", "feed-forward", "oracle"

FULL_STATE: dict[str, tuple[str, ...]] = {
    "cartpole-hidden-velocity": ("env=CartPole-v1", "env_options={}"),
    "cue-maze": ("env_options.visible_steps=1_000_000",),
    "fetch-push-hidden-velocity": ("env=FetchPush-v4", "env_options={}"),
    "fetch-reach-masked": ("env=FetchReach-v4", "env_options={}"),
    "hidden-goal-reach": ("env=rlkit/PlanarReach-v0", "env_options={}"),
    "latent-recurrent": (
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
"""Settings that replace a recipe's environment by its fully observed counterpart."""

FURTHER: dict[str, dict[str, tuple[str, ...]]] = {
    "pendulum-hidden-angle": {
        "critic without reward": ("agent_options.critic_sees_reward=false",),
    },
}
"""Further variants of recurrent recipes."""


def variant_names(recipe: str) -> tuple[str, ...]:
    """The variants of a recipe."""
    if recipe in CONTROLS:
        return tuple(CONTROLS[recipe])
    if recipe in FULL_STATE:
        return (RECURRENT, FEED_FORWARD, ORACLE, *FURTHER.get(recipe, ()))
    return (AGENT,)


def variant_settings(recipe: str, variant: str) -> tuple[str, ...]:
    """Settings that turn a recipe into one of its variants, as `rlkit train --set` takes them.

    Raises:
        ValueError: If the recipe has no such variant.
    """
    controls = CONTROLS.get(recipe, {}) | FURTHER.get(recipe, {}) | ABLATIONS.get(recipe, {})
    if variant in controls:
        return controls[variant]
    if variant in (AGENT, RECURRENT):
        return ()
    if variant == FEED_FORWARD:
        return _without_encoder(recipe)
    if variant != ORACLE:
        known = ", ".join((AGENT, RECURRENT, FEED_FORWARD, ORACLE, *controls))
        raise ValueError(f"unknown variant {variant!r}; known: {known}")
    if recipe not in FULL_STATE:
        raise ValueError(
            f"no oracle is known for the recipe {recipe!r}; add its fully observed environment "
            f"to FULL_STATE in runs/studies/variants.py"
        )
    return (*_without_encoder(recipe), *FULL_STATE[recipe])


def _without_encoder(recipe: str) -> tuple[str, ...]:
    plan = load_recipe(recipe)
    settings: tuple[str, ...] = ("agent_options.encoder=none",)
    if "batch_size" in plan.agent_options:
        # The recipe counts windows of many steps; the same number of single steps is too few.
        usual = AGENTS.load(plan.agent).learner_class.config_class.default_batch_size
        settings += (f"agent_options.batch_size={usual}",)
    return settings


_SCALED = "agent_options.normalise=true"  # latents of models without a prior have no fixed scale
_NO_LATENT = ("agent_options.latent=none", _SCALED)


def _latent_models(recipe: str, batch: int, *state: str) -> dict[str, tuple[str, ...]]:
    """The recipe with other latent models, and with the true state.

    Args:
        recipe: A recipe whose latent model is a VAE.
        batch: Windows per update of the variant that encodes all pictures of a batch each time.
        state: Settings that replace the environment by one that observes the state.
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
    """The agent of another recipe, without its encoder, in place of the planning agent."""
    plan = load_recipe(recipe, [*_without_encoder(recipe), *changes])
    return (
        f"steps={steps}",
        f"agent={plan.agent}",
        f"agent_options={{{_inline(plan.agent_options)}}}",
    )


def _inline(options: Mapping[str, Any]) -> str:
    """The contents of an inline TOML table."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())


_HINDSIGHT = "agent_options.replay.hindsight="
_GENERATOR = "agent_options.goal_generator={name = 'imagined', source = "
CONTROLS: dict[str, dict[str, tuple[str, ...]]] = {
    "latent-goals": {
        "mix": (),
        "no hindsight": (_HINDSIGHT + "{original = 1.0}",),
        "future goals": (_HINDSIGHT + "{future = 0.8, original = 0.2}",),
        "imagined goals": (_HINDSIGHT + "{generated = 0.8, original = 0.2}",),
        "mix, no skew": (_GENERATOR + "'visited'}",),
        "mix, prior": (_GENERATOR + "'prior'}",),
    },
    "pendulum-mpc": {
        "mpc": (),
        "sac": _model_free("pendulum-hidden-velocity", 2_000),
    },
    "pixel-maze": _latent_models("pixel-maze", 128, "env=rlkit/PointMaze-U-v0"),
    "pixel-reach": {
        **_latent_models(
            "pixel-reach", 16, "env=rlkit/PlanarReach-v0", *_without_encoder("pixel-reach")
        ),
        "feed-forward": _without_encoder("pixel-reach"),
    },
    "reach-mpc": {
        "mpc": (),
        # One environment and one update per step need the fewest steps.
        "sac": _model_free("planar-reach", 15_000, "agent_options.update_ratio=1.0"),
    },
}
"""Variants of recipes whose controls are not about recurrence; the recipe itself is first."""

_OPTION = "agent_options."
_GOALS_OF_OTHERS = _HINDSIGHT + "{future = 0.6, desired = 0.2, original = 0.2}"
_ADDED = {
    "Fourier inputs": (_OPTION + "input_features=fourier",),
    "relative goals": (_OPTION + "goal_input=relative",),
    "imitation": (_OPTION + "imitation=0.3",),
    "goals of other episodes": (_GOALS_OF_OTHERS,),
    "relabel weights": (
        _OPTION + "replay.already_achieved_weight=0.1",
        _OPTION + "replay.out_of_range_weight=0.1",
    ),
    "explorer": (_OPTION + "explorer=0.5",),
}
"""What `fetch-push` has beyond a recipe of our own tasks, one by one."""

_ADDITIONS = {"recipe": (), **_ADDED, "all": tuple(part for row in _ADDED.values() for part in row)}

ABLATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "fetch-push": {
        "all": (),
        "inputs without features": (_OPTION + "input_features=none",),
        "frequencies 2 and 5": (_OPTION + "fourier_frequencies=[2.0, 5.0]",),
        "absolute goals": (_OPTION + "goal_input=absolute",),
        "no imitation": (_OPTION + "imitation=0.0",),
        "no action repeat": ("action_repeat=1",),
        "relabels of equal weight": (
            _OPTION + "replay.already_achieved_weight=1.0",
            _OPTION + "replay.out_of_range_weight=1.0",
        ),
        "no goals of other episodes": (
            _OPTION + "replay.hindsight={future = 0.8, original = 0.2}",
        ),
        "half of the future goals final": (
            _HINDSIGHT + "{future = 0.3, final = 0.3, desired = 0.2, original = 0.2}",
        ),
        "random actions held": (_OPTION + "random_action_repeat=5",),
        "no explorer": (_OPTION + "explorer=none",),
        "plain hindsight": (
            "action_repeat=1",
            _OPTION + "input_features=none",
            _OPTION + "goal_input=absolute",
            _OPTION + "imitation=0.0",
            _OPTION + "explorer=none",
            _OPTION + "replay={hindsight = 'future'}",
        ),
    },
    "planar-push": _ADDITIONS,
    "point-maze-large": _ADDITIONS,
    "waypoint": _ADDITIONS,
}
"""Recipes without one of their parts, or with one more; the recipe itself is first."""
