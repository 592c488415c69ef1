"""How an agent is configured: by its learner's fields, and by SB3's names for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import HerReplayBuffer

from rlkit.latents import LATENTS
from rlkit.names import require_known
from rlkit.networks.encoders import ENCODERS, SequenceEncoder
from rlkit.offpolicy.interface import Interface, return_bounds
from rlkit.offpolicy.joint import joint_latent
from rlkit.offpolicy.learner import Learner
from rlkit.offpolicy.recurrent import Memory
from rlkit.offpolicy.settings import LearnerConfig
from rlkit.replay import ReplayBuffer

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

SHELL_OPTIONS = frozenset(
    {
        "buffer_size",
        "learning_starts",
        "train_freq",
        "gradient_steps",
        "update_ratio",
        "replay",
        "latent",
        "pretraining",
        "reward_source",
        "imagination",
        "stats_window_size",
    }
)
SDE = ("use_sde", "sde_sample_freq", "use_sde_at_warmup")
CNN_FEATURES = 50  # as in Yarats et al. 2021
CACHE = 4  # times the features: what is carried beyond that is no summary
REPLAY_OPTIONS = ("hindsight", "steps", "share", "directory")


def option_names(config: type[LearnerConfig]) -> set[str]:
    """Every option of an agent with this configuration, beside SB3's own."""
    return {field.name for field in dataclasses.fields(config)} | SHELL_OPTIONS


def configure(agent: str, config: type[Any], options: Mapping[str, Any]) -> Any:
    """A configuration made of options.

    Raises:
        ValueError: If an option is unknown (the message names the nearest) or out of range.
    """
    names = {field.name for field in dataclasses.fields(config)}
    require_known(agent, options, names, SHELL_OPTIONS)
    return config(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def plain_options(
    policy: Any,
    latent: Any,
    replay: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    policy_kwargs: Mapping[str, Any] | None,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Latent model, replay and fields of the configuration in a form that a file can hold.

    Args:
        policy: SB3's name of it: "CnnPolicy" without a latent model learns one end to end.
        latent: As the agent takes it.
        replay: Options of the replay.
        options: Fields of the configuration, and arguments of SB3's agents.
        policy_kwargs: SB3's names for some of them.

    Raises:
        ValueError: If one of those has no counterpart.
    """
    options, replay = dict(options), dict(replay or {})
    if "n_steps" in options:
        replay = {"steps": options.pop("n_steps"), **replay}
    sde = {name: options.pop(name, None) for name in SDE}
    if sde["use_sde"]:
        raise ValueError(
            "use_sde = True: state-dependent exploration is not there; coloured_noise, in "
            "[0, 1), makes exploration smooth as well"
        )
    names = {"net_arch": "net_arch", "n_critics": "critics"}
    given = dict(policy_kwargs or {})
    if policy == "CnnPolicy" and latent is None:
        extractor = {"features_dim": CNN_FEATURES} | given.pop("features_extractor_kwargs", {})
        require_known("features_extractor_kwargs", extractor, ("features_dim",))
        latent = {"name": "autoencoder", "dims": extractor["features_dim"], "squash": True}
        options = {"joint": True, "reconstruction": 0.0, **options}
    for name in given:
        if name not in names:
            raise ValueError(
                f"policy_kwargs has no {name!r} here; supported are {sorted(names)}, "
                f"everything else is an option of the agent itself"
            )
    plain = {names[name]: value for name, value in given.items() if value is not None}
    encoder = options.get("encoder")
    if isinstance(encoder, SequenceEncoder):
        plain["encoder"] = ENCODERS.describe(encoder)
    if not isinstance(latent, str | Mapping | None):
        latent = LATENTS.describe(latent)
    return latent, replay, {**options, **plain}


def require_positive(name: str, value: float | None) -> float | None:
    """The value, which must be positive or None; else raises a ValueError."""
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value


def replay_options(
    replay: Mapping[str, Any] | None, sb3_class: type | None, sb3_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Options of the replay, SB3's `HerReplayBuffer` and its arguments translated.

    Raises:
        ValueError: If an option is unknown, or another replay class is asked for.
    """
    options, given = dict(replay or {}), dict(sb3_options or {})
    if sb3_class is HerReplayBuffer:
        strategy = given.pop("goal_selection_strategy", "future")
        share = 1 / (1 + given.pop("n_sampled_goal", 4))
        name = str(getattr(strategy, "name", strategy)).lower()
        options = {"hindsight": {name: 1 - share, "original": share}, **options}
    elif sb3_class is not None:
        raise ValueError(
            f"replay_buffer_class = {sb3_class.__name__} is not supported: this agent has a replay "
            f"of its own; configure it with replay={{...}}"
        )
    # What SB3's buffers ask about is always so here: time limits never end a value.
    for settled in ("handle_timeout_termination", "copy_info_dict"):
        given.pop(settled, None)
    require_known("replay", (*options, *given), REPLAY_OPTIONS)
    return {**given, **options}


def settle_memory(config: Any, interface: Interface) -> Any:
    """The learner's configuration with what depends on the environment decided.

    Raises:
        ValueError: If the memory is to read rewards, and they do not follow from goals, or cannot
            be rewritten by hindsight.
    """
    if not config.has_memory:
        return config
    if config.previous_reward and interface.goal is None:
        raise ValueError(
            "previous_reward = True needs an environment with goals, whose rewards `predict` can "
            "work out; wrap this one in rlkit.envs.wrappers.partial_observation.PreviousStep(env, "
            "reward=True) instead"
        )
    of_goals = config.previous_reward or (config.critic_sees_reward and interface.goal is not None)
    mode = config.goal_mode or ("early" if interface.hides_goal or of_goals else "late")
    if of_goals and mode != "early":
        raise ValueError(
            f'critic_sees_reward = True does not go with goal_mode = "{mode}": rewards depend on '
            f'the goal, and so would the memory; set goal_mode = "early"'
        )
    config = dataclasses.replace(config, goal_mode=mode)
    return dataclasses.replace(config, start=config.start or _start(config, interface))


def _start(config: Any, interface: Interface) -> str:
    """What `start` is where it is not set."""
    encoder = Memory(config, interface.sizes, torch.Generator()).encoder
    if encoder is None or config.goal_mode != "late" or config.window == 0:
        return "zero"
    # More than a few numbers per feature are a cache of past steps, which windows fill by
    # themselves, and which would take many times the room of the observations.
    size = sum(part.numel() for part in encoder.initial(1))
    return "stored" if size <= CACHE * encoder.features else "zero"


def fresh_learner(agent: Algorithm, seed: np.random.SeedSequence) -> Learner:
    """The learner of an agent, as its environment and its sight ask for."""
    return agent.learner_class(
        agent.config,
        agent.interface.sizes,
        seed=int(seed.generate_state(1)[0]),
        device=agent.device,
        bounds=return_bounds(agent.rule, agent.config.gamma),
        joint=joint_latent(agent.sight.joint, agent.interface, agent.config),
    )


def empty_replay(agent: Algorithm) -> ReplayBuffer:
    """The replay of an agent, with what its memory needs."""
    config, memory = agent.config, {}
    if config.has_memory:
        memory = {
            "window": config.window or None,
            "burn_in": config.burn_in,
            "goals": "window" if config.goal_mode == "early" else "step",
            "previous_action": config.previous_action,
            "previous_reward": agent.learner.recurrent.reads_reward,
            "hidden_state": agent.learner.recurrent.stored_hidden_state,
        }
    imagination = agent.imagination
    replay = ReplayBuffer(
        agent.sight.kept,
        agent.interface.stored_action,
        agent.buffer_size,
        num_envs=getattr(agent, "n_envs", 1),
        rule=agent.rule,
        gamma=config.gamma,
        seed=agent.replay_seed,
        latent_encoder=agent.sight.latent_encoder,
        recompute_rewards=agent.sight.latent_encoder is not None
        and agent.sight.distance is not None,
        draw_goals=None if imagination is None else imagination.draw,
        **memory,
        **agent.options["replay"],
    )
    if imagination is not None:
        imagination.storage = replay.storage
    return replay
