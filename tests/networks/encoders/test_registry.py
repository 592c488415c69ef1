import json
from dataclasses import dataclass, field

import pytest
import torch

from rlkit.networks.encoders import (
    ENCODERS,
    GRU,
    LSTM,
    SequenceEncoder,
)


@dataclass(frozen=True)
class Mine(GRU):
    """A user's encoder, with a setting that is a sequence."""

    widths: tuple[int, ...] = (4, 2)
    where: torch.device | None = field(default=None)


class Plain:
    """Has what an encoder has, but is no dataclass."""

    inputs = features = size = 0
    with_inputs = views = initial_parameters = initial = step = scan = print


def test_names_tables_and_objects_lead_to_encoders():
    assert {"rnn", "gru", "lstm"} <= set(ENCODERS.names())
    assert ENCODERS.make("gru") == GRU()
    assert ENCODERS.make({"name": "lstm", "hidden": 128, "layers": 2}) == LSTM(128, 2)
    assert ENCODERS.make("rlkit.networks.encoders.recurrent:GRU") == GRU()
    configured = GRU(hidden=3)
    assert ENCODERS.make(configured) is configured
    for nothing in (None, "none", {"name": "none"}):
        assert ENCODERS.make_optional(nothing) is None
    with pytest.raises(ValueError, match="'none' is no encoder; known are"):
        ENCODERS.make("none")


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_name_leads_to_an_encoder_that_can_be_written_down(name):
    encoder = ENCODERS.make(name)
    assert isinstance(encoder, SequenceEncoder)
    plain = ENCODERS.describe(encoder.with_inputs(7))
    assert plain["name"] == name
    assert ENCODERS.make(json.loads(json.dumps(plain))) == encoder


def test_an_encoder_of_ones_own_is_written_with_its_module():
    mine = Mine(hidden=5, widths=(1, 2, 3))
    plain = ENCODERS.describe(mine)
    assert plain["name"] == f"{__name__}:Mine"
    assert plain["widths"] == [1, 2, 3]
    assert "inputs" not in plain
    assert ENCODERS.make(json.loads(json.dumps(plain))) == mine
    assert ENCODERS.describe(None) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gur", r"unknown encoder 'gur'\. Did you mean 'gru'\?.*An encoder of your own is written"),
        ("GRU", "Did you mean 'gru'"),
        ("rlkit.networks.encoders.recurrent:GUR", r"no class 'GUR'\. Did you mean 'GRU'\?"),
        ("no_such_module:Encoder", "encoder 'no_such_module:Encoder' cannot be imported"),
        ({"name": "gru", "hiden": 3}, r"'gru' has no option 'hiden'\. Did you mean 'hidden'\?"),
        ({"name": "gru", "inputs": 3}, "no option 'inputs'"),
        ({"name": "gru", "hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ({"name": "none", "hidden": 3}, "encoder none has no settings, got hidden"),
        ({"hidden": 3}, "needs a name.*got {'hidden': 3}"),
        ({"name": "builtins:dict", "keys": 1, "x": []}, "it lacks inputs, features"),
        ({"name": "builtins:int", "hidden": 3}, "is no encoder: it lacks inputs"),
        (GRU, r"GRU is a class; configure it: GRU\(\)"),
        (3, r"3 is no encoder: it lacks inputs, .*scan\. Give a name \(.*gru"),
    ],
)
def test_what_is_no_encoder_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        ENCODERS.make(value)


def test_what_cannot_be_written_is_named():
    @dataclass(frozen=True)
    class Local(GRU):
        pass

    with pytest.raises(ValueError, match=r"Plain cannot be written to a file: make it a dataclass"):
        ENCODERS.describe(ENCODERS.make(Plain()))
    with pytest.raises(ValueError, match=r"Local cannot be written.*top of a module"):
        ENCODERS.describe(Local())
    with pytest.raises(ValueError, match=r"Mine.where = device.*cannot be written to a file"):
        ENCODERS.describe(Mine(where=torch.device("cpu")))
