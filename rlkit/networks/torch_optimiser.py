"""Any optimiser of torch on flat parameter vectors, as a pure step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlkit.networks.gradient import Optimiser, State
from rlkit.networks.torch_classes import torch_class

STARTED = "started"  # 0 before the first step: many optimisers create their state in it
PROBE = 8  # parameters of the vector that shows which state an optimiser keeps


@dataclass(frozen=True)
class TorchOptimiser:
    """A class of `torch.optim`, or one like them, with each network's vector as its one parameter.

    Its state lies among the learner's tensors, so that checkpoints hold it and a resumed training
    takes the same steps. Numbers that it keeps as Python objects are stored as float64.

    Attributes:
        kind: The class.
        settings: Its arguments, without the parameters and `lr`.

    Raises:
        ValueError: If it cannot step one flat vector by a gradient alone.
    """

    kind: type[Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Takes a step with it."""
        if "lr" in self.settings:
            raise ValueError("optimiser_kwargs has 'lr': set the agent's learning_rate instead")
        _ = self._kept

    def in_place_of_adam(self, state: State, networks: Iterable[str]) -> State:
        """A learner's state from `adam_state`, with this optimiser's state for some networks."""
        state = dict(state)
        for name in networks:
            if f"{name}.m" not in state:  # a target
                continue
            for moment in ("m", "v", "decay1", "decay2"):
                del state[f"{name}.{moment}"]
            state[f"{name}.{STARTED}"] = torch.zeros(())
            for key, (kept, _) in self._kept.items():
                shape = self._shape(kept, state[name])
                state[f"{name}.{key}"] = torch.zeros(shape, dtype=kept.dtype)
        return state

    def step(self, state: State, name: str, grad: Tensor, learning_rate: Tensor | float) -> State:
        """What a step changes: `state[name]`, and the optimiser's own state."""
        parameter = state[name].detach().clone()
        parameter.grad = grad.detach().clone()
        made = self.kind([parameter], lr=float(learning_rate), **self.settings)
        if state[f"{name}.{STARTED}"] > 0:
            made.state[parameter] = {
                key: self._restored(state[f"{name}.{key}"], kept, python)
                for key, (kept, python) in self._kept.items()
            }
        made.step()
        after = made.state[parameter]
        changes = {
            f"{name}.{key}": torch.as_tensor(after[key], dtype=kept.dtype).to(parameter.device)
            for key, (kept, _) in self._kept.items()
        }
        return {name: parameter, f"{name}.{STARTED}": parameter.new_ones(()), **changes}

    @cached_property
    def _kept(self) -> dict[str, tuple[Tensor, type[Any] | None]]:
        """By name, what it keeps of a short vector, and the Python type of what is no tensor."""
        parameter = torch.zeros(PROBE)
        parameter.grad = torch.ones(PROBE)
        try:
            made = self.kind([parameter], lr=1e-3, **self.settings)
            made.step()
            after = made.state[parameter]
        except Exception as error:  # closures, sparse gradients, matrices, wrong arguments
            raise ValueError(
                f"optimiser = {self.kind.__name__!r} with {dict(self.settings)} cannot step one "
                f"flat vector of parameters: {type(error).__name__}: {error}"
            ) from error
        return {
            key: (value, None)
            if isinstance(value, Tensor)
            else (torch.tensor(float(value), dtype=torch.float64), type(value))
            for key, value in after.items()
            if isinstance(value, (Tensor, int, float))
        }

    def _shape(self, kept: Tensor, vector: Tensor) -> tuple[int, ...]:
        """Shape of a part of the state, for a vector of another length than the probe's."""
        if kept.shape not in ((), (1,), (PROBE,)):
            raise ValueError(
                f"optimiser = {self.kind.__name__!r} keeps state of shape {tuple(kept.shape)}, "
                f"which is neither a number nor one per parameter; choose another"
            )
        return (len(vector),) if kept.shape == (PROBE,) else tuple(kept.shape)

    def _restored(self, value: Tensor, kept: Tensor, python: type[Any] | None) -> Any:
        if python is not None:
            return python(value.item())
        # Step counts stay on the CPU, where torch's optimisers expect them.
        return value.to("cpu", copy=True) if kept.shape == () else value.clone()


def make_optimiser(
    given: str | type[Any], weight_decay: float, settings: Mapping[str, Any] | None
) -> Optimiser | TorchOptimiser:
    """The optimiser of a learner.

    Args:
        given: "adam" or "adamw" for the suite's own; a class of torch's, or its name, for others.
        weight_decay: Of AdamW, or of any optimiser that has this argument.
        settings: Further arguments. Adam and AdamW with others than `betas` and `eps` are torch's.

    Raises:
        ValueError: If it cannot be made of these.
    """
    settings = {name: _tuples(value) for name, value in (settings or {}).items()}
    if given in ("adam", "adamw") and settings.keys() <= {"betas", "eps"}:
        return Optimiser(str(given), weight_decay=weight_decay, **settings)
    if weight_decay > 0:
        settings["weight_decay"] = weight_decay
    return TorchOptimiser(torch_class(given, "optimiser"), settings)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
