"""The heart of an agent: a policy that acts and an update that learns, without an environment.

A `Learner` knows vectors only. `agents/algorithm.py` puts it into Stable-Baselines3's lifecycle;
the learning rule can be read, tested and compiled without either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks import Mlp, Normaliser, UpdateFunction, adam_state, normalise
from rlkit.networks.gradient import Metrics, State

Carry = tuple[Tensor, ...]
"""Memory between steps: tensors with a leading batch axis. Empty for feed-forward agents."""


@dataclass(frozen=True)
class Sizes:
    """Widths of what a learner sees and does.

    Attributes:
        observation: F, of the observation vector.
        goal: G, of the goal vector; 0 without goals.
        action: A: dimensions of a continuous action in [-1, 1], or number of discrete ones.
    """

    observation: int
    goal: int
    action: int


@dataclass(frozen=True)
class LearnerConfig:
    """Settings that every learner has."""

    learning_rate: float = 3e-4
    """Adam's step size, > 0."""
    batch_size: int = 256
    """Windows per update, >= 1."""
    gamma: float = 0.99
    """Discount of one step, in [0, 1]."""
    tau: float | None = None
    """Share of the way that the target goes at each refresh, in (0, 1]; None is 0.005 where every
    update refreshes it, and all of the way where refreshes are rarer."""
    target_update_interval: int = 1
    """Updates between refreshes of the target, >= 1."""
    net_arch: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    critics: int = 2
    """Critics in the ensemble; the target takes their minimum (Fujimoto et al. 2018), >= 1."""
    layer_norm: bool = False
    """Layer norm in the critics (Ball et al. 2023, section 4.2)."""
    normalise: bool = True
    """Scale observations and goals by running moments (Plappert et al. 2018, appendix)."""
    bound_targets: bool = True
    """Clip value targets to the returns that the goal rule's rewards allow (Andrychowicz et al.
    2017, appendix A); without effect where those are unbounded."""
    random_fraction: float = 0.0
    """Share of training actions drawn uniformly at random, in [0, 1]."""
    max_grad_norm: float | None = None
    """Longest gradient of one network, > 0; None does not clip."""
    compile: bool = False
    """Compile the update into one graph; pays off from some 20,000 updates on."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        checks = {
            "learning_rate": ("> 0", callable(self.learning_rate) or self.learning_rate > 0),
            "batch_size": (">= 1", self.batch_size >= 1),
            "gamma": ("in [0, 1]", 0 <= self.gamma <= 1),
            "tau": ("in (0, 1] or None", self.tau is None or 0 < self.tau <= 1),
            "target_update_interval": (">= 1", self.target_update_interval >= 1),
            "net_arch": ("a list of widths >= 1", all(width >= 1 for width in self.net_arch)),
            "critics": (">= 1", self.critics >= 1),
            "random_fraction": ("in [0, 1]", 0 <= self.random_fraction <= 1),
            "max_grad_norm": ("> 0 or None", self.max_grad_norm is None or self.max_grad_norm > 0),
        }
        for name, (allowed, fine) in checks.items():
            if not fine:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be {allowed}")

    @property
    def refresh_share(self) -> float:
        """`tau`, or what None stands for."""
        if self.tau is not None:
            return self.tau
        return 0.005 if self.target_update_interval == 1 else 1.0


class Learner:
    """Parameters, their update, and a policy. Subclasses write the learning rule.

    A subclass names its networks, creates them in `initial_state`, and gives the pure function
    `update_function`; see `agents/sac.py`.

    Args:
        config: The settings.
        sizes: Widths of observation, goal and action.
        seed: Seed of the learner's own generator.
        device: Where everything lives.
        bounds: Lowest and highest return that is possible, None where unbounded.
    """

    networks: dict[str, Mlp]
    config_class: ClassVar[type[LearnerConfig]] = LearnerConfig

    def __init__(
        self,
        config: Any,
        sizes: Sizes,
        seed: int,
        device: torch.device | str = "cpu",
        bounds: tuple[float, float] | None = None,
    ) -> None:
        self.config, self.sizes, self.bounds = config, sizes, bounds
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.observation_normaliser = Normaliser(sizes.observation, device, config.normalise)
        self.goal_normaliser = Normaliser(sizes.goal, device, config.normalise)
        self.updates = 0
        rate = config.learning_rate
        self.learning_rate = torch.tensor(1.0 if callable(rate) else rate, device=self.device)
        self.state = {
            name: value.to(self.device)
            for name, value in self.initial_state(torch.Generator().manual_seed(seed)).items()
        }
        width = max(config.net_arch, default=0)
        self._update = UpdateFunction(self.update_function, config.compile, width)

    # What a subclass writes

    def initial_state(self, generator: torch.Generator) -> State:
        """Fresh tensors: a flat vector per network (with `adam_state`) and what else learns."""
        raise TypeError(f"{type(self).__name__} must define initial_state")

    def update_function(
        self, state: State, batch: State, noise: Tensor, target_rate: Tensor, step: int
    ) -> tuple[State, Metrics]:
        """One update, pure: `(state, batch, noise) -> (changed part of the state, metrics)`.

        Args:
            state: The learner's tensors.
            batch: See `prepare`.
            noise: What `draw_noise` gave.
            target_rate: Share of the way that the target goes now; 0 between refreshes.
            step: The update's phase, where updates differ (delayed policies); static.
        """
        raise TypeError(f"{type(self).__name__} must define update_function")

    def draw_noise(self, rows: int) -> Tensor:
        """Random numbers of one update over `rows` transitions."""
        return torch.zeros(0, device=self.device)

    def phase(self) -> int:
        """The static `step` argument of the next update."""
        return 0

    def policy(self, observation: Tensor, goal: Tensor, explore: bool) -> Tensor:
        """Actions `(n, A)` in [-1, 1], or integers `(n,)`, for normalised inputs."""
        raise TypeError(f"{type(self).__name__} must define policy")

    # What they share

    def initial(self, count: int) -> Carry:
        """Memory of `count` fresh episodes; empty for a feed-forward agent."""
        return ()

    def act(
        self,
        observation: NDArray[np.float32],
        goal: NDArray[np.float32],
        carry: Carry,
        is_first: NDArray[np.bool_],
        *,
        explore: bool,
    ) -> tuple[NDArray[Any], Carry]:
        """Actions for a batch of environments.

        Args:
            observation: `(n, F)`.
            goal: `(n, G)`.
            carry: Memory from the step before.
            is_first: Where an episode begins, `(n,)`: memory is fresh there.
            explore: Whether to act as in training.

        Returns:
            Actions `(n, A)` in [-1, 1], or integers `(n,)`; and the memory after the step.
        """
        with torch.no_grad():
            inputs = self.prepare({"observation": observation, "goal": goal})
            x = self._scaled(inputs, "observation", inputs["observation"])
            action = self.policy(x, self._scaled(inputs, "goal", inputs["goal"]), explore)
        return action.cpu().numpy(), carry

    def observe(self, observation: NDArray[Any], goals: NDArray[Any]) -> None:
        """Takes collected observations `(n, F)` and goals `(m, G)` into the running moments."""
        self.observation_normaliser.observe(observation)
        self.goal_normaliser.observe(goals)

    def update(self, batch: dict[str, NDArray[Any]]) -> tuple[list[str], Tensor]:
        """Learns from one batch.

        Args:
            batch: Arrays `observation (B, T + 1, F)`, `goal (B, T, G)`, `action (B, T, ...)`,
                `reward`, `discount`, `mask (B, T)`, and `bootstrap (B, T)` where the value does
                not follow from the next observation.

        Returns:
            Names and values `(M,)` of the metrics.
        """
        rows = batch["reward"].size
        refresh = (self.updates + 1) % self.config.target_update_interval == 0
        target_rate = torch.tensor(
            self.config.refresh_share if refresh else 0.0, device=self.device
        )
        result = self._update(
            self.state, self.prepare(batch), self.draw_noise(rows), target_rate, self.phase()
        )
        self.updates += 1
        return result

    def prepare(self, batch: dict[str, NDArray[Any]]) -> State:
        """The batch as tensors, with scaling and learning rate beside it."""
        tensors = {name: self._tensor(array) for name, array in batch.items()}
        for name in ("observation", "goal"):
            tensors[f"{name}_shift"], tensors[f"{name}_scale"] = self._scaling(name)
        tensors["learning_rate"] = self.learning_rate
        return tensors

    def transitions(self, batch: State) -> State:
        """Every valid step as a row: windows are cut up, because this agent has no memory.

        Returns:
            `observation`, `following (R, F)`, `goal (R, G)`, `action`, and `reward`, `discount`,
            `weight (R,)`, where weights are 1 over the number of valid steps.
        """
        x, steps = batch["observation"], batch["reward"].shape[1]
        if "bootstrap" in batch:
            index = batch["bootstrap"].unsqueeze(-1).expand(-1, -1, x.shape[-1])
            following = x.gather(1, index)
        else:
            following = x[:, 1:]
        rows = {
            # Scaled after cutting, so that the parts are contiguous: products are faster then.
            "observation": self._scaled(batch, "observation", x[:, :steps]),
            "following": self._scaled(batch, "observation", following),
            "goal": self._scaled(batch, "goal", batch["goal"]),
            "action": batch["action"],
            "reward": batch["reward"],
            "discount": batch["discount"],
            "weight": batch["mask"] / batch["mask"].sum(),
        }
        return {name: value.flatten(0, 1) for name, value in rows.items()}

    def _scaled(self, batch: State, name: str, x: Tensor) -> Tensor:
        if not self.config.normalise:
            return x
        return normalise(x, batch[f"{name}_shift"], batch[f"{name}_scale"])

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
            for network, mlp in self.networks.items()
            for name, view in mlp.views(self.state[network]).items()
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
            "optimiser": {k: v for k, v in self.state.items() if k not in self.networks},
            "observation_moments": self.observation_normaliser.state_dict(),
            "goal_moments": self.goal_normaliser.state_dict(),
            "generator": self.generator.get_state().numpy(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If names or shapes belong to another learner.
        """
        rest = {k: v for k, v in self.state.items() if k not in self.networks}
        for mine, saved in ((self.weights(), state["weights"]), (rest, state["optimiser"])):
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
                        f"{tuple(tensor.shape)}: the spaces or net_arch differ"
                    )
                tensor.copy_(saved[name])
        self.observation_normaliser.load_state_dict(state["observation_moments"])
        self.goal_normaliser.load_state_dict(state["goal_moments"])
        self.generator.set_state(torch.from_numpy(np.array(state["generator"], np.uint8)))
        self.updates = int(state["updates"])

    def _scaling(self, name: str) -> tuple[Tensor, Tensor]:
        moments = self.observation_normaliser if name == "observation" else self.goal_normaliser
        return moments.shift, moments.scale

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def with_target(name: str, mlp: Mlp, generator: torch.Generator) -> State:
    """A trained network and its slowly following copy `<name>_target`."""
    vector = mlp.initial_parameters(generator)
    return {**adam_state(name, vector), f"{name}_target": vector.clone()}


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over valid rows, `(..., R), (R,) -> (...)`."""
    return (values * weight).sum(-1)
