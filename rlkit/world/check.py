"""Checks a world model, built in or a user's, against the laws of world models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from rlkit.networks import adam_state
from rlkit.networks.encoders import HiddenState
from rlkit.networks.fit import descend
from rlkit.networks.laws import (
    changed,
    differ,
    not_lowered,
    unreached_parameters,
    wrong_loss,
)
from rlkit.plugins import run_laws
from rlkit.world.contract import Parameters, Windows, WorldModel, repeat
from rlkit.world.experience import HORIZON, Experience

TOLERANCE = 1e-4
"""Largest difference between two ways to the same float32 numbers, where those are around 1."""
_differ = partial(differ, tolerance=TOLERANCE)


Law = Callable[[Experience], str | None]


def check_world(model: WorldModel, experience: Experience | None = None) -> None:
    """Checks the laws on synthetic experience.

    Args:
        model: Configured, with or without widths.
        experience: What to check it on; 4 windows of 10 steps by default.

    Raises:
        ValueError: If a law is broken; the message names it and what differs.
    """
    case = Experience(model) if experience is None else experience
    run_laws(model, LAWS, case)


def _shapes_are_right(case: Experience) -> str | None:
    model, w = case.model, case.widths
    if model.widths != w:
        return f"with_widths({w}) gave a model for {model.widths}"
    if model.window < 1:
        return f"window is {model.window}, a window has at least one record"
    views = model.views(case.parameters)
    if isinstance(case.parameters, Tensor):
        total = sum(view.numel() for view in views.values())
        if case.parameters.ndim != 1 or total != len(case.parameters):
            return f"parameters are {tuple(case.parameters.shape)}, the views hold {total} numbers"
    again = model.views(model.from_views({name: view.clone() for name, view in views.items()}))
    if again.keys() != views.keys() or any(not torch.equal(again[k], views[k]) for k in views):
        return "from_views does not invert views"
    return None


def _imagines_in_the_right_shape(case: Experience) -> str | None:
    w, rows = case.widths, len(case.windows)
    hidden_state = case.observed(case.windows, 3)
    made = case.imagine(hidden_state, case.actions)
    before, *after = (
        [tuple(part.shape) for part in state]
        for state in (case.model.initial(rows), hidden_state, made.hidden_state)
    )
    if any(shapes != before for shapes in after) or any(shape[0] != rows for shape in before):
        return f"the hidden state has shapes {before} when fresh, {after[0]} and {after[1]} later"
    if len(made.hidden_states) != HORIZON:
        return f"it has {len(made.hidden_states)} hidden states of {HORIZON} steps"
    widths = {"observation": w.observation, "outcome": w.outcome}
    widths |= {name: w.target for name in ("mean", "scale") if getattr(made, name) is not None}
    for name, width in widths.items():
        value, wanted = getattr(made, name), (rows, HORIZON, width)
        if value.shape != wanted or value.dtype != torch.float32:
            return f"{name} is {value.dtype} {tuple(value.shape)}, not float32 {wanted}"
        if not value.isfinite().all():
            return f"{name} is not finite"
    if len(widths) == 3:
        return "it gives only one of mean and scale"
    return "a scale is negative" if made.scale is not None and (made.scale < 0).any() else None


def _the_last_observation_comes_first(case: Experience) -> str | None:
    hidden_state = case.observed(case.windows, 3)
    made = case.imagine(hidden_state, case.actions)
    last = torch.stack([one[0] for one in made.hidden_states], 1)
    pairs = {
        "observed": (hidden_state[0], case.windows.observation[:, 2]),
        "imagined": (last, made.observation),
    }
    other = [name for name, (one, two) in pairs.items() if not torch.equal(one, two)]
    return f"hidden_state[0] is not the last observation, {other[0]}" if other else None


def _never_writes_to_what_it_reads(case: Experience) -> str | None:
    hidden_state = case.observed(case.windows, 3)
    read = {"actions": case.actions, **vars(case.windows), **case.model.views(case.parameters)}
    read |= {f"hidden_state[{i}]": part for i, part in enumerate(hidden_state)}

    def call() -> None:
        case.observe(case.windows, 3, 6, hidden_state)
        case.imagine(hidden_state, case.actions)
        case.loss(case.parameters, case.windows)

    return changed(read, call)


def _a_window_is_its_single_steps(case: Experience) -> str | None:
    steps = case.windows.action.shape[1] + 1
    hidden_state = case.model.initial(len(case.windows))
    for t in range(steps):
        hidden_state = case.observe(case.windows, t, t + 1, hidden_state)
        whole = case.observed(case.windows, t + 1)
        if wrong := _states_differ(hidden_state, whole, f"after {t + 1} steps and one window"):
            return wrong
    for t in range(1, steps):
        halves = case.observe(case.windows, t, steps, case.observed(case.windows, t))
        if wrong := _states_differ(halves, hidden_state, f"after two windows cut at {t} and one"):
            return wrong
    return None


def _a_reset_is_a_fresh_start(case: Experience) -> str | None:
    at, steps = 4, case.windows.action.shape[1] + 1
    is_first = case.windows.is_first.clone()
    is_first[0, at] = True
    whole = case.observed(replace(case.windows, is_first=is_first), steps)
    one = _rows(replace(case.windows, is_first=is_first), slice(1))
    fresh = case.observe(one, at, steps, case.model.initial(1))
    row = tuple(part[:1] for part in whole)
    return _states_differ(row, fresh, "after a reset inside a window and of a fresh episode")


def _rows_are_separate(case: Experience) -> str | None:
    whole = case.observed(case.windows, 5)
    for row in range(len(case.windows)):
        one = slice(row, row + 1)
        alone = case.observed(_rows(case.windows, one), 5)
        among = tuple(part[one] for part in whole)
        if wrong := _states_differ(alone, among, f"of row {row} alone and among others"):
            return wrong
    return None


def _the_same_seed_gives_the_same_samples(case: Experience) -> str | None:
    hidden_state = case.observed(case.windows, 3)
    one, two = (case.imagine(hidden_state, case.actions) for _ in range(2))
    same = torch.equal(one.observation, two.observation) and torch.equal(one.outcome, two.outcome)
    return None if same else "two imaginations with the same generator differ"


def _imagining_reads_only_the_past(case: Experience) -> str | None:
    hidden_state = case.observed(case.windows, 3)
    made = []
    for other in range(2):
        # Windows of a loss or another call must not influence it.
        future = replace(case.windows, observation=case.windows.observation + other)
        case.loss(case.parameters, future)
        case.observed(future, case.windows.action.shape[1])
        made.append(case.imagine(hidden_state, case.actions).observation)
    if not torch.equal(*made):
        return "what it imagines depends on windows of earlier calls"
    for t in range(1, HORIZON):
        late = case.actions.clone()
        late[:, t:] += 1
        other_made = case.imagine(hidden_state, late).observation
        text = f"the first {t} imagined steps under different actions after them"
        if wrong := _differ(other_made[:, :t], made[0][:, :t], text):
            return wrong
    return None


def _a_policy_reads_what_is_imagined(case: Experience) -> str | None:
    hidden_state = case.observed(case.windows, 3)
    read: list[Tensor] = []
    times: list[int] = []

    def policy(observation: Tensor, state: HiddenState, t: int) -> Tensor:
        read.append(observation.clone())
        times.append(t)
        return case.actions[:, t]

    made = case.imagine(hidden_state, policy)
    if times != list(range(HORIZON)):
        return f"the policy is called at times {times}, not once at each of {HORIZON} steps"
    wanted = torch.cat([case.windows.observation[:, 2:3], made.observation[:, :-1]], 1)
    if not torch.equal(torch.stack(read, 1), wanted):
        return "the policy reads other observations than were observed and imagined"
    if not case.widths.action:
        return None
    other = case.imagine(hidden_state, lambda x, state, t: case.actions[:, t] + 1).observation
    return "its actions have no effect" if torch.equal(other, made.observation) else None


def _temperature_widens_predictions(case: Experience) -> str | None:
    count = 64
    hidden_state = repeat(case.observed(case.windows, 3), count)
    actions = case.actions.repeat_interleave(count, 0)
    spreads = []
    for temperature in (0.0, 0.5, 2.0):
        made = case.imagine(hidden_state, actions, temperature=temperature).observation[:, 0]
        rows = made.view(len(case.windows), count, -1)
        spreads.append(float(rows.std(1).mean()))
    rising = all(two >= one - 1e-6 for one, two in pairwise(spreads))
    return None if rising else f"deviations at temperatures 0, 0.5 and 2 are {spreads}"


def _padding_never_changes_a_loss(case: Experience) -> str | None:
    steps = case.windows.action.shape[1]
    for kept in range(1, steps):
        mask = case.windows.mask.clone()
        mask[0, kept:] = False
        losses = []
        for garbage in (0.0, 5.0):
            changed = {"mask": mask}
            for name, first in {"observation": kept + 1, "action": kept, "outcome": kept}.items():
                value = getattr(case.windows, name).clone()
                value[0, first:] += garbage * (1 + case.normal(*value[0, first:].shape))
                changed[name] = value
            losses.append(case.loss(case.parameters, replace(case.windows, **changed))[0])
        if wrong := _differ(losses[0], losses[1], f"losses with other padding after {kept} steps"):
            return wrong
    return None


def _a_loss_does_not_read_across_a_reset(case: Experience) -> str | None:
    at = 5
    is_first, mask = case.windows.is_first.clone(), case.windows.mask.clone()
    is_first[:, at] = True
    mask[:, : at - 1] = False  # record at - 1, whose next observation is another episode's, stays
    losses = []
    for garbage in (0.0, 5.0):
        changed = {"is_first": is_first, "mask": mask}
        for name in ("observation", "action", "outcome"):
            value = getattr(case.windows, name).clone()
            value[:, :at] += garbage * (1 + case.normal(*value[:, :at].shape))
            changed[name] = value
        losses.append(case.loss(case.parameters, replace(case.windows, **changed))[0])
    return _differ(losses[0], losses[1], "losses after a reset under different steps before it")


def _the_loss_follows_its_generator(case: Experience) -> str | None:
    parameters: Parameters = case.parameters
    if isinstance(parameters, Tensor):
        return wrong_loss(lambda vector: case.loss(vector, case.windows), parameters, "error")
    return wrong_loss(lambda _: case.loss(parameters, case.windows), torch.zeros(1), "error")


def _imagination_is_differentiable(case: Experience) -> str | None:
    if not getattr(case.model, "differentiable", True) or not case.widths.action:
        return None
    actions = case.actions.clone().requires_grad_()
    made = case.imagine(case.observed(case.windows, 3), actions, temperature=0.5, gradients=True)
    (found,) = torch.autograd.grad(made.observation.square().sum(), actions)
    if not found.isfinite().all() or not found[:, 0].any():
        return (
            "actions get no finite gradient; models without gradients have differentiable = False"
        )
    return None


def _binary_outcomes_are_zero_or_one(case: Experience) -> str | None:
    made = case.imagine(case.observed(case.windows, 3), case.actions)
    for column in case.widths.binary:
        value = made.outcome[:, :, column]
        if not ((value == 0) | (value == 1)).all():
            return f"outcome {column} is binary and holds {float(value[0, 0]):.4g}"
        if made.mean is not None:
            mean = made.mean[:, :, case.widths.observation + column]
            if (mean < 0).any() or (mean > 1).any():
                return f"the mean of outcome {column} is no probability"
    return None


def _gradients_reach_every_parameter(case: Experience) -> str | None:
    if hasattr(case.model, "solve"):
        return None
    return unreached_parameters(
        case.model, lambda vector: case.loss(vector, case.windows), case.parameters
    )


def _training_lowers_the_loss(case: Experience) -> str | None:
    windows = case.generated(32, case.windows.action.shape[1])
    solve, adapt = (getattr(case.model, name, None) for name in ("solve", "adapt"))
    if solve is not None:
        after = solve(iter([windows]))
    else:
        start = case.parameters if adapt is None else adapt(case.parameters, windows)
        state = adam_state("vector", start)
        fit = descend(
            state,
            lambda vector, seed, _: case.loss(vector, windows, seed),
            range(60),
            model=case.model,
            learning_rate=1e-3,
        )
        for _ in fit:
            pass
        after = state["vector"]
    return not_lowered(
        lambda v, seed: float(case.loss(v, windows, seed)[0]), case.parameters, after
    )


def _rows(windows: Windows, rows: slice) -> Windows:
    return Windows(**{name: value[rows] for name, value in vars(windows).items()})


def _states_differ(one: HiddenState, two: HiddenState, what: str) -> str | None:
    for i, (a, b) in enumerate(zip(one, two, strict=True)):
        if wrong := _differ(a, b, f"hidden states (part {i}) {what}"):
            return wrong
    return None


LAWS: dict[str, Law] = {
    "its shapes are right": _shapes_are_right,
    "it imagines in the right shape": _imagines_in_the_right_shape,
    "it never writes to what it reads": _never_writes_to_what_it_reads,
    "a hidden state begins with the last observation": _the_last_observation_comes_first,
    "rows are separate": _rows_are_separate,
    "a window is its single steps": _a_window_is_its_single_steps,
    "a reset is a fresh start": _a_reset_is_a_fresh_start,
    "the same seed gives the same samples": _the_same_seed_gives_the_same_samples,
    "imagining reads only the past": _imagining_reads_only_the_past,
    "a policy reads what is imagined": _a_policy_reads_what_is_imagined,
    "temperature widens predictions": _temperature_widens_predictions,
    "the loss follows its generator": _the_loss_follows_its_generator,
    "padding never changes a loss": _padding_never_changes_a_loss,
    "a loss does not read across a reset": _a_loss_does_not_read_across_a_reset,
    "imagination is differentiable": _imagination_is_differentiable,
    "binary outcomes are 0 or 1": _binary_outcomes_are_zero_or_one,
    "gradients reach every parameter": _gradients_reach_every_parameter,
    "training lowers the loss": _training_lowers_the_loss,
}
