"""A batch of windows as rows, and what each network reads of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks import Normaliser, normalise
from rlkit.networks.gradient import Metrics, State

TD_ERROR = "td_error"
"""Name of the absolute TD errors of an update's rows, `(R,)`."""
Update = Callable[..., tuple[State, Metrics]]
Inputs = tuple[Tensor, Tensor, Tensor]
"""Features `(R, D)` of the encoder (D = 0 without), observation `(R, F)` and goal `(R, G)`."""


def fourier_features(x: Tensor, frequencies: Sequence[float]) -> Tensor:
    """`x`, and the sine and cosine of its multiples: `(..., W) -> (..., W (1 + 2 K))`.

    Perceptrons fit smooth functions first; with these features they also resolve what changes
    within a small part of an input's range. Source: Tancik et al. 2020, "Fourier Features Let
    Networks Learn High Frequency Functions in Low Dimensional Domains", section 6 (axis-aligned
    frequencies); Yang et al. 2022, "Overcoming the Spectral Bias of Neural Value Approximation".
    Deviations: the input itself stays beside its features, and no frequencies are mixed.

    Args:
        x: Inputs `(..., W)`, of about unit deviation.
        frequencies: Radians per unit of the input, K of them.
    """
    parts = [x]
    for frequency in frequencies:
        angle = frequency * x
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1) if len(parts) > 1 else x


class InputScaling:
    """Scales observations and goals by the moments of what was collected.

    Args:
        observation: F, width of raw observations.
        goal: G, width of raw goals; 0 without.
        device: Where they are scaled.
        enabled: If False moments stay those of the identity.
        frequencies: Of `fourier_features` of whatever was scaled; empty for none.
        goal_input: Whether networks read the goal ("absolute"), the goal minus the achieved goal
            ("relative") or both.
        achieved: First column of the achieved goal in raw observations, for relative goals.
    """

    def __init__(
        self,
        observation: int,
        goal: int,
        device: torch.device | str,
        enabled: bool,
        frequencies: Sequence[float] = (),
        goal_input: str = "absolute",
        achieved: int | None = None,
    ) -> None:
        self._enabled, self._frequencies = enabled, tuple(frequencies)
        self._reads_absolute = goal_input != "relative"
        self._achieved: slice | None = None
        if goal_input != "absolute":
            if achieved is None:
                raise ValueError(
                    f'goal_input = "{goal_input}" subtracts the achieved goal from the desired '
                    f"one: both must be Boxes of one shape, observe_achieved = True, and not "
                    f'images; set goal_input = "absolute"'
                )
            self._achieved = slice(achieved, achieved + goal)
        self._moments = {
            "observation": Normaliser(observation, device, enabled),
            "goal": Normaliser(goal, device, enabled),
        }

    @property
    def is_relative(self) -> bool:
        """Whether what networks read of a goal depends on the observation."""
        return self._achieved is not None

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of what networks read of an observation and of a goal."""
        observation, goal = (len(moments.shift) for moments in self._moments.values())
        each = 1 + 2 * len(self._frequencies)
        return observation * each, goal * each * (self._reads_absolute + self.is_relative)

    def observe(self, observation: NDArray[Any], goals: NDArray[Any]) -> None:
        """Updates the moments with collected observations `(n, F)` and goals `(m, G)`."""
        self._moments["observation"].observe(observation)
        self._moments["goal"].observe(goals)

    def tensors(self) -> dict[str, Tensor]:
        """Shift and scale of both, as `observation` and `goal` find them in a batch."""
        found = {}
        for name, moments in self._moments.items():
            found[f"{name}_shift"], found[f"{name}_scale"] = moments.shift, moments.scale
        return found

    def observation(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What networks read of observations.

        Args:
            tensors: What `tensors` gave, in a batch.
            x: Raw observations `(..., F)`.
        """
        shift, scale = tensors["observation_shift"], tensors["observation_scale"]
        return fourier_features(self._normalised(x, shift, scale), self._frequencies)

    def goal(self, tensors: Mapping[str, Tensor], goal: Tensor, x: Tensor) -> Tensor:
        """What networks read of goals.

        Args:
            tensors: What `tensors` gave, in a batch.
            goal: Raw goals `(..., G)`.
            x: Raw observations `(..., F)` at which they are read.
        """
        shift, scale = tensors["goal_shift"], tensors["goal_scale"]
        parts = [self._normalised(goal, shift, scale)] if self._reads_absolute else []
        if self._achieved is not None:
            # Not shifted: where the goal is achieved the difference is 0.
            difference = goal - x[..., self._achieved]
            parts.append(self._normalised(difference, torch.zeros_like(shift), scale))
        read = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return fourier_features(read, self._frequencies)

    def of_windows(self, batch: State) -> State:
        """What networks read of the observations `(B, L, F)` and goals `(B, T, G)` of windows."""
        x, goal = batch["observation"], batch["goal"]
        if self.is_relative:
            goal = at_every(goal, x.shape[1])
        return {"observation": self.observation(batch, x), "goal": self.goal(batch, goal, x)}

    def _normalised(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return normalise(x, shift, scale) if self._enabled else x

    def weights(self) -> dict[str, Tensor]:
        """Shifts and scales under the names of a file of weights; they share memory."""
        return {
            f"{name}.{part}": getattr(moments, part)
            for name, moments in self._moments.items()
            for part in ("shift", "scale")
            if len(moments.shift) > 0
        }

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return {f"{name}_moments": moments.state_dict() for name, moments in self._moments.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the moments; shifts and scales are part of the weights."""
        for name, moments in self._moments.items():
            moments.load_state_dict(state[f"{name}_moments"])


@dataclass(frozen=True)
class View:
    """What one network reads in a batch.

    Attributes:
        parameters: Its parameters `(size,)`; its loss is differentiated by them.
        current: Inputs at each row's observation.
        next: Inputs at the observation that the row's value bootstraps from.
    """

    parameters: Tensor
    current: Inputs
    next: Inputs

    def detached(self) -> Inputs:
        """The current inputs, with features that pass no gradient on."""
        features, observation, goal = self.current
        return features.detach(), observation, goal


@dataclass(frozen=True)
class Transitions:
    """R rows that losses read, one for each step of the windows after the burn-in.

    Attributes:
        views: By network, what it reads: actor and critic may see different goals and features.
        action: `(R, A)`, or integers, `(R,)` or for K components `(R, K)`.
        reward: `(R,)`; a discounted sum where n-step sums are used.
        discount: Of the value that follows, `(R,)`; 0 after a termination.
        weight: Shares of the loss, which sum to 1, `(R,)`: equal ones of valid steps, 0 for
            padding, unless their goals or windows have weights.
        steps_to_goal: Steps until the row's goal was achieved in its episode, 0 where unknown,
            `(R,)`; None unless requested.
        reports_errors: Whether the replay buffer draws by the critics' errors.
        target_critics: Which critics targets are of, in this update, `(M,)`; None for all.
    """

    views: Mapping[str, View]
    action: Tensor
    reward: Tensor
    discount: Tensor
    weight: Tensor
    steps_to_goal: Tensor | None = None
    reports_errors: bool = False
    target_critics: Tensor | None = None

    def __getitem__(self, network: str) -> View:
        return self.views[network]

    @property
    def actor(self) -> View:
        """What the actor reads."""
        return self.views["actor"]

    @property
    def critic(self) -> View:
        """What the critics read."""
        return self.views["critic"]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over valid rows, `(..., R) -> (...)`."""
        return (values * self.weight).sum(-1)

    def td_errors(self, q: Tensor, target: Tensor) -> Metrics:
        """What a critic loss adds to its metrics: absolute errors where replay draws by them.

        Args:
            q: Values of the actions taken, `(N, R)` of N critics; the errors are their mean.
            target: What they are to be, `(R,)`.
        """
        return {TD_ERROR: (q - target).detach().abs().mean(0)} if self.reports_errors else {}

    def for_target(self, values: Tensor) -> Tensor:
        """Of values of N critics `(N, ...)` those that targets are of."""
        return values if self.target_critics is None else values[self.target_critics]

    def for_actor(self, values: Tensor, chosen: str) -> Tensor:
        """Of values of N critics `(N, R)` the chosen one, "min", "mean" or "first", `(R,)`."""
        if chosen == "first":
            return values[0]
        return values.mean(0) if chosen == "mean" else values.amin(0)

    def imitation_loss(self, error: Tensor, gamma: float) -> Tensor:
        """Mean error against the actions taken, of those that led to the row's goal.

        A step counts less the longer it took from there to the goal.

        Source: Ghosh et al. 2021, "Learning to Reach Goals via Iterated Supervised Learning",
        section 4. Deviations: the discount, and that it is added to a value-based loss.

        Args:
            error: Of the policy against the action taken, `(..., R)`.
            gamma: Discount of one step.
        """
        assert self.steps_to_goal is not None
        steps = self.steps_to_goal
        return self.mean(torch.where(steps > 0, gamma**steps, 0.0) * error)


def rows_of(batch: State, burn_in: int, scaling: InputScaling) -> State:
    """Every step after the burn-in as a row.

    Args:
        batch: As `GradientLearner.update` takes it.
        burn_in: Records at the windows' start that nothing is learned from.
        scaling: Of observations and goals.

    Returns:
        `observation`, `next_observation (R, F)`; `goal`, `next_goal (R, G)`, and `visible_goal`,
        `next_visible_goal`, which are zero where the goal is hidden; `action`, and `reward`,
        `discount`, `weight (R,)`, and `steps_to_goal (R,)` where the batch has it.
    """
    part = slice(burn_in, batch["reward"].shape[1])
    x, raw_goal = batch["observation"][:, part], batch["goal"][:, part]
    next_x = at_next(batch, batch["observation"], burn_in)
    goal = next_goal = scaling.goal(batch, raw_goal, x)
    if scaling.is_relative:
        next_goal = scaling.goal(batch, raw_goal, next_x)
    visible_goal, next_visible_goal = goal, next_goal
    if "visible" in batch:
        visible = batch["visible"].unsqueeze(-1)
        next_visible_goal = next_goal * at_next(batch, visible, burn_in)
        visible_goal = goal * visible[:, part]
    mask = batch["mask"][:, part]
    if "importance" in batch:
        mask = mask * batch["importance"].unsqueeze(-1)
    rows = {
        # Scaled after slicing, so that the parts are contiguous: products are faster then.
        "observation": scaling.observation(batch, x),
        "next_observation": scaling.observation(batch, next_x),
        "goal": goal,
        "next_goal": next_goal,
        "visible_goal": visible_goal,
        "next_visible_goal": next_visible_goal,
        "action": batch["action"][:, part],
        "reward": batch["reward"][:, part],
        "discount": batch["discount"][:, part],
        "weight": mask / mask.sum(),
    }
    if "steps_to_goal" in batch:
        rows["steps_to_goal"] = batch["steps_to_goal"][:, part]
    return {name: value.flatten(0, 1) for name, value in rows.items()}


def view_of(
    parameters: Tensor,
    features: Tensor | None,
    rows: State,
    batch: State,
    burn_in: int,
    sees_goal: bool,
) -> View:
    """What a network reads at the rows of a batch.

    Args:
        parameters: The network's, `(size,)`.
        features: Its encoder's at all observations after the burn-in, `(B, L - burn_in, D)`; None
            without an encoder.
        rows: What `rows_of` gave.
        batch: The batch that they come from.
        burn_in: Records at the windows' start that nothing is learned from.
        sees_goal: Whether it reads goals that are hidden as well.
    """
    steps = batch["reward"].shape[1] - burn_in
    if features is None:
        current = after = rows["reward"].new_zeros(len(rows["reward"]), 0)
    else:
        with torch.enable_grad():
            # `at_next` counts from the window's first observation, the burn-in included.
            whole = F.pad(features, (0, 0, burn_in, 0))
            current = features[:, :steps].flatten(0, 1)
            after = at_next(batch, whole, burn_in).flatten(0, 1)
    goals = ("goal", "next_goal") if sees_goal else ("visible_goal", "next_visible_goal")
    return View(
        parameters,
        (current, rows["observation"], rows[goals[0]]),
        (after, rows["next_observation"], rows[goals[1]]),
    )


def at_every(goal: Tensor, length: int) -> Tensor:
    """Goals of steps `(B, T, G)` at all observations `(B, L, G)`: the last one's beyond them."""
    last = goal[:, -1:].expand(-1, length - goal.shape[1], -1)
    return torch.cat([goal, last], dim=1)


def at_next(batch: State, x: Tensor, burn_in: int) -> Tensor:
    """Of values at all observations `(B, L, W)`, those that steps bootstrap from.

    Returns:
        `(B, T - burn_in, W)`.
    """
    steps = batch["reward"].shape[1]
    if "bootstrap" not in batch:
        return x[:, burn_in + 1 : steps + 1]
    index = batch["bootstrap"][:, burn_in:].unsqueeze(-1)
    return x.gather(1, index.expand(-1, -1, x.shape[-1]))


def reporting(update: Update) -> Update:
    """An update function that reports its rows' TD errors where its batch has `importance`.

    The critics' loss gives them among its metrics, see `Transitions.td_errors`. Those are numbers,
    so the errors take the way of the update's changes to the state.
    """

    def update_and_report(state: State, batch: State, *inputs: Any) -> tuple[State, Metrics]:
        changes, metrics = update(state, batch, *inputs)
        if "importance" not in batch:
            return changes, metrics
        if TD_ERROR not in metrics:
            raise ValueError(
                "the replay sampler draws by TD errors, and this agent's losses give none: let its "
                "critic loss return `metrics | rows.td_errors(q, target)`, or set "
                'replay.sampler = "uniform"'
            )
        numbers = {name: metric for name, metric in metrics.items() if name != TD_ERROR}
        return {**changes, TD_ERROR: metrics[TD_ERROR]}, numbers

    return update_and_report
