"""Every encoder keeps the laws, and each law is broken by an encoder made to break it."""

from dataclasses import dataclass, fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rlkit.networks.encoders import ENCODERS, GRU, check_encoder
from rlkit.networks.encoders.check import LAWS, LAWS_OF_ACTING, Sequences


def settings_of(encoder):
    return {field.name for field in fields(encoder)}


def make(name, **settings):
    """A small encoder of a name, with those of the settings that it has."""
    encoder = ENCODERS.make(name)
    known = settings_of(encoder)
    small = {"hidden": 8, "heads": 2, **settings}
    return replace(encoder, **{key: value for key, value in small.items() if key in known})


def settings_strategy():
    """Depth, layer norm and dropout; dropout only where there are layers for it to act between."""
    return st.integers(1, 3).flatmap(
        lambda layers: st.fixed_dictionaries(
            {
                "layers": st.just(layers),
                "layer_norm": st.booleans(),
                "dropout": st.sampled_from([0.0, 0.4] if layers > 1 else [0.0]),
            }
        )
    )


@st.composite
def sequences(draw, encoder):
    rows, steps = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    flags = st.lists(st.booleans(), min_size=rows * steps, max_size=rows * steps)
    is_first = torch.tensor(draw(flags)).view(rows, steps)
    return Sequences(
        encoder, rows, steps, is_first, draw(st.integers(1, 5)), draw(st.integers(0, 1000))
    )


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_as_it_comes_keeps_the_laws(name):
    check_encoder(ENCODERS.make(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS.names())
def test_laws_hold_whatever_the_sequences(name):
    @examples(max_examples=25)
    @given(st.data())
    def laws_hold(data):
        encoder = make(name, **data.draw(settings_strategy()))
        check_encoder(encoder, data.draw(sequences(encoder)))

    laws_hold()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS.names())
def test_long_windows_keep_the_laws(name):
    encoder = make(name, layers=2)
    check_encoder(encoder, Sequences(encoder, rows=2, steps=70))


@pytest.mark.parametrize("name", ENCODERS.names())
def test_dropout_is_random_and_only_there_with_a_generator(name):
    encoder = make(name, layers=2, dropout=0.5)
    case = Sequences(encoder)
    arguments = case.vector, case.x, case.used(), case.is_first
    without, _ = case.encoder.scan(*arguments)
    plain, _ = replace(case.encoder, dropout=0.0).scan(*arguments)
    torch.testing.assert_close(without, plain, rtol=0, atol=0)
    generator = torch.Generator().manual_seed(0)
    one, two = (case.encoder.scan(*arguments, generator)[0] for _ in range(2))
    assert (one - two).abs().max() > 1e-3
    assert (one - plain).abs().max() > 1e-3


SPOILT_FEATURES = {
    "normalised over time": lambda y: y - y.mean(1, keepdim=True),
    "normalised over rows": lambda y: y - y.mean(0, keepdim=True),
    "dropout always": lambda y: y * torch.rand(()),
    "gradient halved": lambda y: y.detach() / 2 + y / 2,
    "not a number": lambda y: y * torch.nan,
    "time first": lambda y: y.transpose(0, 1),
}
SPOILT_STATE = {
    "hidden state forgotten": lambda y, after: (torch.zeros_like(after[0]),),
    "hidden state attached": lambda y, after: (y[:, -1],),
    "hidden state without layers": lambda y, after: (*after, after[0]),
}


@dataclass(frozen=True)
class Broken(GRU):
    """A GRU with one mistake."""

    mistake: str = ""

    def step(self, vector, x, hidden_state, is_first):
        if self.mistake == "step ignores resets":
            is_first = torch.zeros_like(is_first)
        return super().step(vector, x, hidden_state, is_first)

    def scan(self, vector, x, hidden_state, is_first, generator=None):
        if self.mistake == "reset one step late":
            is_first = is_first.roll(1, 1)
        if self.mistake == "inputs are detached":
            x = x.detach() + 0 * x
        if self.mistake == "hidden state zeroed in place":
            hidden_state[0][is_first[:, 0]] = 0.0
        y, after = super().scan(vector, x, hidden_state, is_first, generator)
        y = SPOILT_FEATURES.get(self.mistake, lambda y: y)(y)
        return y, SPOILT_STATE.get(self.mistake, lambda _, after: after)(y, after)


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("time first", "it has the shapes that it promises"),
        ("hidden state without layers", "it has the shapes that it promises"),
        ("hidden state zeroed in place", "it never writes to what it reads"),
        ("normalised over rows", "rows are separate"),
        ("not a number", "rows are separate"),
        ("reset one step late", "a reset is a fresh start"),
        ("gradient halved", "gradients are those of the features"),
        ("inputs are detached", "gradients are those of the features"),
        ("hidden state attached", "gradients are those of the features"),
        ("dropout always", "dropout needs a generator and follows it"),
        ("step ignores resets", "a scan is repeated steps"),
        ("hidden state forgotten", "two chunks are one whole"),
        ("normalised over time", "nothing depends on the future"),
    ],
)
def test_each_law_finds_the_encoder_that_breaks_it(mistake, law):
    encoder = Broken(hidden=8, mistake=mistake)
    laws = LAWS | LAWS_OF_ACTING
    assert laws[law](Sequences(encoder)) is not None
    with pytest.raises(ValueError, match="Broken breaks the law"):
        check_encoder(encoder)


def test_laws_are_broken_by_name_and_size():
    with pytest.raises(ValueError, match=r"'rows are separate': row 0 alone and .* differ by nan"):
        check_encoder(Broken(hidden=8, mistake="not a number"))
    check_encoder(Broken(hidden=8))
