"""The policy object that Stable-Baselines3 expects, as a view of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from rlkit.goals import require_shapes
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.network_modules import NetworkModule, known_shapes, network_inputs
from rlkit.offpolicy.weight_average import acting_weights

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

EXTRACTOR = "features_extractor"


class LearnerPolicy(BasePolicy):
    """Acts with an algorithm's learner; its parameters are views of the learner's.

    `state_dict` and `load_state_dict` therefore read and write the learner itself. The network that
    acts, `actor` (of DQN: `critic`), is a policy as well, which has no other parameters; the others
    are modules that give Q values.

    Args:
        algorithm: Whose learner acts.
    """

    agent_class: ClassVar[type[Algorithm]]
    network: ClassVar[str | None] = None
    """The network whose parameters it has; None for all."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithm.observation_space, algorithm.action_space)
        # In a tuple, so that torch does not register the algorithm's modules below this one.
        self._owner = (algorithm,)
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]
        for name, view in algorithm.learner.weights().items():
            *path, last = name.split(".")
            if self.network is not None and path.pop(0) != self.network:
                continue
            module: nn.Module = self
            for part in path:
                module = self._below(module, part, algorithm)
            if not hasattr(module, last):
                module.register_parameter(last, nn.Parameter(view, requires_grad=False))
        lenders = getattr(getattr(algorithm.learner, "extraction", None), "borrows", {})
        for borrower, lender in lenders.items() if self.network is None else ():
            shared = getattr(self, lender).get_submodule(EXTRACTOR)
            own = getattr(self, borrower)
            _place(own, EXTRACTOR, shared)
            # First, as in the networks that own one: SB3's users compare parameters in order.
            own._modules = {EXTRACTOR: shared, **own._modules}
        self.device_ = algorithm.learner.device

    def _below(self, parent: nn.Module, name: str, algorithm: Algorithm) -> nn.Module:
        """The module of a name in another one, made where there is none."""
        if isinstance(getattr(parent, name, None), nn.Module):
            return parent.get_submodule(name)
        made = nn.Module()
        if parent is self and self.network is None:
            if name == algorithm.learner.acting:
                made = policy_class(type(algorithm), name)(algorithm)
            elif name in getattr(algorithm.learner, "networks", {}):
                made = NetworkModule(algorithm, name)
        _place(parent, name, made)
        return made

    @property
    def device(self) -> torch.device:
        """The learner's device."""
        return self.device_

    @property
    def q_net(self) -> nn.Module:
        """The critic, under SB3's name in policies of DQN."""
        return self.get_submodule("critic")

    @property
    def q_net_target(self) -> nn.Module:
        """The critic's target, under SB3's name in policies of DQN."""
        return self.get_submodule("critic_target")

    def reset_noise(self, batch_size: int = 1) -> None:
        """Draws new noise of state-dependent exploration, see `use_sde`."""
        learner: Any = self._owner[0].learner
        learner.reset_noise(batch_size)

    def get_std(self) -> Tensor:
        """Deviations `(H, A)` of the noise matrix of state-dependent exploration."""
        learner: Any = self._owner[0].learner
        found: Tensor = learner.state_dependent.deviations(learner.state["actor"])
        return found

    def save(self, path: Any) -> None:
        """Saves the whole agent, in its own format: SB3's policies are pickles."""
        (algorithm,) = self._owner
        algorithm.save(path)

    @classmethod
    def load(cls, path: Any, device: torch.device | str = "auto") -> Any:
        """The policy of a saved agent, or its network that acts.

        Args:
            path: What the agent, or this policy, was saved to.
            device: Where to put it.
        """
        policy = cls.agent_class.load(path, device=device).policy
        return policy if cls.network is None else getattr(policy, cls.network)

    def forward(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Actions for raw observations, as SB3's policies give them; can be traced and exported.

        Args:
            observation: A tensor `(n, ...)`, or a dict of them.
            deterministic: Whether to act without exploring.

        Returns:
            Actions `(n, ...)`: continuous ones in [-1, 1], see `unscale_action`. Of the network of
            discrete actions by itself, the Q values of all choices `(n, A)`.
        """
        (algorithm,) = self._owner
        learner: Any = algorithm.learner
        if self.network is not None and not isinstance(self.action_space, spaces.Box):
            found: Tensor = NetworkModule(algorithm, self.network)(observation)
            return found
        with known_shapes(algorithm), acting_weights(learner, explore=not deterministic):
            inputs = network_inputs(algorithm, observation, str(learner.acting))
            action: Tensor = learner.policy(inputs, explore=not deterministic)
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return action + int(space.start)
        if isinstance(space, spaces.MultiDiscrete):
            starts = enumerate(space.start.reshape(-1).tolist())
            action = torch.stack([action[:, i] + start for i, start in starts], dim=-1)
        return action.reshape(-1, *(space.shape or ()))

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        (algorithm,) = self._owner
        action: Tensor = algorithm.policy.forward(observation, deterministic)
        return action

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Actions for one observation or a batch, and the hidden state for the next call.

        Args:
            observation: One raw observation, or a batch of them.
            state: What the last call returned; None at the start.
            episode_start: Where episodes begin, `(n,)`: the hidden state is reset there. Without
                it, everywhere where `state` is None, else nowhere.
            deterministic: Whether to act without exploring.

        Raises:
            ValueError: If the observation does not fit the observation space, or the hidden
                state is that of another number of observations.
        """
        is_pair = isinstance(observation, tuple) and len(observation) == 2
        if is_pair and isinstance(observation[1], dict):
            raise ValueError(
                "the observation is a tuple: you may be mixing Gym API (reset gives "
                "`(observation, info)`) with SB3's VecEnv API (reset gives the observation)"
            )
        (algorithm,) = self._owner
        leading = _leading(observation, self.observation_space)
        require_shapes(self.observation_space, observation, leading)
        count = leading[0] if leading else 1
        raw = _batched(observation, self.observation_space, count)
        batch = algorithm.observation_encoder.encode_observation(raw)
        hidden_state = _continued(state, algorithm.learner.initial(count))
        start = np.array(state is None) if episode_start is None else np.asarray(episode_start)
        start = np.broadcast_to(start.astype(np.bool_), (count,)).copy()
        action, hidden_state = algorithm.act(batch, hidden_state, start, explore=not deterministic)
        if not isinstance(self.action_space, spaces.Box):
            action = action.reshape(count, *(algorithm.adapter.stored_action.shape or ()))
            if not deterministic:
                share = algorithm.random_fraction()
                action = algorithm.adapter.mix_in_random(action, share, algorithm.rng)
                hidden_state = algorithm.learner.acted(hidden_state, action)
        action = algorithm.adapter.to_env(action)
        return (action if leading else action.squeeze(axis=0)), (hidden_state or None)


def _continued(state: Any, fresh: HiddenState) -> HiddenState:
    """The hidden state of the last call, which must have the shapes of a fresh one."""
    if state is None:
        return fresh
    shapes = [[tuple(np.shape(part)) for part in parts] for parts in (state, fresh)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"state has shapes {shapes[0]}, these observations need {shapes[1]}: pass what the "
            f"last `predict` of as many environments returned, or None to start"
        )
    return tuple(torch.as_tensor(part).to(own) for part, own in zip(state, fresh, strict=True))


def _leading(observation: Any, space: spaces.Space[Any]) -> tuple[int, ...]:
    """The length of the leading axis of a batch of observations; empty of one observation."""
    while isinstance(space, spaces.Dict):
        key, space = next(iter(space.items()))
        observation = observation.get(key) if isinstance(observation, Mapping) else None
    shape: tuple[int, ...] = np.shape(observation)
    return shape[: max(0, len(shape) - len(space.shape or ()))][-1:]


def _batched(observation: Any, space: spaces.Space[Any], count: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _batched(observation[key], part, count) for key, part in space.items()}
    return np.asarray(observation).reshape(count, *(space.shape or ()))


def _place(parent: nn.Module, name: str, module: nn.Module) -> None:
    # SB3's policies have attributes such as `features_extractor`, which are None here.
    if name not in parent._modules and hasattr(parent, name):
        delattr(parent, name)
    parent.add_module(name, module)


@cache
def policy_class(agent: type[Algorithm], network: str | None = None) -> type[LearnerPolicy]:
    """The policy class of an agent class, or of one network of it, for `load`."""
    name = f"{agent.__name__}{(network or 'policy').capitalize()}"
    return type(name, (LearnerPolicy,), {"agent_class": agent, "network": network})


def _loaded(policy: LearnerPolicy, _: Any) -> None:
    """Lets the average of the weights, if there is one, begin with those that were loaded."""
    learner: Any = policy._owner[0].learner
    if getattr(learner, "average", None) is not None:
        learner.average.weights.copy_(learner.state[learner.acting])
