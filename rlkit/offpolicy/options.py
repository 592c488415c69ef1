"""Options of an agent: fields of its learner's configuration, and SB3's names for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv

from rlkit.goals import FurtherTerms, GoalRule
from rlkit.goals.generators import GENERATORS
from rlkit.latents import LATENTS, JointLatent
from rlkit.names import require_known
from rlkit.networks.encoders import ENCODERS, SequenceEncoder
from rlkit.offpolicy.contract import Learner
from rlkit.offpolicy.extractor import FeaturesExtractor
from rlkit.offpolicy.policy_options import policy_options
from rlkit.offpolicy.recurrent import RecurrentEncoder
from rlkit.offpolicy.schedules import learning_rate_of
from rlkit.offpolicy.settings import ActorCritic, Inputs, Recurrence
from rlkit.offpolicy.spaces import SpaceAdapter, require_action_space
from rlkit.replay import SAMPLERS, ReplayBuffer
from rlkit.vec.vec_env import action_repeat_of

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

ALGORITHM_OPTIONS = frozenset(
    {
        "buffer_size",
        "learning_starts",
        "train_freq",
        "gradient_steps",
        "update_ratio",
        "random_action_repeat",
        "explorer",
        "replay",
        "latent",
        "pretraining",
        "reward_source",
        "goal_generator",
        "stats_window_size",
    }
)
SDE = ("use_sde", "sde_sample_freq", "use_sde_at_warmup")
CACHE = 4  # times the features: a larger hidden state is a cache of past steps
REPLAY_OPTIONS = (
    "hindsight",
    "already_achieved_weight",
    "out_of_range_weight",
    "steps",
    "share",
    "directory",
    "sampler",
    "further_terms",
)


def option_names(config: type[Any]) -> set[str]:
    """Every option of an agent with this configuration, beside SB3's own."""
    return {field.name for field in dataclasses.fields(config)} | ALGORITHM_OPTIONS


def configure(agent: str, config: type[Any], options: Mapping[str, Any]) -> Any:
    """A configuration made of options.

    Raises:
        ValueError: If an option is unknown (the message names the nearest) or out of range.
    """
    names = {field.name for field in dataclasses.fields(config)}
    if "use_sde" not in names:
        if options.get("use_sde"):
            raise ValueError(
                f"use_sde = True: {agent} has no state-dependent exploration; coloured_noise, in "
                f"[0, 1), makes exploration smooth as well, or choose SAC"
            )
        options = {name: value for name, value in options.items() if name not in SDE}
    require_known(agent, options, names, ALGORITHM_OPTIONS)
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if "learning_rate" in fields:
        fields["learning_rate"] = learning_rate_of(fields["learning_rate"])
    return config(**fields)


def plain_options(
    policy: Any,
    latent: Any,
    replay: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    policy_kwargs: Mapping[str, Any] | None,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Latent model, replay options and configuration fields in a form that files can hold.

    Args:
        policy: SB3's policy name: "CnnPolicy" without a latent model learns one end to end.
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
    latent, options = policy_options(policy, latent, options, policy_kwargs)
    encoder = options.get("encoder")
    if isinstance(encoder, SequenceEncoder):
        options["encoder"] = ENCODERS.describe(encoder)
    if not isinstance(latent, str | Mapping | None):
        latent = LATENTS.describe(latent)
    return latent, replay, options


def replay_options(
    replay: Mapping[str, Any] | None, sb3_class: type | None, sb3_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Options of the replay, SB3's `HerReplayBuffer` and its arguments translated.

    Raises:
        ValueError: If an option is unknown, or another replay class is given.
    """
    options, given = dict(replay or {}), dict(sb3_options or {})
    if sb3_class is HerReplayBuffer:
        strategy = given.pop("goal_selection_strategy", "future")
        share = 1 / (1 + given.pop("n_sampled_goal", 4))
        name = str(getattr(strategy, "name", strategy)).lower()
        options = {"hindsight": {name: 1 - share, "original": share}, **options}
    elif sb3_class in (SB3ReplayBuffer, DictReplayBuffer):
        options = {"hindsight": "original", **options}
    elif sb3_class is not None:
        raise ValueError(
            f"replay_buffer_class = {sb3_class.__name__} is not supported: this agent has a replay "
            f"buffer of its own; configure it with replay={{...}}"
        )
    # Always true here: values bootstrap from where a time limit cut.
    for settled in ("handle_timeout_termination", "copy_info_dict"):
        given.pop(settled, None)
    require_known("replay", (*options, *given), REPLAY_OPTIONS)
    if not isinstance(options.get("sampler"), str | Mapping | None):
        options["sampler"] = SAMPLERS.describe(options["sampler"])
    return {**given, **options}


def make_adapter(agent: Algorithm) -> SpaceAdapter:
    """The space adapter of an agent: what its vectors hold follows from its settings."""
    config, encoder = agent.config, agent.observation_encoder
    require_action_space(type(agent).__name__, agent.action_space, agent.action_spaces)
    is_recurrent = isinstance(config, Recurrence) and config.is_recurrent
    return SpaceAdapter(
        encoder.space,
        agent.action_space,
        observe_achieved=not isinstance(config, Inputs) or config.observe_achieved,
        is_recurrent=is_recurrent,
        reads_reward=is_recurrent and config.previous_reward,
        # Only networks read a part of a goal; who plans needs what the rule evaluates.
        goal_width=encoder.goal_width if isinstance(config, Inputs) else None,
    )


def describe_generator(generator: Any) -> Any:
    """A goal generator in a form that a file can hold: a name, a mapping, or None."""
    if isinstance(generator, str | Mapping | None):
        return generator
    return GENERATORS.describe(generator)


def settle_recurrence(config: Any, adapter: SpaceAdapter) -> Any:
    """The configuration with the settings of recurrence that depend on the environment decided.

    Raises:
        ValueError: If an encoder is to read rewards, and they do not follow from goals, or cannot
            be rewritten by hindsight.
    """
    if not isinstance(config, Recurrence) or not config.is_recurrent:
        return config
    if config.previous_reward and not adapter.has_goals:
        raise ValueError(
            "previous_reward = True needs an environment with goals, whose rewards `predict` can "
            "compute; wrap this one in rlkit.envs.wrappers.partial_observation.PreviousStep(env, "
            "reward=True) instead"
        )
    by_critics = isinstance(config, ActorCritic) and config.critic_sees_reward
    of_goals = config.previous_reward or (by_critics and adapter.has_goals)
    is_early = adapter.layout.hides_goal or of_goals
    mode = config.goal_mode or ("early" if is_early else "late")
    if of_goals and mode != "early":
        raise ValueError(
            f'critic_sees_reward = True does not go with goal_mode = "{mode}": rewards depend on '
            f'the goal, and so would the hidden state; set goal_mode = "early"'
        )
    config = dataclasses.replace(config, goal_mode=mode)
    return dataclasses.replace(config, start=config.start or _start(config, adapter))


def settle_action_repeat(agent: Algorithm) -> None:
    """Takes over for how many steps the environments hold an action.

    From then on the configuration's `gamma` discounts one decision, which all that discounts reads;
    `agent.gamma` stays the discount of one step of the environment.
    """
    if agent.env is not None:
        agent.action_repeat = action_repeat_of(agent.env)
    if agent.action_repeat > 1:
        discount = agent.gamma**agent.action_repeat
        agent.config = dataclasses.replace(agent.config, gamma=discount)


def require_action_repeat(agent: Algorithm, env: VecEnv) -> None:
    """Refuses environments that hold actions for another number of steps than before.

    Raises:
        ValueError: If they do.
    """
    found = action_repeat_of(env)
    if found != agent.action_repeat:
        raise ValueError(
            f"the environment holds actions for {found} steps, this agent's values are those of "
            f"{agent.action_repeat}: wrap it in rlkit.goals.ActionRepeat(env, "
            f"{agent.action_repeat}), or load the agent with it, load(path, env)"
        )


def _start(config: Any, adapter: SpaceAdapter) -> str:
    """The default of `start`."""
    if config.goal_mode != "late" or config.window == 0:
        return "zero"
    shared = config if isinstance(config, ActorCritic) else ActorCritic()
    encoder = RecurrentEncoder(config, adapter.sizes, torch.Generator(), shared, {}).encoder
    # More than a few numbers per feature are a cache of past steps: windows fill it by themselves,
    # and storing it would take many times the space of the observations.
    size = sum(part.numel() for part in encoder.initial(1))
    return "stored" if size <= CACHE * encoder.features else "zero"


def _joint_latent(agent: Algorithm) -> JointLatent | None:
    """The latent model that the learner trains, and where its images are; None for none."""
    model, config, goal = agent.observation_encoder.joint, agent.config, agent.adapter.layout.goal
    if model is None:
        return None
    return JointLatent(
        model,
        agent.adapter.layout.slices["observation"].start,
        of_goals=goal is not None and goal.shape == model.shape,
        one_goal=config.is_recurrent and config.goal_mode == "early",
        burn_in=config.burn_in if config.is_recurrent else 0,
        reconstruction=config.reconstruction,
    )


def _features_extractor(agent: Algorithm) -> FeaturesExtractor | None:
    """The features extractor of an agent's networks; None without."""
    config, adapter = agent.config, agent.adapter
    if getattr(config, "features_extractor", None) is None:
        return None
    return FeaturesExtractor(
        config.features_extractor, adapter.layout, adapter.goal_width, config.normalize_images
    )


def _achieved(agent: Algorithm) -> int | None:
    """The column at which the achieved goal begins, if networks are to subtract it and can."""
    layout = agent.adapter.layout
    if getattr(agent.config, "goal_input", "absolute") == "absolute" or layout.achieved is None:
        return None
    assert isinstance(layout.space, spaces.Dict)
    achieved, desired = layout.space["achieved_goal"], layout.goal
    if not isinstance(achieved, spaces.Box) or not isinstance(desired, spaces.Box):
        return None
    return layout.achieved.start if achieved.shape == desired.shape else None


def make_learner(agent: Algorithm, seed: np.random.SeedSequence) -> Learner:
    """The learner of an agent, for its environment and its observation encoder."""
    further = {"extractor": _features_extractor(agent), "achieved": _achieved(agent)}
    learner: Learner = agent.learner_class(
        agent.config,
        agent.adapter.sizes,
        seed=int(seed.generate_state(1)[0]),
        device=agent.device,
        rule=_learnt_rule(agent),
        joint=_joint_latent(agent),
        **{name: value for name, value in further.items() if value is not None},
    )
    return learner


def _learnt_rule(agent: Algorithm) -> GoalRule | None:
    """The goal rule of what is learnt: marked where the rewards have further terms."""
    rule: GoalRule | None = agent.rule
    if rule is None or not agent.options["replay"].get("further_terms", False):
        return rule
    if agent.observation_encoder.latent_rule is not None:
        raise ValueError(
            'replay.further_terms does not go with reward_source = "latent", which has no others'
        )
    return FurtherTerms(rule)


def empty_replay(agent: Algorithm) -> ReplayBuffer:
    """The replay buffer of an agent, with what its learner needs."""
    goals, encoder = agent.episode_goals, agent.observation_encoder
    is_latent = encoder.latent_rule is not None
    latent_rewards_change = encoder.latent_encoder is not None and is_latent
    generated_goals = goals is not None and not is_latent  # the rule also terminates for them
    replay = ReplayBuffer(
        encoder.stored_space,
        agent.adapter.stored_action,
        agent.buffer_size,
        num_envs=getattr(agent, "n_envs", 1),
        rule=_learnt_rule(agent),
        gamma=agent.config.gamma,
        seed=agent.replay_seed,
        latent_encoder=encoder.latent_encoder,
        recompute_rewards=latent_rewards_change or generated_goals,
        propose_goals=None if goals is None else goals.generator.propose,
        **agent.learner.replay_options(),
        **{k: value for k, value in agent.options["replay"].items() if k != "further_terms"},
    )
    replay.device = agent.device
    imitation = getattr(agent.config, "imitation", 0.0)
    if imitation > 0 and not any(replay.weights[name] for name in ("future", "final", "episode")):
        chosen = agent.options["replay"]["hindsight"]
        raise ValueError(
            f"imitation = {imitation} needs goals of hindsight that an episode achieved later, and "
            f"replay.hindsight = {chosen!r} has none: add future ones, or set imitation = 0"
        )
    if goals is not None:
        goals.attach(replay.storage)
    return replay


def require_replay(agent: Algorithm) -> None:
    """Gives an agent an empty replay buffer if its own was deleted, as SB3's users do."""
    if getattr(agent, "replay_buffer", None) is None:
        agent.replay_buffer = empty_replay(agent)


def update_rule(agent: Algorithm, former_space: Any) -> None:
    """Passes an environment's goal rule to the replay buffer and the goal generator of an agent."""
    agent.replay_buffer.rule = _learnt_rule(agent)
    if agent.observation_encoder.space != former_space:  # loaded without an image goal's rule
        agent.replay_buffer = empty_replay(agent)
    elif agent.episode_goals is not None:
        agent.episode_goals.attach(agent.replay_buffer.storage)
