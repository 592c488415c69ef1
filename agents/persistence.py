"""Saving and loading of agents: SB3's calls, plain data instead of pickles, exact state."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import check_for_correct_spaces, get_system_info

from rlkit.experiment.archive import read_archive, write_archive
from rlkit.experiment.checkpoint import CheckpointError
from rlkit.experiment.env_state import set_vec_env_state, vec_env_state
from rlkit.experiment.spaces import space_from_plain, space_to_plain

ATTRIBUTES = ("num_timesteps", "verbose", "seed", "_n_updates", "_episode_num", "episodes_cut")
COUNTERS = (
    "num_timesteps",
    "_n_updates",
    "_episode_num",
    "_updates_due",
    "_current_progress_remaining",
    "episodes_cut",
)


class Persistent:
    """What makes an algorithm storable. Mixed into `Algorithm`; reads and writes its attributes."""

    # Exact state, for checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as a tree of plain data.

        Taking it is itself part of the run: environments are put into exactly the state that was
        saved, and the episode of one that cannot give its state is cut as truncated. A run that is
        resumed here and the run that went on are then the same, bit for bit.
        """
        learner = self.learner.state_dict()
        environments = self._settle_environments()
        return {
            "weights": learner.pop("weights"),
            "optimiser": learner.pop("optimiser"),
            "replay": self.memory.state_dict(),
            "training": {
                "learner": learner,
                "environments": environments,
                "counters": {name: getattr(self, name) for name in COUNTERS},
                "actions_rng": self._rng.bit_generator.state,
                "global_rng": _global_rng(),
                "last_observation": self._last_obs,
                "last_episode_starts": self._last_episode_starts,
                "carry": [tensor.cpu() for tensor in self._carry],
                "recent_episodes": [dict(info) for info in self.ep_info_buffer or ()],
                "recent_successes": [float(value) for value in self.ep_success_buffer or ()],
                "recent_goals": [[goal, reached] for goal, reached in self._goals],
                "metric_totals": {k: [t, n] for k, (t, n) in self._totals.items()},
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, into an agent of the same options and environments.

        Raises:
            ValueError: If the state belongs to another agent or environment.
        """
        training = state["training"]
        self.learner.load_state_dict(
            {**training["learner"], "weights": state["weights"], "optimiser": state["optimiser"]}
        )
        self.memory.load_state_dict(state["replay"])
        for name, value in training["counters"].items():
            setattr(self, name, value)
        self._rng.bit_generator.state = training["actions_rng"]
        self._last_obs = training["last_observation"]
        self._last_episode_starts = training["last_episode_starts"]
        self._carry = tuple(tensor.to(self.device) for tensor in training["carry"])
        window = self._stats_window_size
        self.ep_info_buffer = deque(training["recent_episodes"], maxlen=window)
        self.ep_success_buffer = deque(training["recent_successes"], maxlen=window)
        self._goals.clear()
        self._goals.extend((goal, reached) for goal, reached in training["recent_goals"])
        self._totals = {k: (t, n) for k, (t, n) in training["metric_totals"].items()}
        self._place_environments(training["environments"])
        _set_global_rng(training["global_rng"])

    def _settle_environments(self) -> dict[str, Any]:
        """Puts the environments into a state that can be restored, and returns it."""
        assert self.env is not None
        states = vec_env_state(self.env)
        if all(state is not None for state in states):
            settled = {"states": states, "restart_seed": None}
            self._place_environments(settled)
            return settled
        settled = {"states": [], "restart_seed": int(self._rng.integers(2**31))}
        if self._last_obs is not None:
            self.episodes_cut += int((~self.memory.storage.begins).sum())
            self.memory.storage.cut()
            self._last_obs = self._place_environments(settled)
            self._last_episode_starts = np.ones(self.n_envs, np.bool_)
        return settled

    def _place_environments(self, settled: dict[str, Any]) -> Any:
        """Restores the environments, or restarts them and returns what they observe."""
        assert self.env is not None
        if settled["restart_seed"] is None:
            set_vec_env_state(self.env, settled["states"])
            return None
        self.env.seed(settled["restart_seed"])
        return self.env.reset()

    # One file, for users

    def save(
        self,
        path: str | Path | BinaryIO,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Saves the agent (not its replay) as one zip archive of safetensors and JSON.

        Args:
            path: File name (".zip" is added where there is no suffix) or binary file.
            exclude: Attributes to leave out, of `num_timesteps`, `verbose`, `seed`.
            include: Attributes to keep although excluded.
        """
        left_out = set(exclude or ()) - set(include or ())
        learner = self.learner.state_dict()
        tree = {
            "weights": learner.pop("weights"),
            "optimiser": learner.pop("optimiser"),
            "agent": {
                "class": type(self).__name__,
                "policy": "MultiInputPolicy"
                if isinstance(self.observation_space, spaces.Dict)
                else "MlpPolicy",
                "observation_space": space_to_plain(self.observation_space),
                "action_space": space_to_plain(self.action_space),
                "options": _plain_options(self.options),
                "attributes": {n: getattr(self, n) for n in ATTRIBUTES if n not in left_out},
                "last_observation": self._last_obs,
                "last_episode_starts": self._last_episode_starts,
                "learner": learner,
            },
        }
        write_archive(path, tree)

    @classmethod
    def load(
        cls,
        path: str | Path | BinaryIO,
        env: Any = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Loads what `save` wrote; nothing in the file is executed.

        Args:
            path: File name or binary file.
            env: Environment to go on training in; None for `predict` alone.
            device: Where to put it.
            custom_objects: Options to use in place of the saved ones; unknown names are ignored.
            print_system_info: Whether to print versions and hardware.
            force_reset: Whether training begins with a reset of `env`.
            **kwargs: Options to change.

        Raises:
            CheckpointError: If the file is damaged, foreign, or carries a pickle.
            ValueError: If `env` has other spaces.
        """
        if print_system_info:
            get_system_info()
        tree = read_archive(path)
        saved = tree.get("agent")
        if not isinstance(saved, dict) or saved.get("class") != cls.__name__:
            held = saved.get("class") if isinstance(saved, dict) else "no agent"
            raise CheckpointError(f"{path} holds {held}; load it with the class it was saved by")
        known = {k: v for k, v in (custom_objects or {}).items() if k in cls.option_names()}
        attributes = saved["attributes"]
        options = {**saved["options"], **known, **kwargs}
        if isinstance(options.get("train_freq"), list):
            options["train_freq"] = tuple(options["train_freq"])
        observation_space = space_from_plain(saved["observation_space"])
        action_space = space_from_plain(saved["action_space"])
        if env is not None:
            env = cls._wrap_env(env, attributes.get("verbose", 0))
            check_for_correct_spaces(env, observation_space, action_space)
        model = cls(
            saved["policy"],
            env,
            seed=attributes.get("seed"),
            verbose=attributes.get("verbose", 0),
            device=device,
            _init_setup_model=False,
            **options,
        )
        model.observation_space, model.action_space = observation_space, action_space
        model._setup_model()
        model.learner.load_state_dict(
            {**saved["learner"], "weights": tree["weights"], "optimiser": tree["optimiser"]}
        )
        for name, value in attributes.items():
            setattr(model, name, value)
        if env is not None and not force_reset:
            model._last_obs = saved["last_observation"]
            model._last_episode_starts = saved["last_episode_starts"]
        return model

    def save_replay_buffer(self, path: str | Path | BinaryIO) -> None:
        """Saves the replay as one archive of plain arrays."""
        write_archive(path, {"replay": self.memory.state_dict()}, suffix=".replay")

    def load_replay_buffer(
        self, path: str | Path | BinaryIO, truncate_last_traj: bool = True
    ) -> None:
        """Loads what `save_replay_buffer` wrote.

        Args:
            path: File name or binary file.
            truncate_last_traj: Whether running episodes count as cut off, because the environments
                will start anew.

        Raises:
            CheckpointError: If the file is damaged or foreign.
            ValueError: If it belongs to other spaces, another capacity or number of environments.
        """
        tree = read_archive(path, suffix=".replay")
        if "replay" not in tree:
            raise CheckpointError(f"{path} holds no replay; was it written by `save`?")
        self.memory.load_state_dict(tree["replay"])
        if truncate_last_traj:
            self.memory.storage.cut()

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy"], []


def _plain_options(options: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in options.items():
        if callable(value):
            raise ValueError(
                f"{name} is a function, and files hold plain data only; pass a number, or exclude "
                f"the schedule and give it to `load` again through custom_objects"
            )
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def _global_rng() -> dict[str, Any]:
    # Nothing of ours draws from the global generators; a user's environment or noise may.
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
