"""What modules of torch among a learner's networks hold that no optimiser steps.

Moments of batch norm and frozen parameters are part of a network's flat vector. Its gradient has
the step of such a buffer in its place, see `rlkit.networks.module.ModuleFunction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.networks.gradient import State
from rlkit.networks.module import ModuleEnsemble, ModuleFunction
from rlkit.offpolicy.extractor import ExtractorNetwork

if TYPE_CHECKING:
    from rlkit.offpolicy.learner import GradientLearner


class Untrained:
    """Buffers and frozen parameters of a learner's networks, and the seed of random modules.

    Args:
        learner: The learner, whose networks exist.
    """

    def __init__(self, learner: GradientLearner) -> None:
        self._learner = learner
        self._masks: dict[str, Tensor] = {}
        self._is_random = False
        for name, network in learner.networks.items():
            modules = modules_of(network)
            self._is_random |= any(module.is_random for module in modules.values())
            names = [f"{prefix}{k}" for prefix, one in modules.items() for k in one.untrained]
            if names:
                mask = torch.zeros(network.size)
                for key in names:
                    network.views(mask)[key].fill_(1.0)
                self._masks[name] = mask.bool().to(learner.device)

    def descend(self, state: State, name: str, grad: Tensor, rate: Tensor) -> State:
        """What a step changes of a network: the optimiser's, and that of buffers.

        Args:
            state: The learner's tensors.
            name: The network's name.
            grad: Its gradient `(size,)`.
            rate: The learning rate.
        """
        mask, learner = self._masks.get(name), self._learner
        if mask is None:
            return learner.optimiser.step(state, name, learner.clip(grad), rate)
        trained = learner.clip(grad.masked_fill(mask, 0.0))
        changes = learner.optimiser.step(state, name, trained, rate)
        changes[name] = torch.where(mask, state[name] - grad, changes[name])
        return changes

    @contextmanager
    def updating(self, targets: bool) -> Iterator[None]:
        """What goes around an update.

        Random modules draw from a seed of the learner's generator, so that updates can be repeated;
        torch's global generator is left as it was. Targets that are due get a copy of what is held
        here, at any rate of the parameters, as in SB3.

        Args:
            targets: Whether the targets are due.
        """
        state, generator = self._learner.state, self._learner.generator
        device = generator.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self._is_random):
            if self._is_random:
                seed = torch.randint(2**31, (), generator=generator, device=device)
                torch.manual_seed(int(seed))
            yield
        for target, source in self._learner.targets.items() if targets else ():
            mask = self._masks.get(source)
            if mask is not None:
                state[target].copy_(torch.where(mask, state[source], state[target]))


def modules_of(network: Any) -> dict[str, ModuleFunction]:
    """Modules of torch in a network, by the prefix of their parameters' names."""
    if isinstance(network, ModuleEnsemble):
        return {f"{i}.": network.function for i in range(network.members)}
    found = {} if not hasattr(network, "head") else modules_of(network.head)
    if isinstance(network, ExtractorNetwork):
        found["features_extractor."] = network.extractor.function
    return found
