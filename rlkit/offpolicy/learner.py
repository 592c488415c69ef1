"""Learners that update networks on batches of replayed experience.

A `GradientLearner` knows vectors only: no environment, no space, no Stable-Baselines3. A subclass
writes the learning rule; see `agents/sac.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule, return_bounds
from rlkit.latents import JointLatent
from rlkit.networks import Optimiser, UpdateFunction, gradient
from rlkit.networks.encoders import HiddenState
from rlkit.networks.gradient import Loss, Metrics, State
from rlkit.networks.torch_optimiser import TorchOptimiser
from rlkit.offpolicy.extractor import FeaturesExtractor
from rlkit.offpolicy.heads import Extraction, make_head
from rlkit.offpolicy.recurrent import Network, RecurrentEncoder
from rlkit.offpolicy.saved_learner import SavedLearner
from rlkit.offpolicy.settings import ActorCritic, LearnerConfig, Sizes
from rlkit.offpolicy.transitions import (
    TD_ERROR,
    Inputs,
    InputScaling,
    Transitions,
    reporting,
    rows_of,
    view_of,
)
from rlkit.offpolicy.untrained import Untrained
from rlkit.offpolicy.weight_average import WeightAverage

if TYPE_CHECKING:
    from rlkit.offpolicy.metrics import TrainingMetrics
    from rlkit.offpolicy.spaces import SpaceAdapter
    from rlkit.replay import ReplayBuffer

SAMPLED_AT_ONCE = 8  # batches


class GradientLearner(SavedLearner):
    """Parameters, their update, and a policy. Subclasses write the learning rule.

    Args:
        config: The settings.
        sizes: Widths of observation, goal and action.
        seed: Seed of the learner's own generator.
        device: Where everything lives.
        rule: Goal rule, whose rewards bound the value targets; None where they are unbounded.
        joint: The latent model that learns with the agent; None for none.
        extractor: The features extractor of the networks; None for none.
        achieved: First column of the achieved goal in observations, if networks subtract it.
    """

    config_class: ClassVar[type[LearnerConfig]] = LearnerConfig
    acting: ClassVar[str | None] = "actor"
    targets: ClassVar[dict[str, str]] = {}
    """By name of a target network, the network that it follows."""
    borrows: ClassVar[dict[str, str]] = {}
    """By name of an actor, the critic whose encoder it borrows if `encoder_sharing` is set so."""
    networks: dict[str, Network]

    def __init__(
        self,
        config: Any,
        sizes: Sizes,
        seed: int,
        device: torch.device | str = "cpu",
        rule: GoalRule | None = None,
        joint: JointLatent | None = None,
        extractor: FeaturesExtractor | None = None,
        achieved: int | None = None,
    ) -> None:
        self.config, self.joint = config, joint
        if config.imitation > 0 and sizes.goal == 0:
            raise ValueError(
                f"imitation = {config.imitation} is of actions that led to goals of hindsight, and "
                f"the environment has no goals; set imitation = 0"
            )
        widths = sizes.observation, sizes.goal
        if joint:
            widths = joint.widths(*widths)
        # Moments of latents that change mean nothing, and clipping them would stop their gradient.
        self.scaling = InputScaling(
            *widths,
            device,
            config.normalise and joint is None,
            config.frequencies,
            config.goal_input,
            achieved,
        )
        self.sizes = sizes = sizes.of(*self.scaling.widths)
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.actor_critic = config if isinstance(config, ActorCritic) else ActorCritic()
        self.recurrent: RecurrentEncoder | None = None
        if config.is_recurrent:
            self.recurrent = RecurrentEncoder(
                config, sizes, self.generator, self.actor_critic, self.borrows
            )
        self.extraction = (
            Extraction(extractor, config, self.borrows, self.targets) if extractor else None
        )
        self.burn_in = self.recurrent.burn_in if self.recurrent else 0
        self.optimiser: Optimiser | TorchOptimiser = config.make_optimiser()
        self.updates = 0
        self._noise = torch.zeros(0, device=self.device)
        self.td_error: Tensor | None = None  # of the last update's rows, if replay draws by them
        rate = config.learning_rate
        self.learning_rate = torch.tensor(1.0 if callable(rate) else rate, device=self.device)
        self.target_rate = torch.tensor(config.target_rate, device=self.device)
        self.target_update_interval = config.target_update_interval
        self._no_rate = torch.tensor(0.0, device=self.device)
        generator = torch.Generator().manual_seed(seed)
        state = self.initial_state(generator)
        self._functions: dict[str, Any] = dict(self.networks)
        if joint is not None:
            state |= joint.initial_state(generator)
            self._functions["latent"] = joint.model
        if isinstance(self.optimiser, TorchOptimiser):
            state = self.optimiser.in_place_of_adam(state, self._functions)
        self.state = {name: value.to(self.device) for name, value in state.items()}
        acting, decay = self.state[str(self.acting)], config.policy_ema
        self.average = WeightAverage(acting, decay) if decay > 0 else None
        if self.recurrent is not None:
            self.recurrent.attach(self.networks, self.targets, str(self.acting))
        self.untrained = Untrained(self) if config.has_modules else None
        self.set_rule(rule)
        widths = (*config.layers("pi"), *config.layers("qf"), config.learned_fourier[0])
        width = max((*widths, self.recurrent.features if self.recurrent else 0), default=0)
        function = joint.before(self.update_function) if joint else self.update_function
        self._update = UpdateFunction(reporting(function), config.compile, width)

    def initial_state(self, generator: torch.Generator) -> State:
        """Fresh tensors: a flat vector per network (with `adam_state`) and what else learns."""
        raise TypeError(f"{type(self).__name__} must define initial_state")

    def update_function(
        self, state: State, batch: State, noise: Tensor, target_rate: Tensor, step: int
    ) -> tuple[State, Metrics]:
        """One update, a pure function; returns the changed part of the state, and metrics.

        Args:
            state: The learner's tensors.
            batch: See `prepare`.
            noise: What `draw_noise` gave.
            target_rate: Update coefficient of the targets now; 0 between their updates.
            step: The update's phase, where updates differ (delayed policies); static.
        """
        raise TypeError(f"{type(self).__name__} must define update_function")

    def draw_noise(self, rows: int) -> Tensor:
        """Random numbers of one update over `rows` transitions."""
        return torch.zeros(0, device=self.device)

    def phase(self) -> int:
        """The static `step` argument of the next update."""
        return 0

    def policy(self, inputs: Inputs, explore: bool) -> Tensor:
        """Actions `(n, A)` in [-1, 1], or integers `(n,)` or `(n, K)`, of the acting network."""
        raise TypeError(f"{type(self).__name__} must define policy")

    # Acting; see `rlkit.offpolicy.contract.Learner`

    def set_rule(self, rule: GoalRule | None) -> None:
        """Takes over a goal rule: the possible returns bound value targets."""
        self.bounds = return_bounds(rule, self.config.gamma)

    def initial(self, count: int) -> HiddenState:
        """Hidden state of `count` fresh episodes; empty without an encoder."""
        return () if self.recurrent is None else self.recurrent.initial(count)

    def act(
        self,
        observation: NDArray[np.float32],
        goal: NDArray[np.float32],
        hidden_state: HiddenState,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
        visible: NDArray[np.float32] | None = None,
        reward: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[Any], HiddenState]:
        """See `Learner.act`."""
        weights = nullcontext() if explore or not self.average else self.average.in_place(self)
        with torch.no_grad(), weights:
            batch = self.prepare({"observation": observation, "goal": goal})
            x = self.scaling.observation(batch, batch["observation"])
            g = self.scaling.goal(batch, batch["goal"], batch["observation"])
            if visible is not None:
                g = g * self._tensor(visible).unsqueeze(-1)
            if self.recurrent is None:
                action = self.policy(self.inputs(x, g), explore)
                return action.cpu().numpy(), hidden_state
            read = {"observation": x, "goal": g, "is_first": self._tensor(is_first)}
            read["previous_action"] = hidden_state[0]
            if reward is not None:
                read["previous_reward"] = self._tensor(reward)
            features, hidden_state = self.recurrent.step(self.state, read, hidden_state)
            action = self.policy((features, x, g), explore)
            return action.cpu().numpy(), self.recurrent.acted(hidden_state, action)

    def inputs(self, observation: Tensor, goal: Tensor, name: str | None = None) -> Inputs:
        """What a network of a feed-forward agent reads of `(n, F)` and `(n, G)`, both scaled."""
        inputs = (observation[:, :0], observation, goal)
        if self.extraction is None:
            return inputs
        return (self.extraction.features(self.state, name or str(self.acting), inputs), *inputs[1:])

    def exploration_noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers of a shape, correlated with those of the previous step."""
        noise = torch.randn(like.shape, generator=self.generator, device=self.device)
        share = self.actor_critic.coloured_noise
        if share > 0:
            if self._noise.shape == noise.shape:
                noise = share * self._noise + (1 - share**2) ** 0.5 * noise
            self._noise = noise
        return noise

    def acted(self, hidden_state: HiddenState, action: NDArray[Any]) -> HiddenState:
        """See `Learner.acted`."""
        if self.recurrent is None or not hidden_state:
            return hidden_state
        return self.recurrent.acted(hidden_state, self._tensor(action))

    def to_store(self, hidden_state: HiddenState) -> tuple[NDArray[np.float32], ...] | None:
        """The encoders' hidden states; None where windows start with a zero one."""
        if self.recurrent is None or not self.recurrent.stored_shapes:
            return None
        return tuple(part.cpu().numpy() for part in hidden_state[1:])

    # Learning

    def replay_options(self) -> dict[str, Any]:
        """See `Learner.replay_options`."""
        options = {"steps_to_goal": True} if self.config.imitation > 0 else {}
        return options if self.recurrent is None else options | self.recurrent.replay_options()

    def observe(self, observation: NDArray[Any], goals: NDArray[Any]) -> None:
        """Updates running moments with collected observations `(n, F)` and goals `(m, G)`."""
        self.scaling.observe(observation, goals)

    def learn(
        self,
        replay_buffer: ReplayBuffer,
        adapter: SpaceAdapter,
        gradient_steps: int,
        batch_size: int,
        metrics: TrainingMetrics,
    ) -> int:
        """Makes `gradient_steps` updates on batches of `batch_size` windows."""
        # Several batches at once: most of a sample's time does not depend on its size.
        at_once = SAMPLED_AT_ONCE if self.recurrent is None else 1
        for done in range(0, gradient_steps, at_once):
            sampled = replay_buffer.sample(min(at_once, gradient_steps - done) * batch_size)
            arrays = adapter.batch(sampled)
            for start in range(0, len(sampled), batch_size):
                batch = {k: array[start : start + batch_size] for k, array in arrays.items()}
                metrics.add_update(*self.update(batch))
                if self.td_error is not None and self.td_error.isfinite().all():  # not skipped
                    part = sampled.part(slice(start, start + batch_size))
                    error = self.td_error.reshape(len(part), -1).cpu().numpy()
                    replay_buffer.update_priorities(part, error)
            metrics.add_batch(sampled.part(slice(start, None)), replay_buffer.rule)
        return gradient_steps

    def update(self, batch: dict[str, NDArray[Any]]) -> tuple[list[str], Tensor]:
        """Learns from one batch, see `SpaceAdapter.batch`.

        Returns:
            Names and values `(M,)` of the metrics.
        """
        rows = batch["reward"][:, self.burn_in :].size
        is_due = (self.updates + 1) % self.target_update_interval == 0
        rate = self.target_rate if is_due else self._no_rate
        inputs = self.draw_noise(rows), rate, self.phase()
        missing = torch.full((rows,), torch.nan, device=self.device)
        self.td_error = missing if "importance" in batch else None
        state = self.state if self.td_error is None else {**self.state, TD_ERROR: missing}
        tensors = self._tensors(batch) | self._drawn_critics()
        with self.untrained.updating(targets=is_due) if self.untrained else nullcontext():
            result = self._update(state, tensors, *inputs)
        self.updates += 1
        if self.average is not None:
            self.average.update(self.state[str(self.acting)], self.updates)
        return result

    def _drawn_critics(self) -> State:
        """Which critics the targets of the next update are of, if not of all."""
        count = self.actor_critic.target_critics
        if count is None:
            return {}
        order = torch.randperm(self.config.critics, generator=self.generator, device=self.device)
        return {"target_critics": order[:count]}

    def prepare(self, batch: dict[str, NDArray[Any]]) -> State:
        """The tensors that networks read of a batch."""
        tensors = self._tensors(batch)
        return tensors if self.joint is None else self.joint.encode(self.state, tensors)

    def _tensors(self, batch: dict[str, NDArray[Any]]) -> State:
        tensors = {name: self._tensor(array) for name, array in batch.items()}
        tensors |= self.scaling.tensors()
        tensors["learning_rate"] = self.learning_rate
        return tensors

    def transitions(self, state: State, batch: State, *networks: str) -> Transitions:
        """Every step that is learned from as a row, with a view for each of some networks."""
        features: dict[str, tuple[Tensor, Tensor | None]] = {}
        with torch.set_grad_enabled(self.joint is not None):
            rows = rows_of(batch, self.burn_in, self.scaling)
            if self.recurrent is not None:
                features = self.recurrent.scan(state, self.scaled(batch), networks)
        views = {}
        for name in networks:
            is_actor = self.targets.get(name, name) == self.acting
            sees_goal = self.actor_critic.critic_sees_goal and not is_actor
            parameters, own = features.get(name, (state[name], None))
            view = view_of(parameters, own, rows, batch, self.burn_in, sees_goal)
            views[name] = self.extraction.view(state, name, view) if self.extraction else view
        kept = ("action", "reward", "discount", "weight", "steps_to_goal")
        found = {name: rows[name] for name in kept if name in rows}
        drawn = batch.get("target_critics")
        return Transitions(
            views, **found, target_critics=drawn, reports_errors="importance" in batch
        )

    # What learning rules call

    def network(
        self,
        name: str,
        inputs: tuple[int, ...],
        outputs: int,
        members: int = 1,
        layer_norm: bool = False,
    ) -> Network:
        """A network that reads the encoder's features, if there is one, and then `inputs`."""
        if self.recurrent is not None:
            return self.recurrent.network(name, inputs, outputs, members, layer_norm)
        if self.extraction is not None:
            return self.extraction.network(name, inputs, outputs, members, layer_norm)
        return make_head(self.config, name, (0, *inputs), outputs, members, layer_norm)

    def descend(self, state: State, name: str, grad: Tensor, batch: State) -> State:
        """One step of the optimiser for a network: clipped, encoders at their own rate."""
        rate = batch["learning_rate"]
        if self.recurrent is not None and name in self.recurrent.rate_scale:
            rate = rate * self.recurrent.rate_scale[name]
        if self.untrained is not None:
            return self.untrained.descend(state, name, grad, rate)
        return self.optimiser.step(state, name, self.clip(grad), rate)

    def critic_gradient(
        self, loss: Loss, vector: Tensor, state: State, batch: State
    ) -> tuple[Tensor, Metrics, State]:
        """Gradient and metrics of the critic's loss; the step of a latent model that it trains."""
        if self.joint is None:
            return *gradient(loss, vector), {}
        grad, of_latent, metrics = self.joint.gradient(loss, vector, batch)
        return grad, metrics, self.descend(state, "latent", of_latent, batch)

    def with_actor_gradient(
        self, grad: Tensor, actor_loss: Callable[[], tuple[Tensor, Any]], critic: Tensor
    ) -> Tensor:
        """A critic's gradient plus the actor's at an encoder that both train."""
        if self.recurrent is None:
            return grad
        return self.recurrent.add_actor_gradient(grad, actor_loss, critic)

    def encoder_grad_norm(self, name: str, grad: Tensor) -> Metrics:
        """The norm of the encoder's part of a network's gradient, as a metric."""
        return {} if self.recurrent is None else self.recurrent.grad_norm(name, grad)

    def scaled(self, batch: State) -> State:
        """A prepared batch with observations and goals scaled, as encoders read them."""
        return {**batch, **self.scaling.of_windows(batch)}

    def bound(self, target: Tensor) -> Tensor:
        """Value targets clipped to the returns that are possible."""
        if self.bounds is None or not self.config.bound_targets:
            return target
        return target.clamp(*self.bounds)

    def clip(self, grad: Tensor) -> Tensor:
        """A gradient of norm `max_grad_norm` at most."""
        longest = self.config.max_grad_norm
        return grad if longest is None else grad * (longest / (grad.norm() + 1e-6)).clamp(max=1.0)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
