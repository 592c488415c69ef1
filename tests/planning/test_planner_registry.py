import json
from dataclasses import dataclass, field

import pytest

from rlkit.planning import (
    CEM,
    ICEM,
    MPPI,
    Actions,
    Planner,
    RandomShooting,
    describe_planner,
    make_planner,
    planner_names,
)


@dataclass(frozen=True)
class Mine(CEM):
    """A user's planner."""

    boldness: float = 2.0
    where: object = field(default=None)


def test_names_tables_and_objects_lead_to_planners():
    assert planner_names() == ["cem", "icem", "mppi", "shooting"]
    assert make_planner("cem") == CEM()
    assert make_planner("shooting") == RandomShooting()
    assert make_planner({"name": "mppi", "samples": 200, "hold": 2}) == MPPI(samples=200, hold=2)
    assert make_planner("rlkit.planning.icem:ICEM") == ICEM()
    configured = ICEM(horizon=9)
    assert make_planner(configured) is configured


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "shooting"])
def test_every_name_leads_to_a_planner_that_can_be_written_down(name):
    planner = make_planner({"name": name, "milliseconds": 20.0})
    assert isinstance(planner, Planner)
    plain = describe_planner(planner.with_actions(Actions(2)))
    assert plain["name"] == name
    assert "actions" not in plain
    assert make_planner(json.loads(json.dumps(plain))) == planner


def test_a_planner_of_ones_own_is_written_with_its_module():
    plain = describe_planner(Mine(boldness=3.0))
    assert plain["name"] == f"{__name__}:Mine"
    assert make_planner(json.loads(json.dumps(plain))) == Mine(boldness=3.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("icme", r"unknown planner 'icme'.*icem.*A planner of your own is written"),
        ("no_such_module:Planner", "planner 'no_such_module:Planner' cannot be imported"),
        ("rlkit.planning.cem:SEM", "SEM"),
        ({"name": "cem", "sampels": 3}, "'cem' has no setting 'sampels'.*samples"),
        ({"name": "cem", "actions": 2}, "no setting 'actions'"),
        ({"name": "cem", "samples": 0}, "samples must be a whole number >= 1, got 0"),
        ({"samples": 3}, "a planner's table needs a name.*got {'samples': 3}"),
        ({"name": "builtins:int", "samples": 3}, "'builtins:int' cannot be made of"),
        (CEM, r"CEM is a class; configure it: CEM\(\)"),
        (3, r"3 is no planner: it lacks horizon, .*plan\. Give a name \(.*icem"),
    ],
)
def test_what_is_no_planner_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        make_planner(value)


def test_what_cannot_be_written_is_named():
    @dataclass(frozen=True)
    class Local(CEM):
        pass

    with pytest.raises(ValueError, match=r"Local cannot be written.*top of a module"):
        describe_planner(Local())
    with pytest.raises(ValueError, match=r"Mine.where = .*cannot be written to a file"):
        describe_planner(Mine(where=object()))
