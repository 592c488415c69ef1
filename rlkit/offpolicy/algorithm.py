"""Stable-Baselines3's life cycle around a `Learner`, shared by all agents.

The only subclass of SB3's `OffPolicyAlgorithm`: collection, replay buffer, training, saving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback

from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy import latent_fitting, persistence
from rlkit.offpolicy.arguments import check_arguments, device_of
from rlkit.offpolicy.collect import collect, first_observations, restart_episodes
from rlkit.offpolicy.contract import Learner
from rlkit.offpolicy.diagnostics import record_diagnostics
from rlkit.offpolicy.episode_goals import make_episode_goals
from rlkit.offpolicy.explorer import make_explorer
from rlkit.offpolicy.goal_diagnostics import value_curve
from rlkit.offpolicy.held_actions import HeldActions
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.metrics import TrainingMetrics
from rlkit.offpolicy.observation_encoder import make_observation_encoder
from rlkit.offpolicy.options import (
    configure,
    describe_generator,
    empty_replay,
    make_adapter,
    make_learner,
    option_names,
    plain_options,
    replay_options,
    require_action_repeat,
    require_replay,
    settle_action_repeat,
    settle_recurrence,
    update_rule,
)
from rlkit.offpolicy.policy import LearnerPolicy, policy_class
from rlkit.offpolicy.policy_options import policy_name
from rlkit.offpolicy.saving import SavedAlgorithm
from rlkit.offpolicy.spaces import rule_of, wrap_env
from rlkit.replay import ReplayBuffer, check_finite


class Algorithm(SavedAlgorithm):
    """An off-policy agent.

    Args:
        policy: "MultiInputPolicy" for Dict observations, "MlpPolicy" for others; "CnnPolicy" for
            images that a network learns to encode with the agent, end to end.
        env: An environment, its id, or a VecEnv; None only to load a policy for `predict`.
        learning_rate: A number, or a function of the remaining progress; saved as a table.
        buffer_size: Slots of the replay buffer, over all environments.
        learning_starts: Steps of uniformly random actions before learning.
        batch_size, tau, gamma: Fields of the learner's configuration, here in SB3's order.
        train_freq: Environment steps between updates: a number, or `(1, "episode")`.
        gradient_steps: Updates each time; -1 makes as many as steps were taken.
        update_ratio: Updates per step, any positive number; replaces `gradient_steps`.
        random_action_repeat: Most decisions for which a random action is held, see
            `rlkit.offpolicy.held_actions`; 1 draws each anew.
        explorer: A share of training episodes that a policy begins which seeks changes of the
            achieved goal, or its settings, see `rlkit.offpolicy.explorer`; None for none.
        replay: Options of `rlkit.replay.ReplayBuffer`: `hindsight` ("original" switches it off),
            `steps` (n-step sums), `share`, `directory` (images on disk).
        latent: Latent model of images, as `rlkit.latents.LATENTS.make` takes it, or None; fitted
            before the training, then frozen or refreshed.
        pretraining: How it is fitted: fields of `rlkit.latents.pretraining.Pretraining`.
        reward_source: What rewards image goals in training: "environment" or "latent" model.
        goal_generator: Proposes goals of training episodes, see `rlkit.goals.generators`.
        action_noise: Stable-Baselines3's noise object, added to actions in training.
        policy_kwargs: Settings where SB3 expects them, see docs/sb3.md: `net_arch`,
            `activation_fn`, `optimizer_class`, `features_extractor_class`, ...; or `network`.
        replay_buffer_class: None, or `HerReplayBuffer`, whose `replay_buffer_kwargs` are
            translated; SB3's other buffers switch hindsight off, which is on for any environment
            with goals.
        optimize_memory_usage: No effect; observations are stored once anyway.
        stats_window_size: Episodes over which reported means run.
        tensorboard_log, verbose, seed, device: As in SB3.
        **options: Fields of the learner's configuration, and SB3's `n_steps`.

    Raises:
        ValueError: If an option is unknown or out of range, or a space is not supported.
    """

    learner_class: ClassVar[Any]  # makes a `Learner`
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]]
    evolving: ClassVar[tuple[str, ...]] = ()  # numbers of the subclass that change in training
    action_repeat = 1  # environment steps of one decision
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(
        ("MlpPolicy", "MultiInputPolicy", "CnnPolicy"), LearnerPolicy
    )
    learner: Learner
    metrics: TrainingMetrics
    replay_buffer: ReplayBuffer  # type: ignore[assignment]
    _wrap_env = staticmethod(wrap_env)
    make_learner = make_learner
    restart_episodes = restart_episodes

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any = None,
        learning_rate: Any = None,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int | None = None,
        tau: float | None = None,
        gamma: float | None = None,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        *,
        update_ratio: float | None = None,
        random_action_repeat: int = 1,
        explorer: Any = None,
        replay: Mapping[str, Any] | None = None,
        latent: Any = None,
        pretraining: Mapping[str, Any] | None = None,
        reward_source: str = "environment",
        goal_generator: Any = None,
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
        check_arguments(**locals())
        policy = policy_name(policy)
        positional = {
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "tau": tau,
            "gamma": gamma,
        }
        options |= {name: value for name, value in positional.items() if value is not None}
        latent, replay, options = plain_options(policy, latent, replay, options, policy_kwargs)
        self.config = configure(type(self).__name__, self.learner_class.config_class, options)
        self.options = {
            "buffer_size": buffer_size,
            "learning_starts": learning_starts,
            "train_freq": train_freq,
            "gradient_steps": gradient_steps,
            "update_ratio": update_ratio,
            "random_action_repeat": random_action_repeat,
            "explorer": explorer,
            "replay": replay_options(replay, replay_buffer_class, replay_buffer_kwargs),
            "latent": latent,
            "pretraining": dict(pretraining or {}),
            "reward_source": reward_source,
            "goal_generator": describe_generator(goal_generator),
            "stats_window_size": stats_window_size,
            **options,
        }
        self.update_ratio = update_ratio
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=self.config.schedule,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=self.config.windows,
            tau=getattr(self.config, "target_rate", 1.0),
            gamma=self.config.gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device_of(device),
            support_multi_env=True,
            seed=seed,
            sde_support=False,
        )
        self.target_update_interval = getattr(self.config, "target_update_interval", 1)
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def option_names(cls) -> set[str]:
        """Every option of the constructor, beside SB3's."""
        return option_names(cls.learner_class.config_class)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._convert_train_freq()
        actions, learner, self.replay_seed, latent = np.random.SeedSequence(self.seed).spawn(4)
        self.rng = np.random.default_rng(actions)
        self.observation_encoder = make_observation_encoder(self, latent)
        self.adapter = make_adapter(self)
        self.config = settle_recurrence(self.config, self.adapter)
        settle_action_repeat(self)
        self.learner = self.make_learner(learner)
        self.episode_goals = make_episode_goals(self)
        self.replay_buffer = empty_replay(self)
        self.policy = policy_class(type(self))(self)
        for name, module in self.policy.named_children():  # model.actor, model.critic, ...
            setattr(self, name, module)
        count = getattr(self, "n_envs", 1)
        longest = self.options["random_action_repeat"]
        self.held_actions = HeldActions(self.adapter, count, longest) if longest > 1 else None
        self.explorer = make_explorer(self, self.replay_seed)
        self._updates_due = 0.0
        self.hidden_state = self.learner.initial(count)
        self.metrics = self.make_metrics()
        self.episodes_cut = 0

    @property
    def rule(self) -> Any:
        """The goal rule, for goals as the agent works with them; None without goals."""
        return self.observation_encoder.rule

    def make_metrics(self) -> TrainingMetrics:
        """Collects metrics between two writings to the logger."""
        return TrainingMetrics()

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Goes on in another environment, as in SB3; from now on its goal rule counts."""
        env = self._wrap_env(env, self.verbose)
        require_action_repeat(self, env)
        super().set_env(env, force_reset)
        require_replay(self)
        before = self.observation_encoder.space
        self.observation_encoder.set_rule(rule_of(self.env))
        self.adapter = make_adapter(self)
        update_rule(self, before)
        self.learner.set_rule(self.replay_buffer.rule)

    @property
    def goal_outcomes(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Goals `(N, *goal)` of recent training episodes and whether each was reached `(N,)`."""
        return self.metrics.goal_outcomes

    def value_curve(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """Values against steps to the goal; see `rlkit.offpolicy.goal_diagnostics.ValueCurve`."""
        curve = value_curve(self)
        return None if curve is None else (curve.steps, curve.value, curve.achieved)

    def act(
        self,
        observation: Any,
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> tuple[NDArray[Any], HiddenState]:
        """Actions as the replay buffer stores them, for a batch of encoded observations."""
        x, goal = self.adapter.vectors(observation)
        more = self.adapter.acting_inputs(observation, self.rule)
        # `predict` passes a hidden state of its own, whose part for critics is never used.
        if hidden_state is self.hidden_state and getattr(self.config, "critic_sees_reward", False):
            more["reward"] = self.replay_buffer.storage.latest_reward
        return self.learner.act(x, goal, hidden_state, is_first, explore=explore, **more)

    def random_fraction(self) -> float:
        """Share of training actions drawn at random."""
        return float(getattr(self.config, "random_fraction", 0.0))

    @property
    def is_random_phase(self) -> bool:
        """Whether training actions are drawn uniformly now, before learning starts."""
        config: Any = self.config
        explores = getattr(config, "use_sde", False) and config.use_sde_at_warmup
        return self.num_timesteps < self.learning_starts and not explores

    def before_step(self, steps: int) -> None:
        """Called before each step of a rollout, with the number of its steps so far."""

    def iterate(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Iterator[int]:
        """`learn` as a generator of the number of steps, which it yields after every round."""
        if getattr(self, "replay_buffer", None) is None:  # deleted to save memory
            require_replay(self)
        if starts_anew := reset_num_timesteps or self._last_obs is None:
            self.replay_buffer.storage.cut()
        total_timesteps, callback = self._setup_learn(
            total_timesteps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        if self.env is not None and not self.observation_encoder.is_ready:
            for _ in latent_fitting.pretrain(self):
                yield self.num_timesteps
            self._last_obs, starts_anew = self.env.reset(), True  # type: ignore[assignment]
        if starts_anew:
            self._last_obs = first_observations(self, self._last_obs)
        check_finite("observation", self._last_obs)
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            if self.observation_encoder.is_stale:
                yield from latent_fitting.refresh(self)
            before = self.num_timesteps
            if not collect(self, callback, log_interval):
                break
            if self.num_timesteps > self.learning_starts:
                self._learn_from(self.num_timesteps - before)
            yield self.num_timesteps
        callback.on_training_end()

    def refresh(self) -> None:
        """Fits the latent model again before the next step; running episodes are cut there.

        Raises:
            ValueError: If there is no latent model, it is frozen, or nothing is stored yet.
        """
        latent_fitting.request_refresh(self)

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
        flags = (log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        for _ in self.iterate(total_timesteps, callback, *flags):
            pass
        return self

    def _learn_from(self, new_steps: int) -> None:
        if self.update_ratio is not None:
            self._updates_due += self.update_ratio * new_steps
        else:
            self._updates_due += self.gradient_steps if self.gradient_steps >= 0 else new_steps
        count = int(self._updates_due + 1e-9)  # 0.3 added ten times falls just short of 3
        self._updates_due -= count
        self.train(count)

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        """Makes updates on batches of `batch_size` windows; None takes the agent's own.

        The learning rate is `lr_schedule` now, the targets follow by `tau` and
        `target_update_interval`: attributes that may be changed, as in SB3.
        """
        self.learner.learning_rate.fill_(self.lr_schedule(self._current_progress_remaining))
        if isinstance(self.learner, GradientLearner):
            self.learner.target_rate.fill_(self.tau)
            self.learner.target_update_interval = self.target_update_interval
        size = self.batch_size if batch_size is None else batch_size
        self._n_updates += self.learner.learn(
            self.replay_buffer, self.adapter, gradient_steps, size, self.metrics
        )
        if self.explorer is not None:
            self.explorer.learn(self, gradient_steps)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as nested plain data.

        Taking it is part of the run: environments are put into exactly the state that was saved,
        or their episodes cut. The resumed run and the one that went on are the same, bit for bit.
        """
        return persistence.training_state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, into an agent of the same options and environments.

        Raises:
            ValueError: If the state belongs to another agent or environment.
        """
        persistence.restore_training(self, state)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy"], []

    def dump_logs(self) -> None:
        """Writes metrics since the last call to the logger, under SB3's tags."""
        record_diagnostics(self)
        self.metrics.write(self.logger)
        self.logger.record("train/learning_rate", self.learner.learning_rate.item())
        self.logger.record("rollout/random_fraction", self.random_fraction())
        super().dump_logs()
