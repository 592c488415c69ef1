"""A policy that acts and an update that learns, without an environment.

A `Learner` knows vectors only. `rlkit/offpolicy/algorithm.py` puts it into SB3's lifecycle.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks import ADAM, Normaliser, UpdateFunction, adam_state, gradient, normalise
from rlkit.networks.encoders import HiddenState, Network
from rlkit.networks.gradient import Loss, Metrics, State
from rlkit.offpolicy.joint import JointLatent
from rlkit.offpolicy.recurrent import Memory, Recall
from rlkit.offpolicy.settings import LearnerConfig, Sizes


class Learner:
    """Parameters, their update, and a policy. Subclasses write the learning rule.

    A subclass creates its networks in `initial_state` and gives the pure function
    `update_function`; see `agents/sac.py`.

    Args:
        config: The settings.
        sizes: Widths of observation, goal and action.
        seed: Seed of the learner's own generator.
        device: Where everything lives.
        bounds: Lowest and highest return that is possible, None where unbounded.
        joint: The latent model that learns with the agent; None for none.
    """

    networks: dict[str, Network]
    config_class: ClassVar[type[LearnerConfig]] = LearnerConfig
    acting: ClassVar[str] = "actor"
    """The network that acts."""

    def __init__(
        self,
        config: Any,
        sizes: Sizes,
        seed: int,
        device: torch.device | str = "cpu",
        bounds: tuple[float, float] | None = None,
        joint: JointLatent | None = None,
    ) -> None:
        self.config, self.bounds, self.joint = config, bounds, joint
        self.sizes = sizes = joint.sizes(sizes) if joint else sizes
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.recurrent = Memory(config, sizes, self.generator)
        # Moments of codes that change say nothing, and clipping them would stop their gradient.
        self.scales = config.normalise and joint is None
        self.observation_normaliser = Normaliser(sizes.observation, device, self.scales)
        self.goal_normaliser = Normaliser(sizes.goal, device, self.scales)
        self.updates = 0
        self._noise = torch.zeros(0, device=self.device)
        rate = config.learning_rate
        self.learning_rate = torch.tensor(1.0 if callable(rate) else rate, device=self.device)
        rates = (0.0, config.refresh_share)
        self._target_rates = [torch.tensor(share, device=self.device) for share in rates]
        generator = torch.Generator().manual_seed(seed)
        state = self.initial_state(generator)
        self._functions: dict[str, Any] = dict(self.networks)
        if joint is not None:
            state |= joint.initial_state(generator)
            self._functions["latent"] = joint.model
        self.state = {name: value.to(self.device) for name, value in state.items()}
        self.recurrent.attach(self.networks, self.acting)
        width = max((*config.net_arch, self.recurrent.features), default=0)
        function = joint.before(self.update_function) if joint else self.update_function
        self._update = UpdateFunction(function, config.compile, width)

    # What a subclass writes

    def initial_state(self, generator: torch.Generator) -> State:
        """Fresh tensors: a flat vector per network (with `adam_state`) and what else learns."""
        raise TypeError(f"{type(self).__name__} must define initial_state")

    def update_function(
        self, state: State, batch: State, noise: Tensor, target_rate: Tensor, step: int
    ) -> tuple[State, Metrics]:
        """One update, pure, to the changed part of the state and the metrics.

        Args:
            state: The learner's tensors.
            batch: See `prepare`.
            noise: What `draw_noise` gave.
            target_rate: Share of the way that the target goes; 0 between refreshes.
            step: The update's phase, where updates differ (delayed policies); static.
        """
        raise TypeError(f"{type(self).__name__} must define update_function")

    def draw_noise(self, rows: int) -> Tensor:
        """Random numbers of one update over `rows` transitions."""
        return torch.zeros(0, device=self.device)

    def phase(self) -> int:
        """The static `step` argument of the next update."""
        return 0

    def policy(self, memory: Tensor, observation: Tensor, goal: Tensor, explore: bool) -> Tensor:
        """Actions `(n, A)` in [-1, 1], or integers `(n,)`, given memory `(n, D)`, scaled inputs."""
        raise TypeError(f"{type(self).__name__} must define policy")

    # Acting

    def initial(self, count: int) -> HiddenState:
        """Hidden state of `count` fresh episodes; empty without an encoder."""
        return self.recurrent.initial(count)

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
        """Actions for a batch of environments.

        Args:
            observation: `(n, F)`.
            goal: `(n, G)`.
            hidden_state: Memory from the step before.
            is_first: Where an episode begins, `(n,)`: memory is fresh there.
            explore: Whether to act as in training.
            visible: 1 where the goal may be seen, else 0, `(n,)`; None: everywhere.
            reward: The previous step's reward `(n,)`, where the memory reads it.

        Returns:
            Actions `(n, A)` in [-1, 1], or integers `(n,)`, and the next hidden state.
        """
        with torch.no_grad():
            seen = self.prepare({"observation": observation, "goal": goal})
            x = self._scaled(seen, "observation", seen["observation"])
            g = self._scaled(seen, "goal", seen["goal"])
            if visible is not None:
                g = g * self._tensor(visible).unsqueeze(-1)
            if self.recurrent.encoder is None:
                action = self.policy(x.new_zeros(len(x), 0), x, g, explore)
                return action.cpu().numpy(), hidden_state
            first = self._tensor(is_first)
            read = {
                "observation": x,
                "goal": g,
                "is_first": first,
                "previous_action": hidden_state[0],
            }
            if reward is not None:
                read["previous_reward"] = self._tensor(reward)
            memory, hidden_state = self.recurrent.step(self.state, read, hidden_state)
            action = self.policy(memory, x, g, explore)
            return action.cpu().numpy(), self.recurrent.acted(hidden_state, action)

    def exploration_noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers of a shape, correlated with those of the step before."""
        noise = torch.randn(like.shape, generator=self.generator, device=self.device)
        share = self.config.coloured_noise
        if share > 0:
            if self._noise.shape == noise.shape:
                noise = share * self._noise + (1 - share**2) ** 0.5 * noise
            self._noise = noise
        return noise

    def acted(self, hidden_state: HiddenState, action: NDArray[Any]) -> HiddenState:
        """The memory after actions `(n, ...)` that were taken instead of those it had chosen."""
        return (
            self.recurrent.acted(hidden_state, self._tensor(action))
            if hidden_state
            else hidden_state
        )

    def to_store(self, hidden_state: HiddenState) -> tuple[NDArray[np.float32], ...] | None:
        """What the replay keeps of a carry; None where windows start with a fresh memory."""
        if not self.recurrent.stored_hidden_state:
            return None
        return tuple(part.cpu().numpy() for part in hidden_state[1:])

    # Learning

    def observe(self, observation: NDArray[Any], goals: NDArray[Any]) -> None:
        """Takes collected observations `(n, F)` and goals `(m, G)` into the running moments."""
        self.observation_normaliser.observe(observation)
        self.goal_normaliser.observe(goals)

    def update(self, batch: dict[str, NDArray[Any]]) -> tuple[list[str], Tensor]:
        """Learns from one batch.

        Args:
            batch: Arrays `observation (B, L, F)` with L = T + 1 or more, `goal (B, T, G)`,
                `action (B, T, ...)`, `reward`, `discount`, `mask (B, T)`; `bootstrap (B, T)` where
                the value does not follow from the next observation; `visible (B, L)` where goals
                are hidden; for a memory also `is_first (B, L)`, and `previous_action`,
                `previous_reward (B, L)` and carries `hidden_state.0 (B, ...)` as the settings ask.

        Returns:
            Names and values `(M,)` of the metrics.
        """
        rows = batch["reward"][:, self.recurrent.warm :].size
        refreshes = (self.updates + 1) % self.config.target_update_interval == 0
        target_rate = self._target_rates[refreshes]
        result = self._update(
            self.state, self._tensors(batch), self.draw_noise(rows), target_rate, self.phase()
        )
        self.updates += 1
        return result

    def prepare(self, batch: dict[str, NDArray[Any]]) -> State:
        """What networks read of a batch: tensors, with scaling and learning rate beside them."""
        tensors = self._tensors(batch)
        return tensors if self.joint is None else self.joint.see(self.state, tensors)

    def _tensors(self, batch: dict[str, NDArray[Any]]) -> State:
        tensors = {name: self._tensor(array) for name, array in batch.items()}
        for name in ("observation", "goal"):
            tensors[f"{name}_shift"], tensors[f"{name}_scale"] = self._scaling(name)
        tensors["learning_rate"] = self.learning_rate
        return tensors

    def transitions(self, batch: State) -> State:
        """Every step that is learned from as a row; what came before it is in `recall`.

        Returns:
            `observation`, `following (R, F)`, `goal`, `following_goal`, `critic_goal`,
            `following_critic_goal (R, G)`, `action`, and `reward`, `discount`, `weight (R,)`, where
            weights are 1 over the number of valid steps.
        """
        with torch.set_grad_enabled(self.joint is not None):
            return self._transitions(batch)

    def _transitions(self, batch: State) -> State:
        x, steps = batch["observation"], batch["reward"].shape[1]
        part = slice(self.recurrent.warm, steps)
        goal = self._scaled(batch, "goal", batch["goal"][:, part])
        following_goal = critic_goal = following_critic_goal = goal
        if "visible" in batch:
            visible = batch["visible"].unsqueeze(-1)
            following_goal = goal * self.recurrent.following(batch, visible)
            goal = goal * visible[:, part]
            if not self.config.critic_sees_goal:
                critic_goal, following_critic_goal = goal, following_goal
        mask = batch["mask"][:, part]
        rows = {
            # Scaled after cutting, so that the parts are contiguous: products are faster then.
            "observation": self._scaled(batch, "observation", x[:, part]),
            "following": self._scaled(batch, "observation", self.recurrent.following(batch, x)),
            "goal": goal,
            "following_goal": following_goal,
            "critic_goal": critic_goal,
            "following_critic_goal": following_critic_goal,
            "action": batch["action"][:, part],
            "reward": batch["reward"][:, part],
            "discount": batch["discount"][:, part],
            "weight": mask / mask.sum(),
        }
        return {name: value.flatten(0, 1) for name, value in rows.items()}

    def recall(self, state: State, batch: State, *names: str) -> dict[str, Recall]:
        """What networks remember at every row of `transitions`; see `Memory.recall`."""
        if self.recurrent.encoder is None:
            nothing = batch["reward"].new_zeros(batch["reward"].numel(), 0)
            return {name: Recall(state[name], nothing, nothing) for name in names}
        with torch.set_grad_enabled(self.joint is not None):
            return self.recurrent.recall(state, self._all_scaled(batch), names)

    def memory_inputs(self, batch: State) -> Tensor:
        """What the memory reads at all observations of a prepared batch, `(B, L, I)`."""
        return self.recurrent.window_inputs(self._all_scaled(batch))

    def network(
        self,
        inputs: tuple[int, ...],
        outputs: int,
        members: int = 1,
        layer_norm: bool = False,
        *,
        borrows: bool = False,
    ) -> Network:
        """A network that reads the memory and then `inputs`; see `Memory.network`."""
        return self.recurrent.network(inputs, outputs, members, layer_norm, borrows)

    def descend(self, state: State, name: str, grad: Tensor, batch: State) -> State:
        """One step of Adam for a network: clipped, encoders at their own rate."""
        rate = batch["learning_rate"]
        if name in self.recurrent.rate_scale:
            rate = rate * self.recurrent.rate_scale[name]
        return ADAM.step(state, name, self.clip(grad), rate)

    def critic_gradient(
        self, loss: Loss, vector: Tensor, state: State, batch: State
    ) -> tuple[Tensor, Metrics, State]:
        """Gradient of the critic's loss, its metrics, and the step of a jointly trained latent."""
        if self.joint is None:
            return *gradient(loss, vector), {}
        grad, pull, metrics = self.joint.gradient(loss, vector, batch)
        return grad, metrics, self.descend(state, "latent", pull, batch)

    def _scaled(self, batch: State, name: str, x: Tensor) -> Tensor:
        if not self.scales:
            return x
        return normalise(x, batch[f"{name}_shift"], batch[f"{name}_scale"])

    def _all_scaled(self, batch: State) -> State:
        scaled = {name: self._scaled(batch, name, batch[name]) for name in ("observation", "goal")}
        return {**batch, **scaled}

    def bound(self, target: Tensor) -> Tensor:
        """Value targets clipped to the returns that are possible."""
        if self.bounds is None or not self.config.bound_targets:
            return target
        return target.clamp(*self.bounds)

    def clip(self, grad: Tensor) -> Tensor:
        """A gradient no longer than `max_grad_norm`."""
        if self.config.max_grad_norm is None:
            return grad
        excess: Tensor = self.config.max_grad_norm / (grad.norm() + 1e-6)
        return grad * excess.clamp(max=1.0)

    def weights(self) -> dict[str, Tensor]:
        """Every network's parameters by name, and the input scaling; they share memory."""
        named = {
            f"{network}.{name}": view
            for network, function in self._functions.items()
            for name, view in function.views(self.state[network]).items()
        }
        for name in ("observation", "goal"):
            shift, scale = self._scaling(name)
            if len(shift) > 0:
                named[f"{name}.shift"], named[f"{name}.scale"] = shift, scale
        return named

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update and action depend on."""
        return {
            "weights": self.weights(),
            "optimiser": {k: v for k, v in self.state.items() if k not in self._functions},
            "observation_moments": self.observation_normaliser.state_dict(),
            "goal_moments": self.goal_normaliser.state_dict(),
            "generator": self.generator.get_state().numpy(),
            "noise": self._noise.cpu().numpy(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If names or shapes belong to another learner.
        """
        rest = {k: v for k, v in self.state.items() if k not in self._functions}
        parts = (self.weights(), state["weights"]), (rest, state["optimiser"])
        for mine, saved in parts:
            if mine.keys() != saved.keys():
                odd = sorted(mine.keys() ^ saved.keys())
                raise ValueError(
                    f"the saved parameters belong to another agent: they differ in "
                    f"{', '.join(odd[:4])}; use the settings it was trained with"
                )
            for name, tensor in mine.items():
                if tensor.shape != saved[name].shape:
                    raise ValueError(
                        f"the saved {name} has shape {tuple(saved[name].shape)}, this agent needs "
                        f"{tuple(tensor.shape)}: the spaces, encoder or net_arch differ"
                    )
        for mine, saved in parts:  # only now, so that what is refused changes nothing
            for name, tensor in mine.items():
                tensor.copy_(saved[name])
        self.observation_normaliser.load_state_dict(state["observation_moments"])
        self.goal_normaliser.load_state_dict(state["goal_moments"])
        self.generator.set_state(torch.from_numpy(np.array(state["generator"], np.uint8)))
        self._noise = self._tensor(state.get("noise", np.zeros(0, np.float32)))
        self.updates = int(state["updates"])

    def _scaling(self, name: str) -> tuple[Tensor, Tensor]:
        moments = self.observation_normaliser if name == "observation" else self.goal_normaliser
        return moments.shift, moments.scale

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def with_target(name: str, network: Network, generator: torch.Generator) -> State:
    """A trained network and its slowly following copy `<name>_target`."""
    vector = network.initial_parameters(generator)
    return {**adam_state(name, vector), f"{name}_target": vector.clone()}


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over valid rows, `(..., R), (R,) -> (...)`."""
    return (values * weight).sum(-1)
