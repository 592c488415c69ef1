"""The policy object that Stable-Baselines3 expects, as a view of a learner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from rlkit.encoders import Carry

if TYPE_CHECKING:
    from rlkit.agents.algorithm import Algorithm


class LearnerPolicy(BasePolicy):
    """Acts with an algorithm's learner; its parameters share the learner's memory.

    `state_dict` and `load_state_dict` therefore read and write the learner itself.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        algorithm: Algorithm,
    ) -> None:
        super().__init__(observation_space, action_space)
        # In a tuple, so that torch does not register the algorithm's modules below this one.
        self._owner = (algorithm,)
        for name, view in algorithm.learner.weights().items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, nn.Parameter(view, requires_grad=False))
        self.device_ = algorithm.learner.device

    @property
    def device(self) -> torch.device:
        """Where the learner lives."""
        return self.device_

    def save(self, path: Any) -> None:
        """Saves the whole agent, in its own format: SB3's policies are pickles."""
        (algorithm,) = self._owner
        algorithm.save(path)

    @classmethod
    def load(cls, path: Any, device: torch.device | str = "auto") -> Any:
        """Always refused: a policy is loaded as part of its agent.

        Raises:
            ValueError: Always; the message says how.
        """
        raise ValueError(f"load {path} with the agent's class, as in SAC.load({str(path)!r})")

    def forward(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Actions for raw observations; see `predict`."""
        return torch.as_tensor(self.predict(observation, deterministic=deterministic)[0])

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.forward(observation, deterministic)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Actions for one observation or a batch, and the memory to pass in next time.

        Args:
            observation: One raw observation, or a batch of them.
            state: What the last call returned; None at the start.
            episode_start: Where episodes begin, `(n,)`: memory is fresh there.
            deterministic: Whether to act without exploring.

        Raises:
            ValueError: If the observation does not fit the observation space, or the memory is
                not that of so many observations.
        """
        if isinstance(observation, tuple) and len(observation) == 2:
            raise ValueError(
                "the observation is a tuple: you may be mixing Gym API (reset gives "
                "`(observation, info)`) with SB3's VecEnv API (reset gives the observation)"
            )
        (algorithm,) = self._owner
        _, vectorised = self.obs_to_tensor(observation)
        batch = algorithm.sight.see(_batched(observation, self.observation_space, vectorised))
        count = len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
        carry = _continued(state, algorithm.learner.initial(count))
        start = np.zeros(count, np.bool_) if episode_start is None else np.asarray(episode_start)
        start = np.broadcast_to(start.astype(np.bool_), (count,)).copy()
        action, carry = algorithm.act(batch, carry, start, explore=not deterministic)
        if isinstance(self.action_space, spaces.Discrete):
            action = action.reshape(count)
            if not deterministic:
                share = algorithm.random_fraction()
                action = algorithm.interface.mix_in_random(action, share, algorithm.rng)
                carry = algorithm.learner.acted(carry, action)
        action = algorithm.interface.to_env(action)
        return (action if vectorised else action.squeeze(axis=0)), (carry or None)


def _continued(state: Any, fresh: Carry) -> Carry:
    """The memory of the last step, which must have the shapes of a fresh one."""
    if state is None:
        return fresh
    shapes = [[tuple(np.shape(part)) for part in carry] for carry in (state, fresh)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"state has shapes {shapes[0]}, these observations need {shapes[1]}: pass what the "
            f"last `predict` of as many environments returned, or None to begin anew"
        )
    return tuple(torch.as_tensor(part).to(own) for part, own in zip(state, fresh, strict=True))


def _batched(observation: Any, space: spaces.Space[Any], vectorised: bool) -> Any:
    if isinstance(observation, dict):
        assert isinstance(space, spaces.Dict)
        return {key: _batched(observation[key], part, vectorised) for key, part in space.items()}
    array = np.asarray(observation)
    assert space.shape is not None
    return array.reshape(-1, *space.shape)
