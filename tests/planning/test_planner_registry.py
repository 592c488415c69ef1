import json
from dataclasses import dataclass, field

import pytest

from rlkit.planning import (
    CEM,
    ICEM,
    MPPI,
    PLANNERS,
    Actions,
    Planner,
    RandomShooting,
)


@dataclass(frozen=True)
class Mine(CEM):
    """A user's planner."""

    boldness: float = 2.0
    where: object = field(default=None)


def test_names_tables_and_objects_lead_to_planners():
    assert PLANNERS.names() == ["cem", "icem", "mppi", "shooting"]
    assert PLANNERS.make("cem") == CEM()
    assert PLANNERS.make("shooting") == RandomShooting()
    assert PLANNERS.make({"name": "mppi", "samples": 200, "hold": 2}) == MPPI(samples=200, hold=2)
    assert PLANNERS.make("rlkit.planning.icem:ICEM") == ICEM()
    configured = ICEM(horizon=9)
    assert PLANNERS.make(configured) is configured


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "shooting"])
def test_every_name_leads_to_a_planner_that_can_be_written_down(name):
    planner = PLANNERS.make({"name": name, "milliseconds": 20.0})
    assert isinstance(planner, Planner)
    plain = PLANNERS.describe(planner.with_actions(Actions(2)))
    assert plain["name"] == name
    assert "actions" not in plain
    assert PLANNERS.make(json.loads(json.dumps(plain))) == planner


def test_a_planner_of_ones_own_is_written_with_its_module():
    plain = PLANNERS.describe(Mine(boldness=3.0))
    assert plain["name"] == f"{__name__}:Mine"
    assert PLANNERS.make(json.loads(json.dumps(plain))) == Mine(boldness=3.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("icme", r"unknown planner 'icme'.*icem.*A planner of your own is written"),
        ("no_such_module:Planner", "planner 'no_such_module:Planner' cannot be imported"),
        ("rlkit.planning.cem:SEM", "SEM"),
        ({"name": "cem", "sampels": 3}, "'cem' has no option 'sampels'.*samples"),
        ({"name": "cem", "actions": 2}, "no option 'actions'"),
        ({"name": "cem", "samples": 0}, "samples must be a whole number >= 1, got 0"),
        ({"samples": 3}, "A planner needs a name.*got {'samples': 3}"),
        ({"name": "builtins:int", "samples": 3}, "is no planner: it lacks"),
        (CEM, r"CEM is a class; configure it: CEM\(\)"),
        (3, r"3 is no planner: it lacks horizon, .*plan\. Give a name \(.*icem"),
    ],
)
def test_what_is_no_planner_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        PLANNERS.make(value)


def test_what_cannot_be_written_is_named():
    @dataclass(frozen=True)
    class Local(CEM):
        pass

    with pytest.raises(ValueError, match=r"Local cannot be written.*top of a module"):
        PLANNERS.describe(Local())
    with pytest.raises(ValueError, match=r"Mine.where = .*cannot be written to a file"):
        PLANNERS.describe(Mine(where=object()))
