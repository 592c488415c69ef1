"""The shell that every agent shares: Stable-Baselines3's lifecycle around a `Learner`.

The only subclass of SB3's `OffPolicyAlgorithm`. It collects experience, keeps the replay, calls
the learner, and answers `learn / predict / save / load`, callbacks and the logger as SB3 does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import get_system_info

from rlkit.agents.learner import Carry, Learner, Sizes
from rlkit.agents.options import configure, from_policy_kwargs, option_names, replay_options
from rlkit.agents.persistence import (
    Source,
    read_agent,
    restore_training,
    training_state,
    write_agent,
)
from rlkit.agents.policy import LearnerPolicy
from rlkit.experiment.archive import read_archive, write_archive
from rlkit.experiment.checkpoint import CheckpointError
from rlkit.experiment.vec_env import vec_goal_rule
from rlkit.goals import GoalRule, is_goal_space
from rlkit.networks import vector_size, vectorise
from rlkit.replay import Batch, Replay, check_finite


class Algorithm(OffPolicyAlgorithm):
    """An off-policy agent.

    Args:
        policy: "MultiInputPolicy" for Dict observations, "MlpPolicy" for others.
        env: An environment, its id, or a VecEnv; None only to load a policy for `predict`.
        buffer_size: Slots of the replay, over all environments.
        learning_starts: Steps of uniformly random actions before learning.
        train_freq: Environment steps between updates: a number, or `(1, "episode")`.
        gradient_steps: Updates each time; -1 makes as many as steps were taken.
        update_ratio: Updates per step, any positive number; replaces `gradient_steps`.
        replay: Options of the replay: `hindsight` (a strategy's name or weights, see
            `rlkit.replay.Replay`; "played" switches it off) and `steps` (n-step sums).
        action_noise: Stable-Baselines3's noise object, added to actions in training.
        policy_kwargs: Settings in SB3's place: `net_arch`, `n_critics`.
        replay_buffer_class: Accepted for SB3's habit: None, or `HerReplayBuffer`, whose
            `replay_buffer_kwargs` are translated. Hindsight is on for any environment with goals.
        optimize_memory_usage: Accepted for SB3's habit: observations are always stored once.
        stats_window_size: Episodes over which reported means run.
        tensorboard_log: Folder for TensorBoard, None for none.
        verbose: 0 nothing, 1 training information, 2 more.
        seed: Seed of everything random here and in the environment.
        device: "cpu", "cuda" or "auto".
        **options: Fields of the learner's configuration.

    Raises:
        ValueError: If an option is unknown or out of range, or a space is not supported.
    """

    learner_class: ClassVar[type[Learner]]
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]]
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": LearnerPolicy,
        "MultiInputPolicy": LearnerPolicy,
    }
    learner: Learner
    memory: Replay

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        update_ratio: float | None = None,
        replay: Mapping[str, Any] | None = None,
        action_noise: Any = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        replay_buffer_class: type | None = None,
        replay_buffer_kwargs: Mapping[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **options: Any,
    ) -> None:
        options = {**options, **from_policy_kwargs(policy_kwargs)}
        self.config = configure(type(self).__name__, self.learner_class.config_class, options)
        self.options = {
            "buffer_size": buffer_size,
            "learning_starts": learning_starts,
            "train_freq": train_freq,
            "gradient_steps": gradient_steps,
            "update_ratio": update_ratio,
            "replay": replay_options(replay, replay_buffer_class, replay_buffer_kwargs),
            "stats_window_size": stats_window_size,
            **options,
        }
        if update_ratio is not None and not update_ratio > 0:
            raise ValueError(f"update_ratio must be positive, got {update_ratio}")
        self.update_ratio = update_ratio
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=self.config.learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=self.config.batch_size,
            tau=self.config.tau,
            gamma=self.config.gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=self.action_spaces,
        )
        self.target_update_interval = self.config.target_update_interval
        if self._vec_normalize_env is not None and is_goal_space(self.observation_space):
            raise ValueError(
                "VecNormalize does not go with goals: achieved and desired ones would be scaled "
                "differently over time. This agent scales its inputs itself (normalise=True)."
            )
        if _init_setup_model:
            self._setup_model()

    # Settings

    @classmethod
    def option_names(cls) -> set[str]:
        """Every option of the constructor, beside SB3's own."""
        return option_names(cls.learner_class.config_class)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._convert_train_freq()
        entropy = None if self.seed is None else self.seed
        self.rng, learner_seed, replay_seed = _generators(entropy)
        self.goal_space, self.input_space = _split(self.observation_space)
        self.recent_goals: deque[tuple[NDArray[Any], bool]] = deque(maxlen=2000)
        discrete = isinstance(self.action_space, spaces.Discrete)
        sizes = Sizes(
            observation=vector_size(self.input_space),
            goal=0 if self.goal_space is None else vector_size(self.goal_space),
            action=vector_size(self.action_space),
        )
        self.rule = self._goal_rule()
        self.learner = self.learner_class(
            self.config,
            sizes,
            seed=learner_seed,
            device=self.device,
            bounds=self._return_bounds(),
        )
        self.memory = Replay(
            self.observation_space,
            self.action_space if discrete else _unit_box(self.action_space),
            self.buffer_size,
            num_envs=getattr(self, "n_envs", 1),
            rule=self.rule,
            gamma=self.config.gamma,
            seed=replay_seed,
            **self.options["replay"],
        )
        self.policy = LearnerPolicy(self.observation_space, self.action_space, self)
        self._updates_due = 0.0
        self.carry: Carry = ()
        self.totals: dict[str, Any] = {}
        self._last_batch: Batch | None = None
        self.episodes_cut = 0

    def _goal_rule(self) -> GoalRule | None:
        if self.goal_space is None or self.env is None:
            return None
        return vec_goal_rule(self.env)

    def _return_bounds(self) -> tuple[float, float] | None:
        if self.rule is None:
            return None
        low, high = self.rule.reward_range
        horizon = 1 / max(1 - self.config.gamma, 1e-6)
        bounds = (min(low * horizon, low), max(high * horizon, high))
        return bounds if np.isfinite(bounds).all() else None

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Goes on in another environment, as in SB3; from now on its goal rule counts."""
        super().set_env(env, force_reset)
        self.rule = self.memory.rule = self._goal_rule()
        self.learner.bounds = self._return_bounds()

    @property
    def replay_buffer(self) -> Any:
        """The replay, under SB3's name."""
        return getattr(self, "memory", None)

    @replay_buffer.setter
    def replay_buffer(self, value: Any) -> None:
        self.memory = value

    @property
    def goal_outcomes(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Goals `(N, *goal)` of recent training episodes and whether each was reached `(N,)`."""
        if not self.recent_goals:
            return np.zeros((0, 2)), np.zeros(0, np.bool_)
        goals, reached = zip(*self.recent_goals, strict=True)
        return np.stack(goals), np.array(reached)

    # Acting

    def act(
        self, observation: Any, carry: Carry, is_first: NDArray[np.bool_], *, explore: bool
    ) -> tuple[NDArray[Any], Carry]:
        """Actions as the replay stores them, for a batch of raw observations."""
        x, goal = self.vectors(observation, lead=1)
        return self.learner.act(x, goal, carry, is_first, explore=explore)

    def vectors(self, observation: Any, lead: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Raw observations as the learner's vectors `(..., F)` and `(..., G)`."""
        x = vectorise(self.input_space, observation, lead)
        if self.goal_space is None:
            return x, np.zeros((*x.shape[:-1], 0), np.float32)
        return x, vectorise(self.goal_space, observation["desired_goal"], lead)

    def random_fraction(self) -> float:
        """Share of training actions drawn at random."""
        return float(self.config.random_fraction)

    def _random_actions(self, count: int) -> NDArray[Any]:
        if isinstance(self.action_space, spaces.Discrete):
            return self.rng.integers(0, int(self.action_space.n), size=count)
        assert isinstance(self.action_space, spaces.Box)
        return self.rng.uniform(-1, 1, size=(count, *self.action_space.shape)).astype(np.float32)

    def _training_actions(self) -> NDArray[Any]:
        """Actions to store: random at first, then the policy's with some random ones."""
        n = self.n_envs
        if self.num_timesteps < self.learning_starts:
            return self._random_actions(n)
        assert self._last_episode_starts is not None
        action, self.carry = self.act(
            self._last_obs, self.carry, self._last_episode_starts, explore=True
        )
        if isinstance(self.action_space, spaces.Box):
            action = action.reshape(n, *self.action_space.shape)
            if self.action_noise is not None:
                action = np.clip(action + self.action_noise(), -1, 1).astype(np.float32)
        return self.with_random_actions(action)

    def with_random_actions(self, action: NDArray[Any]) -> NDArray[Any]:
        """Actions as stored `(n, ...)`, a share of them replaced by uniform ones."""
        chance = self.random_fraction()
        if chance == 0:
            return action
        replaced = self.rng.random(len(action)) < chance
        drawn = self._random_actions(len(action))
        return np.where(replaced.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, action)

    def env_actions(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored actions in the environment's own range."""
        if isinstance(self.action_space, spaces.Discrete):
            return np.asarray(stored + self.action_space.start)
        assert isinstance(self.action_space, spaces.Box)
        low, high = self.action_space.low, self.action_space.high
        scaled = low + 0.5 * (stored + 1.0) * (high - low)
        return np.asarray(np.clip(scaled, low, high), self.action_space.dtype)

    # Learning

    def iterate(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Iterator[int]:
        """`learn` as a generator.

        Yields the number of steps after every round of collecting and updating; evaluation and
        checkpoints belong between rounds.
        """
        if reset_num_timesteps or self._last_obs is None:
            self.memory.storage.cut()  # the environments are about to start anew
        total_timesteps, callback = self._setup_learn(
            total_timesteps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        check_finite("observation", self._last_obs)
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            before = self.num_timesteps
            if not self._collect(callback, log_interval):
                break
            if self.num_timesteps > self.learning_starts:
                self._learn_from(self.num_timesteps - before)
            yield self.num_timesteps
        callback.on_training_end()

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Trains, as in Stable-Baselines3."""
        for _ in self.iterate(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        ):
            pass
        return self

    def _collect(self, callback: BaseCallback, log_interval: int | None) -> bool:
        """Steps the environments until the next update is due; False where a callback stops."""
        assert self.env is not None
        callback.on_rollout_start()
        assert isinstance(self.train_freq, TrainFreq)
        frequency, unit = self.train_freq
        steps = episodes = 0
        while (steps if unit == TrainFrequencyUnit.STEP else episodes) < frequency:
            stored = self._training_actions()
            new_obs, rewards, dones, infos = self.env.step(self.env_actions(stored))
            self.num_timesteps += self.n_envs
            steps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            self._remember(stored, rewards, dones, infos, new_obs)
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            for _ in range(int(np.sum(dones))):
                episodes += 1
                self._episode_num += 1
                if log_interval is not None and self._episode_num % log_interval == 0:
                    self.dump_logs()
        callback.on_rollout_end()
        return True

    def _remember(
        self,
        stored: NDArray[Any],
        rewards: NDArray[Any],
        dones: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        new_obs: Any,
    ) -> None:
        following = new_obs
        truncated = np.zeros(self.n_envs, np.bool_)
        if dones.any():
            check_finite("observation", new_obs)  # of new episodes, before acting on it
            following = _copy(new_obs)
            for i in np.flatnonzero(dones).tolist():
                truncated[i] = infos[i].get("TimeLimit.truncated", False)
                _put(following, i, infos[i]["terminal_observation"])
                self._note_goal(i, infos[i])
        self.memory.add(self._last_obs, stored, rewards, dones & ~truncated, truncated, following)
        x, goal = self.vectors(following, lead=1)
        if self.goal_space is not None:
            achieved = vectorise(self.goal_space, following["achieved_goal"], 1)
            goal = np.concatenate([goal, achieved])
        self.learner.observe(x, goal)
        self._last_obs = new_obs
        self._last_episode_starts = dones
        self._reset_noise(dones)

    def _reset_noise(self, dones: NDArray[np.bool_]) -> None:
        if isinstance(self.action_noise, VectorizedActionNoise):
            self.action_noise.reset(np.flatnonzero(dones).tolist())
        elif self.action_noise is not None and dones.any():
            self.action_noise.reset()

    def _note_goal(self, env: int, info: dict[str, Any]) -> None:
        if self.goal_space is not None and "is_success" in info:
            assert isinstance(self._last_obs, dict)
            goal = np.array(self._last_obs["desired_goal"][env])
            self.recent_goals.append((goal, bool(info["is_success"])))

    def _learn_from(self, new_steps: int) -> None:
        if self.update_ratio is not None:
            self._updates_due += self.update_ratio * new_steps
        else:
            self._updates_due += self.gradient_steps if self.gradient_steps >= 0 else new_steps
        count = int(self._updates_due + 1e-9)  # 0.3 added ten times falls just short of 3
        self._updates_due -= count
        if count > 0:
            self.train(count, self.batch_size)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Makes `gradient_steps` updates on batches of `batch_size` windows."""
        rate = self.lr_schedule(self._current_progress_remaining)
        self.learner.learning_rate.fill_(rate)
        for _ in range(gradient_steps):
            batch = self.memory.sample(batch_size)
            names, values = self.learner.update(self.learner_batch(batch))
            key = ",".join(names)  # learners may report different metrics in different phases
            total, count = self.totals.get(key, (0.0, 0))
            self.totals[key] = (total + values, count + 1)
            self._last_batch = batch
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def learner_batch(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """A replay batch as the learner's arrays."""
        observation = batch.observation
        single = len(observation) == 1 and not isinstance(self.input_space, spaces.Dict)
        x = vectorise(self.input_space, observation["observation"] if single else observation, 2)
        if self.goal_space is None:
            goal = np.zeros((*batch.mask.shape, 0), np.float32)
        else:
            goal = vectorise(self.goal_space, batch.desired_goal, 2)
        assert batch.discount is not None
        arrays: dict[str, NDArray[Any]] = {
            "observation": x,
            "goal": goal,
            "action": batch.action,
            "reward": batch.reward,
            "discount": batch.discount,
            "mask": batch.mask.astype(np.float32),
        }
        if self.memory.steps > 1:
            assert batch.bootstrap is not None
            arrays["bootstrap"] = batch.bootstrap
        return arrays

    # Saving and loading

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as a tree of plain data.

        Taking it is itself part of the run: environments are put into exactly the state that was
        saved, and the episodes of environments that cannot give theirs are cut as truncated. A run
        that is resumed here and the run that went on are then the same, bit for bit.
        """
        return training_state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, into an agent of the same options and environments.

        Raises:
            ValueError: If the state belongs to another agent or environment.
        """
        restore_training(self, state)

    def save(
        self,
        path: Source,  # type: ignore[override]
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Saves the agent (not its replay) as one zip archive of safetensors and JSON.

        Args:
            path: File name (".zip" is added where there is no suffix) or binary file.
            exclude: Attributes to leave out, of `num_timesteps`, `verbose`, `seed`.
            include: Attributes to keep although excluded.
        """
        write_agent(self, path, set(exclude or ()) - set(include or ()))

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: Source,
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
            custom_objects: Options in place of the saved ones; unknown names are ignored, as in
                SB3.
            print_system_info: Whether to print versions and hardware.
            force_reset: Whether training begins with a reset of `env`.
            **kwargs: Options to change.

        Raises:
            CheckpointError: If the file is damaged, foreign, or carries a pickle.
            ValueError: If `env` has other spaces.
        """
        if print_system_info:
            get_system_info()
        known = {k: v for k, v in (custom_objects or {}).items() if k in cls.option_names()}
        return read_agent(cls, path, env, device, {**known, **kwargs}, force_reset)

    def save_replay_buffer(self, path: Source) -> None:  # type: ignore[override]
        """Saves the replay as one archive of plain arrays."""
        write_archive(path, {"replay": self.memory.state_dict()}, suffix=".replay")

    def load_replay_buffer(  # type: ignore[override]
        self, path: Source, truncate_last_traj: bool = True
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

    # Reporting

    def dump_logs(self) -> None:
        """Writes what happened since the last time to the logger, under SB3's tags."""
        for key, (total, count) in self.totals.items():
            for name, value in zip(key.split(","), (total / count).tolist(), strict=True):
                if not np.isfinite(value):
                    raise FloatingPointError(
                        f"{name} became {value} after {self._n_updates} updates: training has "
                        f"diverged. Lower learning_rate, or resume from the last checkpoint."
                    )
                self.logger.record(f"train/{name}", value)
        if self.totals:
            self.logger.record("train/learning_rate", self.learner.learning_rate.item())
            self.logger.record("rollout/random_fraction", self.random_fraction())
        self._record_hindsight()
        self.totals = {}
        super().dump_logs()

    def _record_hindsight(self) -> None:
        batch, rule = self._last_batch, self.rule
        if batch is None or rule is None or batch.desired_goal is None:
            return
        goal = batch.desired_goal[:, 0]
        success = rule.success(batch.observation["achieved_goal"][:, 1], goal)
        rows = batch.relabelled[:, 0]
        self.logger.record("hindsight/relabelled", rows.mean())
        if rows.any():
            self.logger.record("hindsight/relabelled_success", success[rows].mean())
        if not rows.all():
            self.logger.record("hindsight/played_success", success[~rows].mean())


def _generators(seed: int | None) -> tuple[np.random.Generator, int, np.random.SeedSequence]:
    actions, learner, replay = np.random.SeedSequence(seed).spawn(3)
    return np.random.default_rng(actions), int(learner.generate_state(1)[0]), replay


def _split(space: spaces.Space[Any]) -> tuple[spaces.Space[Any] | None, spaces.Space[Any]]:
    """The goal's space, and that of everything else in an observation."""
    if not is_goal_space(space):
        return None, space
    assert isinstance(space, spaces.Dict)
    rest = {key: part for key, part in space.spaces.items() if key != "desired_goal"}
    return space["desired_goal"], spaces.Dict(rest)


def _unit_box(space: spaces.Space[Any]) -> spaces.Box:
    assert space.shape is not None
    return spaces.Box(-1.0, 1.0, space.shape, np.float32)


def _copy(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: value.copy() for key, value in observation.items()}
    return observation.copy()


def _put(observation: Any, row: int, value: Any) -> None:
    if isinstance(observation, Mapping):
        for key, column in observation.items():
            column[row] = value[key]
    else:
        observation[row] = value
