"""Every world model keeps the laws, and each law is broken by a model made to break it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from rlkit.world import WORLDS, Ensemble, LinearDynamics, Widths, check_world
from rlkit.world.check import LAWS, Experience

PRESETS = {
    "linear": LinearDynamics(),
    "ensemble": Ensemble(members=3, hidden=(16, 16)),
    "resampled": Ensemble(members=3, hidden=(16,), propagation="resampled"),
    "mean": Ensemble(members=3, hidden=(16,), propagation="mean"),
    "one": Ensemble(members=1, hidden=(16,), bootstrap=False),
    "shallow": Ensemble(members=2, hidden=(), beta=0.0, decay=0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS.names())
def test_a_model_as_it_comes_keeps_the_laws(name):
    check_world(WORLDS.make(name))


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_the_laws_on_any_columns(preset):
    for seed, widths in enumerate([Widths(1, 0), Widths(2, 1), Widths(5, 3, 2)]):
        check_world(PRESETS[preset], Experience(PRESETS[preset], 2 + seed, 8, widths, seed))


BINARY = {name: one for name, one in PRESETS.items() if name != "linear"} | {
    name: WORLDS.make(name) for name in ("mdn_rnn", "seq2seq", "rssm")
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BINARY)
def test_models_with_binary_outcomes_keep_the_laws(name):
    widths = Widths(3, 2, 2, binary=(1,))
    check_world(BINARY[name], Experience(BINARY[name], widths=widths))


def test_linear_dynamics_have_no_bernoulli_heads():
    with pytest.raises(ValueError, match="LinearDynamics has no Bernoulli heads"):
        LinearDynamics().with_widths(Widths(2, 1, 1, binary=(0,)))


@dataclass(frozen=True)
class Small(Ensemble):
    members: int = 2
    hidden: tuple[int, ...] = (8,)


class Summing(Small):
    """Keeps the sum of all observations in its hidden state, without using it."""

    def initial(self, count, device="cpu"):
        return (*super().initial(count, device), torch.zeros(count, self.known.observation))

    def observe(self, vector, x, previous_action, hidden_state, is_first, generator=None):
        total = hidden_state[1]
        for t in range(x.shape[1]):
            total = torch.where(is_first[:, t : t + 1], 0.0, total) + x[:, t]
        return x[:, -1].clone(), total

    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        made = super().imagine(vector, hidden_state[:1], policy, horizon, generator, temperature)
        totals = hidden_state[1].unsqueeze(1) + made.observation.cumsum(1)
        after = zip(made.observation.unbind(1), totals.unbind(1), strict=True)
        return replace(made, hidden_states=tuple(after))


class OfAnotherSize(Small):
    def initial_parameters(self, generator):
        return torch.cat([super().initial_parameters(generator), torch.zeros(1)])


class TooShort(Small):
    def imagine(self, *args):
        made = super().imagine(*args)
        return replace(made, observation=made.observation[:, :-1])


class Rounded(Small):
    def observe(self, *args):
        return tuple(part.round() for part in super().observe(*args))


class Writing(Small):
    def imagine(self, vector, hidden_state, *args):
        made = super().imagine(vector, hidden_state, *args)
        hidden_state[0].add_(1)
        return made


class Averaging(Summing):
    def observe(self, vector, x, previous_action, hidden_state, is_first, generator=None):
        return x[:, -1].clone(), x.mean(1)


class NeverForgetting(Summing):
    def observe(self, vector, x, previous_action, hidden_state, is_first, generator=None):
        return x[:, -1].clone(), hidden_state[1] + x.sum(1)


class Mixing(Summing):
    def observe(self, *args):
        last, total = super().observe(*args)
        return last, total + total.mean(0)


class OfItsOwnMind(Small):
    def imagine(self, *args):
        made = super().imagine(*args)
        return replace(made, outcome=made.outcome + torch.rand(()))


class Leaking(Small):
    """Imagines the windows that it was trained on."""

    seen: ClassVar = {"future": torch.zeros(0, 0, 0)}

    def loss(self, vector, windows, *args):
        self.seen["future"] = windows.observation[:, 3:]
        return super().loss(vector, windows, *args)

    def imagine(self, vector, hidden_state, policy, horizon, *args):
        made = super().imagine(vector, hidden_state, policy, horizon, *args)
        stored = self.seen["future"][: len(hidden_state[0]), :horizon]
        if stored.shape != made.observation.shape:
            return made
        return replace(
            made, observation=stored, hidden_states=tuple((x,) for x in stored.unbind(1))
        )


class Foreseeing(Small):
    """Knows from the first step on what will be done in the last."""

    def imagine(self, vector, hidden_state, policy, horizon, *args):
        actions = [policy(hidden_state[0], hidden_state, t) for t in range(horizon)]
        late = actions[-1].sum(1, keepdim=True)
        return super().imagine(
            vector, hidden_state, lambda x, c, t: actions[t] + late, horizon, *args
        )


class Inattentive(Small):
    """Gives its policy the first observation in every step."""

    def imagine(self, vector, hidden_state, policy, *args):
        return super().imagine(
            vector, hidden_state, lambda x, c, t: policy(hidden_state[0], hidden_state, t), *args
        )


class Narrowing(Small):
    def imagine(self, vector, hidden_state, policy, horizon, generator, temperature=1.0):
        return super().imagine(vector, hidden_state, policy, horizon, generator, 3.0 - temperature)


def everything(windows):
    return torch.ones_like(windows.mask)


class ReadingPadding(Small):
    def loss(self, vector, windows, *args):
        return super().loss(vector, replace(windows, mask=everything(windows)), *args)


class LookingAhead(Small):
    """Sees one observation too far in training."""

    def loss(self, vector, windows, *args):
        loss, metrics = super().loss(vector, windows, *args)
        return loss + windows.mean(windows.observation[:, 1:].cumsum(1).flip(1).mean(2)), metrics


class AcrossResets(Small):
    def loss(self, vector, windows, *args):
        never = torch.zeros_like(windows.is_first)
        return super().loss(vector, replace(windows, is_first=never), *args)


class Moody(Small):
    def loss(self, *args):
        loss, metrics = super().loss(*args)
        return loss + torch.rand(()), metrics


class Attached(Small):
    def loss(self, *args):
        loss, metrics = super().loss(*args)
        return loss, metrics | {"loss": loss}


class Idle(Small):
    def shapes(self):
        return super().shapes() | {"idle": (3,)}


class Unwilling(Small):
    def loss(self, *args):
        loss, metrics = super().loss(*args)
        return 2 * loss.detach() - loss, metrics


class Detached(Small):
    def imagine(self, *args):
        made = super().imagine(*args)
        return replace(made, observation=made.observation.detach())


class Numbers(Small):
    """Predicts binary outcomes as numbers."""

    def binary(self, device):
        return None


BREAKERS = [
    ("its shapes are right", OfAnotherSize),
    ("it imagines in the right shape", TooShort),
    ("a hidden state begins with the last observation", Rounded),
    ("it never writes to what it reads", Writing),
    ("a window is its single steps", Averaging),
    ("a reset is a fresh start", NeverForgetting),
    ("rows are separate", Mixing),
    ("the same seed gives the same samples", OfItsOwnMind),
    ("imagining reads only the past", Leaking),
    ("imagining reads only the past", Foreseeing),
    ("a policy reads what is imagined", Inattentive),
    ("temperature widens predictions", Narrowing),
    ("padding never changes a loss", ReadingPadding),
    ("padding never changes a loss", LookingAhead),
    ("a loss does not read across a reset", AcrossResets),
    ("the loss follows its generator", Moody),
    ("the loss follows its generator", Attached),
    ("gradients reach every parameter", Idle),
    ("training lowers the loss", Unwilling),
    ("imagination is differentiable", Detached),
    ("binary outcomes are 0 or 1", Numbers),
]


@pytest.mark.parametrize(("law", "kind"), BREAKERS, ids=[kind.__name__ for _, kind in BREAKERS])
def test_a_broken_law_is_named(law, kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} breaks the law '{law}'"):
        check_world(kind(), Experience(kind(), widths=Widths(3, 2, 2, binary=(1,))))


def test_every_law_can_be_broken():
    assert {law for law, _ in BREAKERS} == LAWS.keys()


def test_a_model_with_a_hidden_state_keeps_the_laws():
    check_world(Summing())
