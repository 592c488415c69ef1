"""Agents as plain data: the exact state of a training, and the file that `save` writes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv

from rlkit.io.archive import read_archive, write_archive
from rlkit.io.checkpoint import (
    CheckpointError,
    holds_checkpoint,
    load_latest,
    read_checkpoint,
)
from rlkit.io.finite import require_finite
from rlkit.io.foreign import built_from
from rlkit.io.spaces import space_from_plain, space_to_plain
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.collect import cut_episodes
from rlkit.offpolicy.options import require_replay
from rlkit.offpolicy.policy_options import replaced_fields, saved_options
from rlkit.trust import require_local, require_trusted, trusted_files
from rlkit.vec.env_state import set_vec_env_state, vec_env_state

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

    AgentType = TypeVar("AgentType", bound=Algorithm)

Source = str | Path | BinaryIO

SAVED_ATTRIBUTES = (
    "num_timesteps",
    "verbose",
    "seed",
    "_n_updates",
    "_episode_num",
)
DEFAULTS = ("verbose", "seed")  # of SAVED_ATTRIBUTES, those that the constructor takes
MOST_ENVS = 2**16  # an agent in a file may have been trained in
COUNTERS = (
    "num_timesteps",
    "_n_updates",
    "_episode_num",
    "_updates_due",
    "_current_progress_remaining",
    "episodes_cut",
)


def training_state(agent: Algorithm) -> dict[str, Any]:
    """Everything that the rest of a training depends on; see `Algorithm.state_dict`."""
    learner = agent.learner.state_dict()
    environments = _settle_environments(agent)
    _settle_noise(agent)
    return {
        "weights": learner.pop("weights"),
        "optimiser": learner.pop("optimiser"),
        "replay": agent.replay_buffer.state_dict(),
        "agent": _description_in_training(agent),
        "training": {
            "learner": learner,
            "latent": agent.observation_encoder.state_dict(),
            "goal_generator": agent.episode_goals.state_dict() if agent.episode_goals else {},
            "environments": environments,
            "counters": {name: getattr(agent, name) for name in (*COUNTERS, *agent.evolving)},
            "actions_rng": agent.rng.bit_generator.state,
            "held_actions": agent.held_actions.state_dict() if agent.held_actions else {},
            "global_rng": _global_rng(),
            "explorer": agent.explorer.state_dict() if agent.explorer else {},
            "last_observation": agent._last_obs,
            "last_episode_starts": agent._last_episode_starts,
            "hidden_state": [tensor.cpu() for tensor in agent.hidden_state],
            "recent_episodes": [dict(info) for info in agent.ep_info_buffer or ()],
            "recent_successes": [float(value) for value in agent.ep_success_buffer or ()],
            "metrics": agent.metrics.state_dict(),
        },
    }


def restore_training(agent: Algorithm, state: dict[str, Any]) -> None:
    """Continues where `training_state` was taken; see `Algorithm.load_state_dict`."""
    training = state["training"]
    agent.learner.load_state_dict(
        {**training["learner"], "weights": state["weights"], "optimiser": state["optimiser"]}
    )
    agent.observation_encoder.load_state_dict(training["latent"])
    if agent.episode_goals is not None:
        agent.episode_goals.load_state_dict(training["goal_generator"])
    agent.replay_buffer.load_state_dict(state["replay"])
    for name in (*COUNTERS, *agent.evolving):
        setattr(agent, name, training["counters"][name])
    agent.rng.bit_generator.state = training["actions_rng"]
    if agent.held_actions is not None and training.get("held_actions"):
        agent.held_actions.load_state_dict(training["held_actions"])
    if agent.explorer is not None and training.get("explorer"):
        agent.explorer.load_state_dict(training["explorer"])
    agent._last_obs = training["last_observation"]
    agent._last_episode_starts = training["last_episode_starts"]
    agent.hidden_state = tuple(tensor.to(agent.device) for tensor in training["hidden_state"])
    agent.ep_info_buffer = deque(training["recent_episodes"], agent._stats_window_size)
    agent.ep_success_buffer = deque(training["recent_successes"], agent._stats_window_size)
    agent.metrics.load_state_dict(training["metrics"])
    assert agent.env is not None
    _place_environments(agent.env, training["environments"])
    _settle_noise(agent)
    _set_global_rng(training["global_rng"])


def _settle_environments(agent: Algorithm) -> dict[str, Any]:
    """Puts the environments into a state that can be restored, and returns it."""
    assert agent.env is not None
    states = vec_env_state(agent.env)
    if all(state is not None for state in states):
        settled: dict[str, Any] = {"states": states, "restart_seed": None}
        _place_environments(agent.env, settled)
        return settled
    restart_seed = int(agent.rng.integers(2**31))
    if agent._last_obs is not None:
        cut_episodes(agent, restart_seed)
    return {"states": None, "restart_seed": restart_seed}


def _settle_noise(agent: Algorithm) -> None:
    # Correlated noise has a state that cannot be read, only reset.
    if agent.action_noise is not None:
        agent.action_noise.reset()


def _place_environments(env: VecEnv, settled: dict[str, Any]) -> None:
    """Restores the environments, or restarts them."""
    if settled["restart_seed"] is None:
        set_vec_env_state(env, settled["states"])
        return
    env.seed(settled["restart_seed"])
    env.reset()


def write_agent(agent: Algorithm, path: Source, left_out: set[str]) -> None:
    """Saves an agent without its replay buffer; see `Algorithm.save`."""
    learner = agent.learner.state_dict()
    for part in ("weights", "optimiser"):
        require_finite(learner[part], part)
    options = saved_options(agent.options)
    content = {
        "weights": learner.pop("weights"),
        "optimiser": learner.pop("optimiser"),
        "agent": {
            **_description(agent, options, left_out),
            "last_observation": agent._last_obs,
            "last_episode_starts": agent._last_episode_starts,
            "hidden_state": [tensor.cpu() for tensor in agent.hidden_state],
            "learner": learner,
            "latent": agent.observation_encoder.state_dict(),
        },
    }
    write_archive(path, content)


def _description(
    agent: Algorithm, options: dict[str, Any], left_out: Collection[str] = ()
) -> dict[str, Any]:
    """What an agent is built from."""
    multi = isinstance(agent.observation_space, spaces.Dict)
    return {
        "class": type(agent).__name__,
        "policy": "MultiInputPolicy" if multi else "MlpPolicy",
        "observation_space": space_to_plain(agent.observation_space),
        "action_space": space_to_plain(agent.action_space),
        "num_envs": agent.n_envs,
        "action_repeat": agent.action_repeat,
        "options": options,
        "attributes": {
            name: getattr(agent, name)
            for name in (*SAVED_ATTRIBUTES, *agent.evolving)
            if name not in left_out
        },
    }


def _description_in_training(agent: Algorithm) -> dict[str, Any]:
    """The same; a training goes on with functions among its options, which are named here."""
    options, functions = dict[str, Any](), list[str]()
    for name, value in agent.options.items():
        try:
            options |= saved_options({name: value})
        except ValueError:
            functions.append(name)
    return {**_description(agent, options), "functions": functions}


def read_agent(
    cls: type[AgentType],
    path: Source,
    env: Any,
    device: torch.device | str,
    changes: dict[str, Any],
    force_reset: bool,
    trust: bool = False,
) -> AgentType:
    """Loads what `write_agent` wrote, or the newest checkpoint of a run; see `Algorithm.load`."""
    content = _read_content(path)
    source = path if isinstance(path, str | Path) else "the file"
    saved = content.get("agent")
    if not isinstance(saved, dict) or saved.get("class") != cls.__name__:
        held = f"a {saved.get('class')}" if isinstance(saved, dict) else "no agent"
        raise CheckpointError(
            f"{source} holds {held}, not a {cls.__name__}: load it with its class"
        )
    if env is not None:
        env = cls._wrap_env(maybe_make_env(env, 0), changes.get("verbose", 0))
    with trusted_files(trust), built_from(content, source):
        _require_plain(cls, source, saved, changes)
        observation_space = space_from_plain(saved["observation_space"])
        action_space = space_from_plain(saved["action_space"])
        if env is not None:
            check_for_correct_spaces(env, observation_space, action_space)
        agent = _rebuilt(cls, saved, env, device, changes, (observation_space, action_space))
        agent.learner.load_state_dict(
            {**saved["learner"], "weights": content["weights"], "optimiser": content["optimiser"]}
        )
        agent.observation_encoder.load_state_dict(saved.get("latent", {}))
        agent.observation_encoder.age = 0  # a refresh needs stored images; there are none yet
        for name in (*SAVED_ATTRIBUTES, *agent.evolving):
            if name in saved["attributes"] and name not in DEFAULTS:
                setattr(agent, name, saved["attributes"][name])
        if env is not None and not force_reset:
            agent._last_obs = saved["last_observation"]
            agent._last_episode_starts = saved["last_episode_starts"]
            agent.hidden_state = _fitting_hidden_state(agent, saved.get("hidden_state", []))
    return agent


def _read_content(path: Source) -> dict[str, Any]:
    """What `write_agent` wrote into an archive, or the same of the newest checkpoint of a run."""
    if not isinstance(path, str | Path) or not Path(path).is_dir():
        return read_archive(path)
    folder = Path(path)
    found = load_latest(folder / "checkpoints")
    if found is None and holds_checkpoint(folder):
        found = 0, read_checkpoint(folder)
    if found is None:
        raise CheckpointError(
            f"{path} is a folder without a checkpoint: name a file that `save` wrote, or the "
            f"folder of a run that has saved one"
        )
    state = found[1]
    if not isinstance(state.get("agent"), dict) or not isinstance(state.get("training"), dict):
        raise CheckpointError(
            f"the checkpoint in {path} does not describe its agent: 0.2 and earlier, and agents "
            f"of other kinds, do not write it. rlkit.load({str(path)!r}) builds it by its recipe"
        )
    training = state["training"]
    parts = ("last_observation", "last_episode_starts", "hidden_state", "learner", "latent")
    return {**state, "agent": {**state["agent"], **{name: training[name] for name in parts}}}


def _rebuilt(
    cls: type[AgentType],
    saved: dict[str, Any],
    env: Any,
    device: torch.device | str,
    changes: dict[str, Any],
    saved_spaces: tuple[spaces.Space[Any], spaces.Space[Any]],
) -> AgentType:
    """A fresh agent like the one that a file describes."""
    defaults = {name: value for name, value in saved["attributes"].items() if name in DEFAULTS}
    options = {**defaults, **saved["options"], **changes}
    if isinstance(options["train_freq"], list):
        options["train_freq"] = tuple(options["train_freq"])
    agent = cls(saved["policy"], env, device=device, _init_setup_model=False, **options)
    agent.observation_space, agent.action_space = saved_spaces
    if env is None:
        agent.n_envs = int(saved["num_envs"])
        agent.action_repeat = int(saved.get("action_repeat", 1))
    agent._setup_model()
    return agent


def _require_plain(
    cls: type[Any], source: object, saved: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Refuses what `write_agent` does not write, and what must not be followed."""
    options = saved["options"]
    unknown = sorted(options.keys() - cls.option_names())
    if unknown or saved["policy"] not in ("MlpPolicy", "MultiInputPolicy"):
        raise CheckpointError(
            f"{source} is foreign: {cls.__name__} has no options {unknown} or no policy "
            f"{saved['policy']!r}"
        )
    if not 0 < int(saved["num_envs"]) <= MOST_ENVS:
        raise CheckpointError(f"{source} is foreign: of {saved['num_envs']} environments")
    changed = changes.keys() | replaced_fields(changes.get("policy_kwargs"))
    for name in saved.get("functions", ()):
        if name not in changed:
            raise CheckpointError(
                f"{name} of {source} was a function, which files cannot hold: give it again, "
                f"{cls.__name__}.load(..., {name}=...)"
            )
    left = {name: value for name, value in options.items() if name not in changed}
    require_trusted(left, source)
    require_local((left.get("replay") or {}).get("directory"), source)


def _fitting_hidden_state(agent: Algorithm, saved: list[torch.Tensor]) -> HiddenState:
    shapes = [[tuple(part.shape) for part in state] for state in (saved, agent.hidden_state)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the saved hidden state has shapes {shapes[0]}, this agent's {shapes[1]}: start, "
            f"encoder or number of environments differ; load with force_reset=True to begin new "
            f"episodes"
        )
    return tuple(part.to(agent.device) for part in saved)


def write_replay(agent: Algorithm, path: Source) -> None:
    """Saves an agent's replay buffer; see `Algorithm.save_replay_buffer`."""
    write_archive(path, {"replay": agent.replay_buffer.state_dict()}, suffix=".replay")


def read_replay(agent: Algorithm, path: Source, cut: bool) -> None:
    """Loads what `write_replay` wrote; see `Algorithm.load_replay_buffer`."""
    content = read_archive(path, suffix=".replay")
    if "replay" not in content:
        raise CheckpointError(f"{path} holds no replay; was it written by `save`?")
    require_replay(agent)
    agent.replay_buffer.load_state_dict(content["replay"])
    agent.replay_buffer.invalidate_latents()
    agent.replay_buffer.device = agent.device
    if cut:
        agent._last_obs = None  # the next training resets the environments, and cuts episodes


def _global_rng() -> dict[str, Any]:
    # The suite never draws from the global generators; a user's environment or noise may.
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, keys, position, has_gauss, cached],
        "torch": torch.get_rng_state().numpy(),
    }


def _set_global_rng(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(np.array(state["torch"], np.uint8)))
