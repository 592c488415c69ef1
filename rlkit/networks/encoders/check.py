"""Checks an encoder, ours or a user's, against the laws of sequence encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState, SequenceEncoder
from rlkit.networks.laws import changed, differ, wrong_parameters
from rlkit.plugins import law_in, run_laws

TOLERANCE = 1e-5
"""Largest difference between two ways to the same float32 features, where those are around 1."""
_differ = partial(differ, tolerance=TOLERANCE)


class Sequences:
    """An encoder with parameters and random sequences, on which the laws are checked.

    Args:
        encoder: Configured; its inputs are set here.
        rows: B, >= 1.
        steps: T, >= 1.
        is_first: Where episodes begin, `(B, T)`; by default at the start and in a fifth of the
            other steps.
        inputs: I, width of one input, >= 1.
        seed: Of parameters and inputs.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        rows: int = 3,
        steps: int = 12,
        is_first: Tensor | None = None,
        inputs: int = 4,
        seed: int = 0,
    ) -> None:
        self.encoder = encoder.with_inputs(inputs)
        self.generator = torch.Generator().manual_seed(seed)
        vector = self.encoder.initial_parameters(self.generator)
        # Fresh biases are zero, which would hide mistakes in them.
        self.vector = vector + 0.1 * self.normal(*vector.shape)
        self.x = self.normal(rows, steps, inputs)
        if is_first is None:
            is_first = torch.rand(rows, steps, generator=self.generator) < 0.2
            is_first[:, 0] = True
        self.is_first = is_first

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def used(self) -> HiddenState:
        """Hidden state after other sequences, which a reset has to clear."""
        never = torch.zeros_like(self.is_first)
        hidden_state = self.encoder.initial(len(self.x))
        return self.scan(self.normal(*self.x.shape), hidden_state, never)[1]

    def scan(
        self, x: Tensor, hidden_state: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """The encoder's scan, without gradients."""
        with torch.no_grad():
            return self.encoder.scan(self.vector, x, hidden_state, is_first)

    def step(
        self, x: Tensor, hidden_state: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """The encoder's step, without gradients."""
        with torch.no_grad():
            return self.encoder.step(self.vector, x, hidden_state, is_first)


Law = Callable[[Sequences], str | None]
LAWS: dict[str, Law] = {}
LAWS_OF_ACTING: dict[str, Law] = {}


def check_encoder(encoder: SequenceEncoder, sequences: Sequences | None = None) -> None:
    """Checks the laws on random sequences; silent where they hold.

    Of an encoder with `causal = False`, for offline use, only the laws that need no stepping.

    Args:
        encoder: Configured, with or without inputs.
        sequences: What to check it on; 3 rows of 12 steps by default.

    Raises:
        ValueError: If a law is broken; the message names it and what differs.
    """
    case = Sequences(encoder) if sequences is None else sequences
    laws = LAWS | LAWS_OF_ACTING if getattr(encoder, "causal", True) else LAWS
    run_laws(encoder, laws, case)


def complete_encoder(encoder: SequenceEncoder, inputs: int) -> SequenceEncoder:
    """An encoder for inputs of a width, after a test of its shapes.

    A user's encoder that breaks the contract is refused here, before the training.

    Raises:
        ValueError: If it fails, or its outputs have wrong shapes; the message names them.
    """
    name = type(encoder).__name__
    try:
        case = Sequences(encoder, rows=2, steps=3, inputs=inputs)
        wrong = _has_the_shapes_it_promises(case)
    except Exception as error:  # whatever the user's class raises, it is the reason
        raise ValueError(
            f"encoder {name} breaks the contract: {type(error).__name__}: {error}. "
            f"rlkit.networks.encoders.check_encoder reports more"
        ) from error
    if wrong is not None:
        raise ValueError(
            f"encoder {name} breaks the contract: {wrong}. rlkit.networks.encoders.check_encoder "
            f"reports more"
        )
    return case.encoder


@law_in(LAWS, "it has the shapes that it promises")
def _has_the_shapes_it_promises(case: Sequences) -> str | None:
    encoder, (rows, steps) = case.encoder, case.is_first.shape
    y, hidden_state = case.scan(case.x, case.used(), case.is_first)
    if encoder.inputs != case.x.shape[-1]:
        return f"with_inputs({case.x.shape[-1]}) gave an encoder of {encoder.inputs} inputs"
    if wrong := wrong_parameters(encoder, case.vector):
        return wrong
    if y.shape != (rows, steps, encoder.features):
        return f"features {tuple(y.shape)} are not {(rows, steps, encoder.features)}"
    states = [encoder.initial(rows), hidden_state]
    if getattr(encoder, "causal", True):
        one, stepped = case.step(case.x[:, 0], states[0], case.is_first[:, 0])
        states.append(stepped)
        if one.shape != (rows, encoder.features):
            return f"features of a step {tuple(one.shape)} are not {(rows, encoder.features)}"
    before, *after = [[tuple(part.shape) for part in state] for state in states]
    if any(shapes != before for shapes in after) or any(shape[0] != rows for shape in before):
        return f"the hidden state has shapes {before} before and {after} after {rows} rows"
    return None


@law_in(LAWS, "it never writes to what it reads")
def _never_writes_to_what_it_reads(case: Sequences) -> str | None:
    hidden_state = case.used()
    read = {"vector": case.vector, "x": case.x, "is_first": case.is_first}
    read |= {f"hidden_state[{i}]": part for i, part in enumerate(hidden_state)}

    def call() -> None:
        case.scan(case.x, hidden_state, case.is_first)
        if getattr(case.encoder, "causal", True):
            case.step(case.x[:, 0], hidden_state, case.is_first[:, 0])

    return changed(read, call)


@law_in(LAWS, "rows are separate")
def _rows_are_separate(case: Sequences) -> str | None:
    hidden_state = case.used()
    y, _ = case.scan(case.x, hidden_state, case.is_first)
    for row in range(len(y)):
        one = slice(row, row + 1)
        alone, _ = case.scan(case.x[one], tuple(p[one] for p in hidden_state), case.is_first[one])
        if wrong := _differ(alone, y[one], f"row {row} alone and among others"):
            return wrong
    return None


@law_in(LAWS, "a reset is a fresh start")
def _a_reset_is_a_fresh_start(case: Sequences) -> str | None:
    y, _ = case.scan(case.x, case.used(), case.is_first)
    for row, t in case.is_first.nonzero().tolist():
        one = slice(row, row + 1)
        fresh = case.encoder.initial(1)
        new, _ = case.scan(case.x[one, t:], fresh, case.is_first[one, t:])
        if wrong := _differ(new, y[one, t:], f"row {row} after its reset at step {t} and anew"):
            return wrong
    return None


@law_in(LAWS, "gradients are those of the features")
def _gradients_are_those_of_the_features(case: Sequences) -> str | None:
    hidden_state, weights = case.used(), case.normal(*case.is_first.shape, case.encoder.features)
    leaves = [part.clone().requires_grad_() for part in (case.vector, case.x)]
    with torch.enable_grad():
        y, after = case.encoder.scan(leaves[0], leaves[1], hidden_state, case.is_first)
        if not y.requires_grad:
            return "the features of scan have no gradient"
        gradients = torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True)
    if any(part.requires_grad for part in after):
        return "the hidden state after a scan has a gradient: detach it"

    def slope(directions: list[Tensor]) -> float:
        """Derivative of the weighted sum, by central differences."""
        ends = []
        for step in (-1e-3, 1e-3):
            moved = [leaf.detach() + step * d for leaf, d in zip(leaves, directions, strict=True)]
            with torch.no_grad():
                y, _ = case.encoder.scan(moved[0], moved[1], hidden_state, case.is_first)
            ends.append(float((y.double() * weights).sum()))
        return (ends[1] - ends[0]) / 2e-3

    for place, name in enumerate(("parameters", "inputs")):
        gradient = gradients[place]
        if gradient is None:
            return f"no gradient reaches the {name}"
        for _ in range(3):
            directions = [torch.zeros_like(leaf) for leaf in leaves]
            directions[place] = case.normal(*gradient.shape)
            measured, found = slope(directions), float((gradient * directions[place]).sum())
            # A random direction's derivative is about as large as the gradient's norm.
            if not abs(measured - found) <= 0.03 * float(gradient.norm()) + 1e-2:
                return f"for the {name} it is {found:.4g}, but differences give {measured:.4g}"
    return None


@law_in(LAWS, "dropout needs a generator and follows it")
def _dropout_needs_a_generator_and_follows_it(case: Sequences) -> str | None:
    hidden_state = case.used()

    def features(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return case.encoder.scan(case.vector, case.x, hidden_state, case.is_first, generator)[0]

    for seed, kind in ((None, "without a generator"), (0, "with the same generator")):
        if not torch.equal(features(seed), features(seed)):
            return f"two scans {kind} differ"
    return None


@law_in(LAWS_OF_ACTING, "a scan is repeated steps")
def _a_scan_is_repeated_steps(case: Sequences) -> str | None:
    start = hidden_state = case.used()
    y, after = case.scan(case.x, start, case.is_first)
    steps = []
    for t in range(case.x.shape[1]):
        out, hidden_state = case.step(case.x[:, t], hidden_state, case.is_first[:, t])
        steps.append(out)
    if wrong := _differ(y, torch.stack(steps, 1), "features of a scan and of steps"):
        return wrong
    more, never = case.normal(*case.x.shape), torch.zeros_like(case.is_first)
    ends = [case.scan(more, state, never)[0] for state in (after, hidden_state)]
    return _differ(ends[0], ends[1], "features that follow a scan and that follow steps")


@law_in(LAWS_OF_ACTING, "two chunks are one whole")
def _two_chunks_are_one_whole(case: Sequences) -> str | None:
    hidden_state, first = case.used(), case.is_first
    y, _ = case.scan(case.x, hidden_state, first)
    for t in range(1, case.x.shape[1]):
        one, between = case.scan(case.x[:, :t], hidden_state, first[:, :t])
        two, _ = case.scan(case.x[:, t:], between, first[:, t:])
        if wrong := _differ(torch.cat([one, two], 1), y, f"two chunks cut at step {t} and one"):
            return wrong
    return None


@law_in(LAWS_OF_ACTING, "nothing depends on the future")
def _nothing_depends_on_the_future(case: Sequences) -> str | None:
    hidden_state = case.used()
    y, _ = case.scan(case.x, hidden_state, case.is_first)
    for t in range(case.x.shape[1] - 1):
        x, first = case.x.clone(), case.is_first.clone()
        x[:, t + 1 :], first[:, t + 1 :] = case.normal(*x[:, t + 1 :].shape), ~first[:, t + 1 :]
        other, _ = case.scan(x, hidden_state, first)
        late = f"features up to step {t} under different inputs after it"
        if wrong := _differ(other[:, : t + 1], y[:, : t + 1], late):
            return wrong
    return None
