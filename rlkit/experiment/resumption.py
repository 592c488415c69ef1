"""Settings that change when a run is resumed, and those that cannot."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlkit.experiment.recipe import Recipe, make_recipe

Changes = dict[str, list[Any]]
"""By dotted key the old and the new value."""

# What the saved state was made with: its tensors, its environments, its random numbers.
_FIXED = {
    "env": "the saved episodes are of that environment; train another run",
    "agent": "the saved weights are that agent's; train another run",
    "num_envs": "the saved state is that of so many environments; train another run",
    "action_repeat": "the saved steps are those of actions held so long; train another run",
    "subprocess": "the saved state is that of environments made that way",
    "seed": "its random numbers go on from the saved state; train another run",
}


def changed_recipe(
    recipe: Recipe, steps: int | None, settings: Iterable[str]
) -> tuple[Recipe, Changes]:
    """A run's recipe with other settings, and which of them differ.

    Args:
        recipe: The run's.
        steps: New total of steps; None changes nothing. It is not one of the changes.
        settings: As `"dotted.key=value"`.

    Raises:
        ValueError: If a setting is unknown or wrong, or one that cannot change.
    """
    content = dataclasses.asdict(recipe)
    plan = make_recipe(_without_nones(content), settings)
    old, new = recipe.flat(), plan.flat()
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    for key in keys:
        if key in _FIXED:
            raise ValueError(
                f"{key} cannot change from {old.get(key)!r} to {new.get(key)!r} when a run is "
                f"resumed: {_FIXED[key]}"
            )
    changes = {key: [old.get(key), new.get(key)] for key in keys}
    return (plan if steps is None else dataclasses.replace(plan, steps=steps)), changes


@contextlib.contextmanager
def require_changeable(changes: Mapping[str, Any]) -> Iterator[None]:
    """Names the changed settings where a saved state does not fit them.

    Raises:
        ValueError: If the body raises one, or a `KeyError`.
    """
    try:
        yield
    except (ValueError, KeyError) as error:
        if not changes:
            raise
        named = ", ".join(f"{key} = {new!r}" for key, (_, new) in changes.items())
        raise ValueError(
            f"the run cannot be resumed with {named}: {error}. Train another run for that"
        ) from error


def _without_nones(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nones(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }
