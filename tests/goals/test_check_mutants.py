from __future__ import annotations

import inspect

import defective_envs
import pytest
from defective_envs import MORE, OF_GOALS, SEEDED, GoalMoves, Line

from rlkit.goals import DistanceRule
from rlkit.goals.check import check_env
from rlkit.goals.findings import LAWS, Finding

MUTANTS = {**SEEDED, **OF_GOALS, **MORE}
SHORT = {"episodes": 3, "steps": 300, "seconds": 10.0}  # as before a training


def named(findings: list[Finding], law: str) -> Finding:
    (found,) = [one for one in findings if one.law == law and one.level != "note"]
    return found


def test_there_are_28_defects_beside_those_of_goals() -> None:
    assert len(SEEDED) == 28
    assert set(MUTANTS.values()) <= set(LAWS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_every_defect_is_named_with_the_line_to_change(mutant: type[Line]) -> None:
    found = named(check_env(mutant, steps=300), MUTANTS[mutant])
    name, place = found.where.split(" ")
    assert place.startswith("(tests/defective_envs.py:")
    kind = getattr(defective_envs, name.partition(".")[0])
    text, start = inspect.getsourcelines(kind)
    assert start <= int(place.rstrip(")").rpartition(":")[2]) < start + len(text)
    assert kind in mutant.__mro__ or issubclass(kind, DistanceRule)


@pytest.mark.parametrize("mutant", SEEDED, ids=lambda mutant: mutant.__name__)
def test_the_short_check_before_a_training_names_them_too(mutant: type[Line]) -> None:
    named(check_env(mutant, **SHORT), SEEDED[mutant])


@pytest.mark.parametrize("options", [{}, SHORT, {"episodes": 1}], ids=["long", "short", "one"])
def test_a_sound_environment_has_none(options: dict[str, float]) -> None:
    for seed in (0, 7):
        laws = {one.law for one in check_env(Line, seed=seed, **options)}  # type: ignore[arg-type]
        assert laws == {"no rendering"}


def test_what_may_be_intended_is_a_note() -> None:
    (found,) = [one for one in check_env(GoalMoves) if one.law == "goal changes"]
    assert found.level == "note"
