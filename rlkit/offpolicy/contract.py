"""What an algorithm needs of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule
from rlkit.networks.encoders import HiddenState

if TYPE_CHECKING:
    from rlkit.offpolicy.metrics import TrainingMetrics
    from rlkit.offpolicy.spaces import SpaceAdapter
    from rlkit.replay import ReplayBuffer


class Learner(Protocol):
    """A policy and its training, behind an algorithm that collects experience.

    Laws, checked for every installed agent by `tests/offpolicy/test_learner_contract.py`: the same
    seed gives the same actions; weights stay finite; a loaded learner continues bit for bit.

    Attributes:
        config_class: The dataclass of its settings; they are options of the agent.
        config: The settings. Every configuration has `gamma` (the discount of one decision, which
            may hold its action for several steps), `windows` (the batch size) and `schedule`
            (the learning rate, a number or a function of the remaining progress).
        acting: Name of the network that acts, the first part of its `weights`; None without one.
        device: Where it computes.
        learning_rate: The current step size, a tensor that the algorithm sets.
    """

    config_class: ClassVar[type[Any]]
    config: Any
    acting: ClassVar[str | None]
    device: torch.device
    learning_rate: Tensor

    def set_rule(self, rule: GoalRule | None) -> None:
        """Takes over an environment's goal rule; None without goals or without an environment."""

    def initial(self, count: int) -> HiddenState:
        """Hidden state of `count` fresh episodes; empty for a feed-forward agent."""

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
            goal: `(n, G)`; G is 0 without goals.
            hidden_state: From the step before.
            is_first: Where an episode begins, `(n,)`: the hidden state is reset there.
            explore: Whether to act as in training.
            visible: 1 where the goal is visible, else 0, `(n,)`; None where it always is.
            reward: The previous step's reward `(n,)`, where an encoder reads it.

        Returns:
            Actions `(n, A)` in [-1, 1], or integers, `(n,)` or for K components `(n, K)`, and the
            next hidden state.
        """

    def acted(self, hidden_state: HiddenState, action: NDArray[Any]) -> HiddenState:
        """The hidden state after other actions `(n, ...)` than the chosen ones were taken."""

    def to_store(self, hidden_state: HiddenState) -> tuple[NDArray[np.float32], ...] | None:
        """The part of a hidden state that the replay buffer keeps; None for nothing."""

    def replay_options(self) -> dict[str, Any]:
        """Arguments of `ReplayBuffer` that this learner needs: windows, previous actions, ..."""

    def observe(self, observation: NDArray[Any], goals: NDArray[Any]) -> None:
        """Updates running moments with collected observations `(n, F)` and goals `(m, G)`."""

    def learn(
        self,
        replay_buffer: ReplayBuffer,
        adapter: SpaceAdapter,
        gradient_steps: int,
        batch_size: int,
        metrics: TrainingMetrics,
    ) -> int:
        """Trains on stored experience.

        Args:
            replay_buffer: The experience.
            adapter: Turns batches into vectors.
            gradient_steps: Gradient steps.
            batch_size: Windows per gradient step.
            metrics: Takes in what is logged.

        Returns:
            Gradient steps taken.
        """

    def weights(self) -> dict[str, Tensor]:
        """Every parameter by name, `network.layer`; the tensors share memory with the learner."""

    def state_dict(self) -> dict[str, Any]:
        """`weights`, `optimiser`, and everything else that training and acting depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it belongs to another learner; nothing is changed then.
        """


def require_same_shapes(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Refuses saved tensors of other names or shapes than a learner's own.

    Raises:
        ValueError: If they differ; the message names the first that do.
    """
    if own.keys() != saved.keys():
        odd = sorted(own.keys() ^ saved.keys())
        raise ValueError(
            f"the saved parameters belong to another agent: they differ in "
            f"{', '.join(odd[:4])}; use the settings it was trained with"
        )
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            raise ValueError(
                f"the saved {name} has shape {tuple(saved[name].shape)}, this agent needs "
                f"{tuple(tensor.shape)}: the spaces, encoder or net_arch differ"
            )
