"""Modules of torch as functions of flat parameter vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from rlkit.networks.mlp import Mlp, Parametric, part_of
from rlkit.networks.state_dependent import StateDependentHead

PROBE = 3  # rows of the batch that a module is tried on
COUNTED = "num_batches_tracked"  # of batch norm; nothing depends on it where there is a momentum


class ModuleError(ValueError, AssertionError):
    """A module that cannot be made; SB3's own raise AssertionErrors."""


class ModuleFunction(Parametric):
    """A `torch.nn.Module` as a function of one flat vector, through `torch.func.functional_call`.

    The vector holds its parameters, and after them its buffers of floating-point numbers. It runs
    eagerly, and in training mode only where its parameters are being trained (where the vector
    requires a gradient): there dropout draws from torch's generator, and what buffers move by
    (moments of batch norm) is their part of the gradient, as a step to subtract.

    Args:
        kind: The module's class, or a function that makes it; called again for fresh parameters.
        arguments: What it is called with.
        settings: Further arguments by name.
        inputs: An example of what it reads, of a few rows.

    Attributes:
        outputs: Width of its output.
        is_random: Whether it draws random numbers in training mode.
        untrained: Names in the vector that no optimiser may step: buffers, and parameters that
            require no gradient.

    Raises:
        ValueError: If it fails on the example, gives no `(B, D)`, or changes in training what the
            vector does not hold.
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
        self.untrained = {name for name, tensor in tensors if not tensor.requires_grad}
        self.module.requires_grad_(False)
        found = _tried(self.module, self.name, inputs)
        self.outputs, self.is_random, self._moving = found.outputs, found.is_random, found.moving
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
        leaves = self.views(vector)
        views = {k: view.detach() if k in self.untrained else view for k, view in leaves.items()}
        # A trace, which functional_call refuses: the values become constants.
        if torch._C._get_tracing_state() is not None:
            for name, tensor in (*self.module.named_parameters(), *_float_buffers(self.module)):
                tensor.data = views[name].detach()
            found: Tensor = self.module(inputs)
            return found
        if not (vector.requires_grad and (self.is_random or self._moving)):
            found = functional_call(self.module, views, (inputs,))
            return found
        after = {name: views[name].clone() for name in self._moving}
        self.module.train()
        found = functional_call(self.module, views | after, (inputs,))
        self.module.eval()
        steps = [views[name] - after[name] for name in self._moving]
        found = _Moved.apply(found, steps, *(leaves[k] for k in self._moving))  # type: ignore[no-untyped-call]
        return found


class _Moved(torch.autograd.Function):
    """Outputs as they are; in the backward pass buffers get the step that they made."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, steps: list[Tensor], *buffers: Tensor) -> Tensor:
        ctx.steps = steps
        return outputs.view_as(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None, *ctx.steps


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


@dataclass(frozen=True)
class _Trial:
    """What a module did on an example: width of outputs, buffers moved, random numbers drawn."""

    outputs: int
    moving: tuple[str, ...]
    is_random: bool


def _tried(module: nn.Module, name: str, inputs: Any) -> _Trial:
    """Runs a module once as in training, and as in evaluation."""
    before = {key: (value, value.clone()) for key, value in module.named_buffers()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            drawn = torch.get_rng_state()
            module.train()
            module(inputs)
            is_random = not torch.equal(drawn, torch.get_rng_state())
            module.eval()
            outputs = [module(inputs) for _ in range(2)]
            shape = tuple(outputs[0].shape)
    except Exception as error:  # whatever a user's module raises is the reason
        raise ValueError(
            f"{name} cannot read {_described(inputs)}: {type(error).__name__}: {_first_line(error)}"
        ) from error
    moving = []
    for key, value in module.named_buffers():
        same, former = before[key]
        if torch.equal(value, former) or key.endswith(COUNTED):
            continue
        if value is not same or not value.is_floating_point():
            raise ValueError(
                f"{name} changes its buffer {key!r} while it is trained, which is no tensor of "
                f"floating-point numbers changed in place, so that files and target networks would "
                f"miss it: leave that layer out"
            )
        value.copy_(former)
        moving.append(key)
    if any(getattr(part, "momentum", 0.0) is None for part in module.modules()):
        raise ValueError(
            f"{name} has a batch norm with momentum=None, whose count of batches is not saved: "
            f"give it a number, such as momentum=0.1"
        )
    if not torch.equal(*outputs):
        raise ValueError(
            f"{name} gives random outputs in evaluation mode, so that no evaluation could be "
            f"repeated: draw random numbers only where self.training is True"
        )
    if len(shape) != 2:
        raise ValueError(f"{name} gives outputs of shape {shape}; they must be (batch, features)")
    return _Trial(int(shape[1]), tuple(moving), is_random)


def _described(inputs: Any) -> str:
    if isinstance(inputs, dict):
        shapes = {key: tuple(value.shape) for key, value in inputs.items()}
        return f"a dict of observations of shapes {shapes}"
    return f"inputs of shape {tuple(inputs.shape)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
