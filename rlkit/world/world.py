"""A world model with its parameters: what agents and scorecards hold, fit, save and load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks import adam_state
from rlkit.networks.encoders import HiddenState
from rlkit.networks.files import fill_views, read_model, write_model
from rlkit.networks.fit import descend
from rlkit.networks.gradient import ONEDNN_WIDTH, fast_float32
from rlkit.world.contract import WORLDS, Imagined, Metrics, Policy, Windows, WorldModel, repeat
from rlkit.world.data.windows import Array, Episodes, require_finite
from rlkit.world.layout import Layout
from rlkit.world.scaling import Scaling

ROWS = 4096  # rows that are imagined at a time; more do not stay in the cache


class NonFiniteForecast(ValueError):
    """A forecast held what is no number; nothing of it may be used."""


class World:
    """A world model, its parameters and the scaling between them and raw units.

    Columns are standardised by mean and deviation of what was fitted. A column that never varied
    there is 0 to the model, and forecasts say that constant.

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
        self._state = adam_state("vector", self.model.initial_parameters(generator).to(device))
        widest = max(n for shape in self.model.shapes().values() for n in shape)
        self._onednn = widest >= ONEDNN_WIDTH

    @property
    def vector(self) -> Tensor:
        """The parameters `(size,)`; a new tensor after each step. May be set."""
        return self._state["vector"]

    @vector.setter
    def vector(self, value: Tensor) -> None:
        self._state = self._state | {"vector": value}

    def fit(
        self,
        data: Episodes,
        *,
        steps: int,
        records: int = 256,
        window: int | None = None,
        learning_rate: float = 1e-3,
        clip: float = 100.0,
        generator: torch.Generator,
    ) -> Iterator[Metrics]:
        """Fits the model, or goes on fitting it; a model with a `solve` by that, at once.

        The scaling is that of `data`, so this is the training part alone. After every step the
        world is whole: whoever stops, saves world and generator, and goes on with the steps that
        are left comes to the very same parameters.

        Args:
            data: Episodes to draw windows from, with replacement.
            steps: Gradient steps, >= 1.
            records: Per step, >= 1: `records // window` windows, at least one.
            window: T, records per window; None takes the model's own.
            learning_rate: Adam's, > 0.
            clip: Largest norm of a gradient, > 0.
            generator: Source of windows and of the model's chance; on the CPU.

        Returns:
            An iterator over the steps' metrics; it does the work.

        Raises:
            ValueError: At once if the data do not fit the layout, are too few or hold what is no
                number; in the middle if the loss stops being a number.
        """
        window = self.model.window if window is None else window
        for name, value in {"steps": steps, "records": records, "window": window}.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        for name, rate in {"learning_rate": learning_rate, "clip": clip}.items():
            if not rate > 0:
                raise ValueError(f"{name} must be > 0, got {rate}")
        scaling = Scaling.of(data, self.layout).to(self.device)
        if (solve := getattr(self.model, "solve", None)) is not None:
            return self._solve(solve, scaling, data, window, generator)

        def drawn(records: int) -> Windows:
            count = max(records // window, 1)
            return scaling.windows(data.sample(count, window, generator, self.layout.outcomes))

        return self._descend(scaling, drawn, steps, records, learning_rate, clip, generator)

    def _solve(
        self,
        solve: Callable[[Iterator[Windows]], Tensor],
        scaling: Scaling,
        data: Episodes,
        window: int,
        generator: torch.Generator,
    ) -> Iterator[Metrics]:
        vector = solve(scaling.windows(one) for one in data.every(window, self.layout.outcomes))
        self.scaling, self._state = scaling, adam_state("vector", vector.to(self.device))
        self.steps += 1
        metrics = self.evaluate(data, generator, window)
        yield {name: torch.tensor(value) for name, value in metrics.items()}

    def _descend(
        self,
        scaling: Scaling,
        drawn: Callable[[int], Windows],
        steps: int,
        records: int,
        learning_rate: float,
        clip: float,
        generator: torch.Generator,
    ) -> Iterator[Metrics]:
        self.scaling = scaling
        adapt = getattr(self.model, "adapt", None)
        if adapt is not None and self.steps == 0:
            self._state = self._state | {"vector": adapt(self.vector, drawn(ROWS))}

        def loss(vector: Tensor, windows: Windows, step: int) -> tuple[Tensor, Metrics]:
            return self.model.loss(vector, windows, generator, step)

        fit = descend(
            self._state,
            loss,
            (drawn(records) for _ in range(steps)),
            model=self.model,
            learning_rate=learning_rate,
            start=self.steps,
            clip=clip,
            onednn=self._onednn,
        )
        for metrics in fit:
            self.steps += 1
            yield metrics

    @torch.no_grad()
    def evaluate(
        self, data: Episodes, generator: torch.Generator, window: int | None = None
    ) -> dict[str, float]:
        """Loss and the model's metrics on every step of some data, held-out data say."""
        window = self.model.window if window is None else window
        totals: dict[str, float] = {}
        count = 0.0
        for raw in data.every(window, self.layout.outcomes):
            windows = self.scaling.windows(raw)
            loss, metrics = self.model.loss(self.vector, windows, generator, self.steps)
            weight = float(windows.counted.sum())
            count += weight
            for name, value in (metrics | {"loss": loss}).items():
                totals[name] = totals.get(name, 0.0) + weight * float(value.mean())
        return {name: total / count for name, total in totals.items()}

    def initial(self, count: int) -> HiddenState:
        """Memory of `count` fresh episodes."""
        return self.model.initial(count, self.device)

    @torch.no_grad()
    def observe(
        self,
        observation: Tensor,
        previous_action: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
    ) -> HiddenState:
        """Takes in what happened, in raw units.

        Args:
            observation: `(B, T, F)`.
            previous_action: What led to each, `(B, T, A)`; of no meaning where `is_first`.
            hidden_state: Memory before, from `initial` or an earlier call.
            is_first: `(B, T)`, where an episode begins.

        Returns:
            Memory after the last observation, for `imagine` and the next call.
        """
        x = self.scaling.observation.standardised(observation.to(self.device))
        action = self.scaling.action.standardised(previous_action.to(self.device))
        return self.model.observe(self.vector, x, action, hidden_state, is_first.to(self.device))

    @torch.no_grad()
    def imagine(
        self,
        hidden_state: HiddenState,
        actions: Tensor | Policy,
        *,
        horizon: int | None = None,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> Imagined:
        """What would come of actions, a sample per row, in raw units. Look at its `finite`.

        Args:
            hidden_state: Memory of n rows; `rlkit.world.repeat` makes many rows of one.
            actions: `(n, H, A)`, or a policy that is asked for them, with observations and actions
                in raw units.
            horizon: H, needed with a policy alone.
            generator: The only source of chance.
            temperature: How much chance there is within a prediction: 1 as it was learned, 0 none.

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
        policy = self.scaling.policy(actions)
        with fast_float32(self._onednn):
            made = self.model.imagine(
                self.vector, hidden_state, policy, given, generator, temperature
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
        """Samples of what comes next, in raw units.

        Args:
            context_observations: What was seen, `(B, C + 1, F)`, the present last; C >= 0.
            context_actions: What led from each to the next, `(B, C, A)`.
            future_actions: What is done from the present on, `(B, H, A)`.
            samples: S, futures per row, >= 1.
            generator: The only source of chance.
            temperature: How much chance there is within a prediction: 1 as it was learned, 0 none.
            strict: Whether to refuse an answer that holds what is no number.

        Returns:
            Observations `(S, B, H, F)`.

        Raises:
            ValueError: If the arrays do not fit each other or hold what is no number.
            NonFiniteForecast: If `strict`, and the answer holds what is no number.
        """
        x, past, future = (
            torch.from_numpy(np.array(array, np.float32))
            for array in (context_observations, context_actions, future_actions)
        )
        self._require_fit(x, past, future, samples)
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
                f"{type(self.model).__name__} forecasts {float(broken.float().mean()):.2%} of "
                f"numbers that are none, first at step {first + 1} of {future.shape[1]}; fit it "
                f"longer or to more data, or shorten the horizon"
            )
        return forecast.numpy()

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data and tensors on the CPU: fitting goes on exactly from here."""
        tensors = self._state | self.scaling.tensors()
        return {
            **self._facts(),
            "steps": self.steps,
            **{name: value.detach().cpu().clone() for name, value in tensors.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it is of another model or layout; nothing is changed then.
        """
        for name, ours in self._facts().items():
            if state[name] != ours:
                raise ValueError(
                    f"the saved world has {name} {state[name]}, this one has {ours}; make this one "
                    f"like it, or fit it anew"
                )
        for name, value in (tensors := self._state | self.scaling.tensors()).items():
            if state[name].shape != value.shape:
                raise ValueError(
                    f"the saved world's {name} has shape {tuple(state[name].shape)}, this one's "
                    f"{tuple(value.shape)}"
                )
        loaded = {name: state[name].to(self.device, copy=True) for name in tensors}
        self.scaling = Scaling.of_tensors(loaded)
        self._state = {name: loaded[name] for name in self._state}
        self.steps = int(state["steps"])

    def save(self, folder: Path | str) -> None:
        """Writes `weights.safetensors` and `world.json` into a folder of their own, all or none.

        Raises:
            ValueError: If the folder holds anything else.
        """
        write_model(Path(folder), "world", self.state_dict(), self.model.views(self.vector.cpu()))

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> World:
        """A world from a folder that `save` wrote.

        Raises:
            ValueError: If there is no world or it is damaged.
        """
        state, named = read_model(Path(folder), "world")
        layout = state["layout"]
        lists = {key: tuple(value) for key, value in layout.items() if isinstance(value, list)}
        model = WORLDS.make(state["model"])
        world = cls(model, Layout(**{**layout, **lists}), torch.Generator().manual_seed(0), device)
        vector = torch.empty(world.model.size)
        fill_views(world.model.views(vector), named, Path(folder))
        world.load_state_dict({**state, "vector": vector})
        return world

    def _facts(self) -> dict[str, Any]:
        layout = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self.layout).items()
        }
        return {"model": WORLDS.describe(self.model), "layout": layout}

    def _require_fit(self, x: Tensor, past: Tensor, future: Tensor, samples: int) -> None:
        count, seen = x.shape[:2]
        widths = self.layout.widths
        wanted = {
            "context_observations": (x, (count, seen, widths.observation)),
            "context_actions": (past, (count, seen - 1, widths.action)),
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
