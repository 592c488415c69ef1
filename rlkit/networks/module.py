"""Modules of torch as functions of flat parameter vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlkit.networks.mlp import Mlp, Parametric, part_of
from rlkit.networks.state_dependent import StateDependentHead

PROBE = 3  # rows of the batch that a module is tried on


class ModuleError(ValueError, AssertionError):
    """A module that cannot be made; SB3's own raise AssertionErrors."""


class ModuleFunction(Parametric):
    """A `torch.nn.Module` as a function of one flat vector, through `torch.func.functional_call`.

    The vector holds its parameters, and after them its buffers of floating-point numbers: these and
    parameters that require no gradient keep their values. It runs in evaluation mode, eagerly.

    Args:
        kind: The module's class, or a function that makes it; called again for fresh parameters.
        arguments: What it is called with.
        settings: Further arguments by name.
        inputs: An example of what it reads, of a few rows.

    Attributes:
        outputs: Width of its output.

    Raises:
        ValueError: If it fails on the example, gives no `(B, D)`, or changes buffers (batch norm)
            or draws random numbers (dropout) in training.
    """

    def __init__(
        self,
        kind: Callable[..., nn.Module],
        arguments: Sequence[Any],
        settings: Mapping[str, Any],
        inputs: Any,
    ) -> None:
        self._kind, self._arguments, self._settings = kind, arguments, settings
        self.name = str(getattr(kind, "__name__", kind))
        self.module = copy.deepcopy(self._make()).eval()
        tensors = [*self.module.named_parameters(), *_float_buffers(self.module)]
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors}
        self._frozen = {name for name, tensor in tensors if not tensor.requires_grad}
        self.module.requires_grad_(False)
        self.outputs = _tried(self.module, self.name, inputs)
        self._device = torch.device("cpu")

    def _make(self) -> nn.Module:
        try:
            made = self._kind(*self._arguments, **self._settings)
        except Exception as error:  # whatever a user's class raises is the reason
            given = ", ".join([*map(str, self._arguments), *map(str, self._settings.items())])
            raise ModuleError(
                f"{self.name}({given}) fails: {type(error).__name__}: {_first_line(error)}"
            ) from error
        if not isinstance(made, nn.Module):
            raise ValueError(f"{self.name} makes {made!r}, which is no torch.nn.Module")
        return made

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter and buffer, in the flat vector's order."""
        return self._shapes

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """The values that a newly made module has."""
        seed = int(torch.randint(2**31, (), generator=generator))
        # Modules draw from torch's global generator, which is left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = self._make()
        with torch.no_grad():
            for name, tensor in (*fresh.named_parameters(), *_float_buffers(fresh)):
                views[name].copy_(tensor)

    def __call__(self, vector: Tensor, inputs: Any) -> Tensor:
        """Outputs `(B, D)` for inputs `(B, ...)`, with the parameters `(size,)`."""
        if vector.device != self._device:
            self.module.to(vector.device)  # buffers of integers
            self._device = vector.device
        views = {
            name: view.detach() if name in self._frozen else view
            for name, view in self.views(vector).items()
        }
        if (
            torch._C._get_tracing_state() is not None
        ):  # which functional_call refuses: the values become constants
            for name, tensor in (*self.module.named_parameters(), *_float_buffers(self.module)):
                tensor.data = views[name].detach()
            found: Tensor = self.module(inputs)
            return found
        found = functional_call(self.module, views, (inputs,))
        return found


class ModuleEnsemble(Parametric):
    """Modules with the same inputs, as `Mlp` is an ensemble of perceptrons.

    Args:
        kind: Class of the modules, or a function; called with the widths of inputs and outputs.
        settings: Further arguments.
        inputs: Width of each input part; the module reads them side by side.
        outputs: Width of the output.
        members: Modules in the ensemble, N.

    Raises:
        ValueError: If the module does not map `(B, inputs)` to `(B, outputs)`, or see
            `ModuleFunction`.
    """

    def __init__(
        self,
        kind: Callable[..., nn.Module],
        settings: dict[str, Any],
        inputs: tuple[int, ...],
        outputs: int,
        members: int = 1,
    ) -> None:
        self.inputs, self.outputs, self.members = inputs, outputs, members
        width = sum(inputs)
        self.function = ModuleFunction(kind, (width, outputs), settings, torch.zeros(PROBE, width))
        if self.function.outputs != outputs:
            raise ValueError(
                f"{self.function.name}({width}, {outputs}) gives outputs of width "
                f"{self.function.outputs}; they must have width {outputs}"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        return {
            f"{i}.{name}": shape
            for i in range(self.members)
            for name, shape in self.function.shapes().items()
        }

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values of every member."""
        for i in range(self.members):
            self.function.fill(part_of(views, str(i)), generator)

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Outputs `(N, B, outputs)` for inputs `(B, inputs[i])` each."""
        given = zip(parts, self.inputs, strict=True)
        x = torch.cat([part for part, width in given if width > 0], dim=-1)
        each = torch.split(vector, self.function.size)
        return torch.stack([self.function(own, x) for own in each])


Head = Mlp | ModuleEnsemble | StateDependentHead
"""What computes a network's outputs from its inputs."""


def _float_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, b) for name, b in module.named_buffers() if b.is_floating_point()]


def _tried(module: nn.Module, name: str, inputs: Any) -> int:
    """Width of a module's output, after a run as in training."""
    before = {key: value.clone() for key, value in module.named_buffers()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.train()
            outputs = [module(inputs) for _ in range(2)]
            module.eval()
            shape = tuple(module(inputs).shape)
    except Exception as error:  # whatever a user's module raises is the reason
        raise ValueError(
            f"{name} cannot read {_described(inputs)}: {type(error).__name__}: {_first_line(error)}"
        ) from error
    if any(not torch.equal(value, before[key]) for key, value in module.named_buffers()):
        raise ValueError(
            f"{name} changes its buffers while it is trained, as batch norm does; these are no "
            f"parameters, so that target networks and files would miss them: use LayerNorm or "
            f"GroupNorm, or track_running_stats=False"
        )
    if not torch.equal(*outputs):
        raise ValueError(
            f"{name} gives random outputs, as dropout does, so that no training could be repeated: "
            f"leave that layer out"
        )
    if len(shape) != 2:
        raise ValueError(f"{name} gives outputs of shape {shape}; they must be (batch, features)")
    return int(shape[1])


def _described(inputs: Any) -> str:
    if isinstance(inputs, dict):
        shapes = {key: tuple(value.shape) for key, value in inputs.items()}
        return f"a dict of observations of shapes {shapes}"
    return f"inputs of shape {tuple(inputs.shape)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
