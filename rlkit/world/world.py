"""A world model with its parameters, which agents and benchmarks fit, query, save and load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.io.foreign import built_from
from rlkit.networks import adam_state
from rlkit.networks.encoders import HiddenState
from rlkit.networks.files import read_model, write_model
from rlkit.networks.gradient import ONEDNN_WIDTH, fast_float32
from rlkit.version import not_readable
from rlkit.world.contract import (
    WORLDS,
    Imagined,
    Metrics,
    Parameters,
    Policy,
    WorldModel,
    repeat,
)
from rlkit.world.data.windows import Array, Episodes, require_finite
from rlkit.world.fitting import Settings, fit
from rlkit.world.layout import Layout
from rlkit.world.scaling import Scaling

ROWS = 4096  # rows that are imagined at a time; more do not fit into the cache
NAMED = "parameters."  # begins the name of each tensor of parameters that are no flat vector


class NonFiniteForecast(ValueError):
    """A forecast holds numbers that are not finite; none of it may be used."""


class World:
    """A world model, its parameters and the scaling between them and raw units.

    Columns are standardised by mean and deviation of the data. A column that is constant in the
    data is 0 for the model, and forecasts hold the constant.

    Args:
        model: Configured; its widths are set here.
        layout: Which columns are what.
        generator: Source of the first parameters.
        device: Where the parameters live and the model runs.

    Attributes:
        model: The pure function.
        layout: Which columns are what.
        steps: Gradient steps taken so far; a closed form counts as one.
        scaling: Between the model and raw units.
        state: Parameters and Adam's moments by name.
    """

    def __init__(
        self,
        model: WorldModel,
        layout: Layout,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model.with_widths(layout.widths)
        self.layout = layout
        self.device = torch.device(device)
        self.steps = 0
        self.scaling = Scaling.identity(layout.widths).to(device)
        self.state = self.state_of(self.model.initial_parameters(generator))
        widest = max(n for view in self.views().values() for n in view.shape)
        self.onednn = widest >= ONEDNN_WIDTH

    @property
    def parameters(self) -> Parameters:
        """The model's parameters, in new tensors after each step."""
        if "vector" in self.state:
            return self.state["vector"]
        return {name.removeprefix(NAMED): value for name, value in self.state.items()}

    @property
    def size(self) -> int:
        """How many numbers the parameters hold."""
        return sum(view.numel() for view in self.views().values())

    def move_to(self, parameters: Parameters, scaling: Scaling) -> None:
        """Copies parameters and scaling into given tensors and uses these, where shapes agree.

        Code that shares the memory of these tensors then reads the fitted values.
        """
        places = self.state_of(parameters, fresh=False), scaling.tensors()
        kept = []
        for place, new in zip(places, (self.state, self.scaling.tensors()), strict=True):
            kept.append(dict(new))
            for name in place.keys() & new.keys():
                if place[name].shape == new[name].shape:
                    kept[-1][name] = place[name].copy_(new[name])
        self.state, self.scaling = kept[0], Scaling.of_tensors(kept[1])

    def fit(
        self,
        data: Episodes,
        *,
        steps: int,
        records: int = 256,
        window: int | None = None,
        learning_rate: float = 1e-3,
        clip: float = 100.0,
        keep_scaling: bool = False,
        generator: torch.Generator,
    ) -> Iterator[Metrics]:
        """Fits the model, or continues; a model with `solve` in one closed-form step.

        The scaling is that of `data`, which therefore is the training part only. After every step
        the world and the generator can be saved; continuing from there with the remaining steps
        gives exactly the same parameters.

        Args:
            data: Episodes to draw windows from, with replacement.
            steps: Gradient steps, >= 1.
            records: Per step, >= 1: `records // window` windows, at least one.
            window: T, records per window; None takes the model's own.
            learning_rate: Adam's, > 0.
            clip: Largest norm of a gradient, > 0.
            keep_scaling: Whether the scaling stays, to adapt a fitted world to new data.
            generator: Source of windows and of the model's randomness; on the CPU.

        Returns:
            An iterator over the steps' metrics, which takes a step each time.

        Raises:
            ValueError: At once if the data do not fit the layout, are too few or not finite; later
                if the loss is not finite.
        """
        window = self.model.window if window is None else window
        settings = Settings(steps, records, window, learning_rate, clip)
        scaling = self.scaling
        if not keep_scaling:
            scaling = Scaling.of(data, self.layout).to(self.device)
        return fit(self, data, scaling, settings, generator)

    @torch.no_grad()
    def evaluate(
        self, data: Episodes, generator: torch.Generator, window: int | None = None
    ) -> dict[str, float]:
        """Loss and metrics of the model over all steps of data, such as held-out data."""
        window = self.model.window if window is None else window
        totals: dict[str, float] = {}
        count = 0.0
        for raw in data.in_order(window, self.layout.outcomes):
            windows = self.scaling.windows(raw)
            loss, metrics = self.model.loss(self.parameters, windows, generator, self.steps)
            weight = float(windows.counted.sum())
            count += weight
            for name, value in (metrics | {"loss": loss}).items():
                totals[name] = totals.get(name, 0.0) + weight * float(value.mean())
        return {name: total / count for name, total in totals.items()}

    def initial(self, count: int) -> HiddenState:
        """Hidden state of `count` fresh episodes."""
        return self.model.initial(count, self.device)

    @torch.no_grad()
    def observe(
        self,
        observation: Tensor,
        previous_action: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
    ) -> HiddenState:
        """Updates the hidden state with observations in raw units.

        Args:
            observation: `(B, T, F)`.
            previous_action: The action before each, `(B, T, A)`; ignored where `is_first`.
            hidden_state: From `initial` or the last call.
            is_first: `(B, T)`, where an episode begins.

        Returns:
            The hidden state after the last observation.
        """
        x = self.scaling.observation.standardised(observation.to(self.device))
        action = self.scaling.action.standardised(previous_action.to(self.device))
        return self.model.observe(
            self.parameters, x, action, hidden_state, is_first.to(self.device)
        )

    def imagine(
        self,
        hidden_state: HiddenState,
        actions: Tensor | Policy,
        *,
        horizon: int | None = None,
        generator: torch.Generator,
        temperature: float = 1.0,
        gradients: bool = False,
    ) -> Imagined:
        """Samples one trajectory per row, in raw units; use only rows where `finite`.

        Args:
            hidden_state: Of n rows; `rlkit.world.repeat` makes several rows of each.
            actions: `(n, H, A)`, or a policy that reads observations and returns actions in raw
                units.
            horizon: H; needed with a policy.
            generator: The only source of randomness.
            temperature: Scales the randomness of each prediction: 1 as learned, 0 none.
            gradients: Whether gradients flow to actions, hidden state and parameters.

        Raises:
            ValueError: If the horizon is missing or differs from that of the actions.
        """
        if temperature < 0:
            raise ValueError(f"temperature must be >= 0, got {temperature}")
        given = actions.shape[1] if isinstance(actions, Tensor) else horizon
        if given is None or given < 1 or horizon not in (None, given):
            raise ValueError(
                f"horizon must be >= 1 and that of the actions, got {horizon} for {given} steps"
            )
        with torch.set_grad_enabled(gradients):
            policy = self.scaling.policy(actions)
            with fast_float32(self.onednn):
                made = self.model.imagine(
                    self.parameters, hidden_state, policy, given, generator, temperature
                )
            return self.scaling.imagined(made)

    def forecast(
        self,
        context_observations: Array,
        context_actions: Array,
        future_actions: Array,
        *,
        samples: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        strict: bool = True,
    ) -> NDArray[np.float32]:
        """Samples of future observations, in raw units.

        Args:
            context_observations: `(B, C + 1, F)`, the present last; C >= 0.
            context_actions: The action between each and the next, `(B, C, A)`.
            future_actions: The actions from the present on, `(B, H, A)`.
            samples: S, trajectories per row, >= 1.
            generator: The only source of randomness.
            temperature: Scales the randomness of each prediction: 1 as learned, 0 none.
            strict: Whether to refuse a forecast that is not finite.

        Returns:
            Observations `(S, B, H, F)`.

        Raises:
            ValueError: If the arrays do not fit each other or are not finite.
            NonFiniteForecast: If `strict`, and the forecast is not finite.
        """
        x, past, future = (
            torch.from_numpy(np.array(array, np.float32))
            for array in (context_observations, context_actions, future_actions)
        )
        _require_fit(self.layout, x, past, future, samples)
        previous = torch.nn.functional.pad(past, (0, 0, 1, 0))
        is_first = torch.zeros(previous.shape[:2], dtype=torch.bool)
        is_first[:, 0] = True
        at_once = max(ROWS // samples, 1)
        parts = []
        for i in range(0, len(x), at_once):
            rows = slice(i, i + at_once)
            hidden_state = self.observe(
                x[rows], previous[rows], self.initial(len(x[rows])), is_first[rows]
            )
            actions = future[rows].repeat_interleave(samples, 0).to(self.device)
            made = self.imagine(
                repeat(hidden_state, samples), actions, generator=generator, temperature=temperature
            )
            parts.append(made.observation.view(-1, samples, *made.observation.shape[1:]).cpu())
        forecast = torch.cat(parts).transpose(0, 1)
        broken = ~forecast.isfinite()
        if strict and broken.any():
            first = int(broken.any(3).any(1).any(0).nonzero()[0])
            raise NonFiniteForecast(
                f"{float(broken.float().mean()):.2%} of what {type(self.model).__name__} forecasts "
                f"is not finite, first at step {first + 1} of {future.shape[1]}; fit it "
                f"longer or to more data, or shorten the horizon"
            )
        return forecast.numpy()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors on the CPU, from which fitting continues exactly."""
        tensors = self.state | self.scaling.tensors()
        return {
            **self._facts(),
            "steps": self.steps,
            **{name: value.detach().cpu().clone() for name, value in tensors.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it is of another model or layout; nothing changes then.
        """
        for name, ours in self._facts().items():
            if state[name] != ours:
                raise ValueError(
                    f"the saved world has {name} {state[name]}, this one has {ours}; use the same "
                    f"settings, or fit a new world"
                )
        names = {name for name in state if name.startswith(NAMED)}
        if names != {name for name in self.state if name.startswith(NAMED)}:
            raise ValueError(f"the saved world has parameters {sorted(names)}, this one has others")
        for name, value in (tensors := self.state | self.scaling.tensors()).items():
            if name not in names and state[name].shape != value.shape:
                raise ValueError(
                    f"the saved world's {name} has shape {tuple(state[name].shape)}, this one's "
                    f"{tuple(value.shape)}"
                )
        loaded = {name: state[name].to(self.device, copy=True) for name in tensors}
        self.scaling = Scaling.of_tensors(loaded)
        self.state = {name: loaded[name] for name in self.state}
        self.steps = int(state["steps"])

    def save(self, folder: Path | str) -> None:
        """Writes weights, facts and a manifest into a folder of their own, atomically.

        Raises:
            ValueError: If the folder holds other files.
        """
        views = {name: view.cpu() for name, view in self.views().items()}
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(NAMED)}
        write_model(Path(folder), "world", state, views)

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", *, trust: bool = False
    ) -> World:
        """A world from a folder that `save` wrote; `trust` lets it name any class, to be imported.

        Raises:
            UntrustedError: If it names a class that is not installed, unless it is trusted.
            ValueError: If it holds no world or a damaged one, or one with goals that 0.1.0 saved:
                the order of its columns is another one.
        """
        state, named = read_model(Path(folder), "world", trust=trust)
        with built_from(named, folder):
            layout = state["layout"]
            if layout.get("achieved") and "rlkit" not in state:
                raise ValueError(not_readable(f"the world in {folder}", None))
            lists = {key: tuple(value) for key, value in layout.items() if isinstance(value, list)}
            model, random = WORLDS.make(state["model"]), torch.Generator().manual_seed(0)
            world = cls(model, Layout(**{**layout, **lists}), random, device)
            try:
                found = world.model.from_views(named)
            except ValueError as error:
                raise ValueError(f"weights in {folder} are of another model: {error}") from error
            world.load_state_dict({**state, **world.state_of(found, fresh=False)})
        return world

    def views(self) -> dict[str, Tensor]:
        """The parameters by name; they share memory with the world."""
        return self.model.views(self.parameters)

    def state_of(self, parameters: Parameters, fresh: bool = True) -> dict[str, Tensor]:
        """The state of parameters; for a vector with new moments of Adam, if `fresh`."""
        if not isinstance(parameters, Tensor):
            return {f"{NAMED}{name}": value.to(self.device) for name, value in parameters.items()}
        vector = parameters.to(self.device)
        return adam_state("vector", vector) if fresh else {"vector": vector}

    def _facts(self) -> dict[str, Any]:
        layout = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self.layout).items()
            if key != "binary" or value  # worlds without it were saved before there was any
        }
        return {"model": WORLDS.describe(self.model), "layout": layout}


def _require_fit(layout: Layout, x: Tensor, past: Tensor, future: Tensor, samples: int) -> None:
    (count, observed), widths = x.shape[:2], layout.widths
    wanted = {
        "context_observations": (x, (count, observed, widths.observation)),
        "context_actions": (past, (count, observed - 1, widths.action)),
        "future_actions": (future, (count, future.shape[1], widths.action)),
    }
    for name, (array, shape) in wanted.items():
        if tuple(array.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}, not {shape}: C + 1 observations "
                f"(B, C + 1, F), and actions (B, C, A) and (B, H, A)"
            )
        require_finite(array.numpy(), name)
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
