"""A sequence-to-sequence forecaster: an encoder of the past and a decoder of the future."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import HiddenState, SequenceEncoder
from rlkit.networks.encoders.layers import tanh
from rlkit.networks.fields import is_number, is_whole, require
from rlkit.networks.gradient import loop
from rlkit.world.contract import Metrics, Widths, Windows
from rlkit.world.models.densities import moments, negative_log_likelihood, normal
from rlkit.world.models.parametric import Observed, Sampling, Step, StepFunction
from rlkit.world.models.recurrent import HIGH, Core, RecurrentWorldModel
from rlkit.world.models.stepping import stepper

Views = dict[str, Tensor]
Decoder = Callable[[Tensor, Tensor, HiddenState], tuple[Tensor, HiddenState]]
FEEDBACK = ("mean", "sample")


@dataclass(frozen=True)
class Seq2Seq(RecurrentWorldModel):
    """An encoder reads the past; a decoder starts from its output and predicts the future.

    The decoder reads an observation and an action and predicts the next observation as a normal
    distribution. From then on it reads its own predictions. It is trained in the same way: each
    window is cut at random into a part for the encoder and a part for the decoder.

    Source: Sutskever et al. 2014; Cho et al. 2014 for the decoder's start, a layer on the encoder's
    last output; Bahdanau et al. 2015 for attention, in the form of Luong et al. 2015 ("general"
    scores, divided by the root of the width); Bengio et al. 2015 for mixing both kinds of training.

    Attributes:
        core: A sequence encoder, for both: `"gru"`, `"lstm"`, `"rnn"`, or a table of a name and
            settings.
        attention: Whether the decoder attends to the encoder's last `context` outputs in every
            step, besides starting from the last one.
        free_running: Probability that the decoder reads its own prediction in training, not the
            truth, in [0, 1]: 0 is teacher forcing, which trains one step at a time.
        ramp: Gradient steps over which that share grows from 0, >= 0.
        feedback: Which prediction it reads. `"mean"`: each step is predicted from the mean of the
            steps before, so that uncertainty grows only in the deviations. `"sample"`: from their
            sample, which teacher forcing needs.
        context: Largest number of observations before the cut and of attended outputs, >= 1.
        horizon: Steps after the cut, >= 1; imagined trajectories may be longer.
        delta: Whether the head predicts changes of the observation, or observations.
        widths: Set by `with_widths`.

    Raises:
        ValueError: If a field is out of its range.
    """

    core: Core = "gru"
    attention: bool = False
    free_running: float = 1.0
    ramp: int = 200
    feedback: str = "mean"
    context: int = 16
    horizon: int = 16
    delta: bool = True
    widths: Widths | None = None

    def __post_init__(self) -> None:
        self._keep_core()
        require(self, "attention", isinstance(self.attention, bool), "true or false")
        share = is_number(self.free_running, 0) and self.free_running <= 1
        require(self, "free_running", share, "a number in [0, 1]")
        require(self, "ramp", is_whole(self.ramp, 0), "a whole number >= 0")
        require(self, "feedback", self.feedback in FEEDBACK, f"one of {FEEDBACK}")
        if self.feedback == "mean" and self.free_running == 0:
            raise ValueError(
                "Seq2Seq: free_running = 0 trains one step at a time, whose deviations would not "
                "grow with feedback = 'mean'; set feedback = 'sample'"
            )
        require(self, "context", is_whole(self.context, 1), "a whole number >= 1")
        require(self, "horizon", is_whole(self.horizon, 1), "a whole number >= 1")

    @property
    def window(self) -> int:
        """Records of the encoder and the decoder together."""
        return self.context + self.horizon

    @cached_property
    def encoders(self) -> dict[str, SequenceEncoder]:
        """Encoder and decoder, both of the core's kind."""
        core = self._encoder(self.known.observation + self.known.action)
        if any(part.ndim != 2 for part in core.initial(1)):
            raise ValueError(
                f"Seq2Seq: core = {self.core!r} keeps more than a state, from which a decoder "
                f"cannot start; use gru, lstm, rnn, mingru or lru"
            )
        return {"encoder": core, "decoder": core}

    def head_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the parameters after encoder and decoder."""
        width, outputs, start = self._core.features, 2 * self.known.target, sum(self._states)
        shapes: dict[str, tuple[int, ...]] = {
            "start.weight": (width, start),
            "start.bias": (start,),
        }
        if self.attention:
            shapes |= {
                "query.weight": (width, width),
                "attended.weight": (2 * width, width),
                "attended.bias": (width,),
            }
        return shapes | {"head.weight": (width, outputs), "head.bias": (outputs,)}

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Last observation, decoder input, both hidden states, and what is attended to."""
        last = torch.zeros(count, self.known.observation, device=device)
        past = self._core.initial(count, device)
        hidden_state = (last, last.clone(), *past, *past)
        if not self.attention:
            return hidden_state
        outputs = torch.zeros(count, self.context, self._core.features, device=device)
        return (*hidden_state, outputs, outputs[:, :, 0].clone())

    def update(self, vector: Tensor, read: Observed, hidden_state: HiddenState) -> HiddenState:
        """See `WorldModel.observe`; the encoder continues from the last real observation."""
        x, is_first = read.x, read.is_first
        _, past, _, attended = self._parted(hidden_state)
        action = torch.where(is_first.unsqueeze(2), 0.0, read.previous_action)
        inputs = torch.cat([x, action], 2)
        features, past = self._core.scan(self.part(vector, "encoder"), inputs, past, is_first)
        if self.attention:
            outputs, valid = attended
            outputs = torch.cat([outputs, features], 1)
            valid = F.pad(valid, (0, x.shape[1]), value=1.0)
            place = torch.arange(valid.shape[1], device=x.device)
            start = (is_first * place[self.context :]).amax(1, keepdim=True)
            attended = self._attended(outputs, valid * (place >= start))
        last = x[:, -1]
        state = self._start(self.views(vector), features[:, -1])
        return (last.clone(), last.clone(), *past, *state, *attended)

    def step_function(self, vector: Tensor, start: HiddenState, draw: Sampling) -> StepFunction:
        """See `ParametricWorldModel.step_function`."""
        p, width = self.views(vector), self.known.observation
        _, past, _, attended = self._parted(start)
        decode = self._decoder(p, vector, attended)

        def step(hidden_state: HiddenState, action: Tensor) -> Step:
            x, _, state, _ = self._parted(hidden_state)
            raw, state = decode(x, action, state)
            mean, log_scale = self.prediction(p, x, *raw.chunk(2, 1))
            made = draw.step(mean, log_scale.exp(), width=width)
            read = (made.sample if self.feedback == "sample" else mean)[:, :width]
            after = (*made.hidden_state, read.clone(), *past, *state, *attended)
            return made._replace(hidden_state=after)

        return step

    def loss(
        self, vector: Tensor, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood after each cut; see `WorldModel.loss`."""
        cut = self._cut(windows, generator)
        ahead = self._ahead(windows, cut)
        state, attended = self._encoded(vector, windows, cut)
        share = self.free_running * (min(step / self.ramp, 1.0) if self.ramp else 1.0)
        draw = torch.rand(ahead.mask.shape, generator=generator, device=generator.device)
        free = (draw < share).to(cut.device).unsqueeze(2)
        mean, log_scale = self._decoded(vector, ahead, state, attended, free, generator)
        binary = self.binary(vector.device)
        each = negative_log_likelihood(ahead.target, mean, log_scale, binary)
        nll = ahead.mean(each.sum(2))
        with torch.no_grad():
            errors = (moments(mean, mean, binary)[0] - ahead.target).square().mean(2)
            one = replace(
                ahead, mask=ahead.mask & (torch.arange(mean.shape[1]) == 0).to(cut.device)
            )
            metrics = {"error": one.mean(errors), "horizon_error": ahead.mean(errors)}
        return nll, {"nll": nll.detach(), **metrics}

    @property
    def _core(self) -> SequenceEncoder:
        return self.encoders["encoder"]

    @cached_property
    def _states(self) -> list[int]:
        """Width of each part of an encoder's hidden state."""
        return [part.shape[1] for part in self._core.initial(1)]

    def _parted(
        self, hidden_state: HiddenState
    ) -> tuple[Tensor, HiddenState, HiddenState, HiddenState]:
        """Decoder input, hidden states of encoder and decoder, and what is attended to."""
        parts = len(self._states)
        state = 2 + parts
        return (
            hidden_state[1],
            hidden_state[2:state],
            hidden_state[state : state + parts],
            hidden_state[state + parts :],
        )

    def _start(self, p: Views, features: Tensor) -> HiddenState:
        """The decoder's first hidden state, from the encoder's output `(n, D)`."""
        start = torch.addmm(p["start.bias"], features, p["start.weight"]).tanh()
        return tuple(part.contiguous() for part in torch.split(start, self._states, 1))

    def _decoder(self, p: Views, vector: Tensor, attended: HiddenState) -> Decoder:
        """From observation, action and hidden state to the head's outputs and hidden state."""
        advance = stepper(self.encoders["decoder"], self.part(vector, "decoder"))

        def decode(x: Tensor, action: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
            features, state = advance(state, x, action)
            if self.attention:
                features = _with_attention(p, features, *attended)
            return torch.addmm(p["head.bias"], features, p["head.weight"]), state

        return decode

    def _decoded(
        self,
        vector: Tensor,
        ahead: Windows,
        state: HiddenState,
        attended: HiddenState,
        free: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation `(B, H, F + K)` after each cut.

        The decoder reads its own predictions where `free (B, H, 1)`, the truth elsewhere.
        """
        action, truth = ahead.action.unbind(1), ahead.observation.unbind(1)
        parts = len(state)

        def run(vector: Tensor, *start: Tensor) -> tuple[Tensor, Tensor]:
            p, state = self.views(vector), start[:parts]
            decode, own = self._decoder(p, vector, start[parts:]), self._own(p, generator)
            x, read, outputs = truth[0], [], []
            for t, freely in enumerate(free.unbind(1)):
                raw, state = decode(x, action[t], state)
                read.append(x)
                outputs.append(raw)
                x = torch.where(freely, own(x, raw), truth[t + 1])
            return torch.stack(read, 1), torch.stack(outputs, 1)

        products = len(free) * self.part(vector, "decoder").numel()
        read, outputs = loop(run, products, vector, *state, *attended)
        # All steps at once: in the loop it would take a dozen calls per step.
        return self.prediction(self.views(vector), read, *outputs.chunk(2, 2))

    def _own(self, p: Views, generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
        """The decoder's next input, from its last input and the head's outputs."""
        width = self.known.observation
        if self.feedback == "sample":

            def drawn(x: Tensor, raw: Tensor) -> Tensor:
                mean, log_scale = self.prediction(p, x, *raw.chunk(2, 1))
                return normal(mean, log_scale.exp(), generator, 1.0)[:, :width]

            return drawn
        if not self.delta:
            return lambda x, raw: raw[:, :width]
        unit = p["log_change"].clamp(max=HIGH - 1).exp()
        return lambda x, raw: torch.addcmul(x, raw[:, :width], unit)

    def _cut(self, windows: Windows, generator: torch.Generator) -> Tensor:
        """The last observation that each window's encoder reads, `(B,)`, drawn uniformly."""
        steps = windows.mask.shape[1]
        # Padding comes last and is not predicted.
        ends = windows.mask * torch.arange(1, steps + 1, device=windows.mask.device)
        last = ends.amax(1) * self.context // self.window
        draw = torch.rand(len(last), generator=generator, device=generator.device).to(last.device)
        return (draw * (last + 1)).long().minimum(last)

    def _encoded(
        self, vector: Tensor, windows: Windows, cut: Tensor
    ) -> tuple[HiddenState, HiddenState]:
        """The decoder's first hidden state and what is attended to, at each cut."""
        most = windows.mask.shape[1] * self.context // self.window + 1
        is_first = windows.is_first[:, :most]
        read = torch.cat([windows.observation, windows.previous_action], 2)[:, :most]
        fresh = self._core.initial(len(cut), cut.device)
        part = self.part(vector, "encoder")

        def run(part: Tensor) -> tuple[Tensor]:
            return (self._core.scan(part, read, fresh, is_first)[0],)

        (features,) = loop(run, len(cut) * part.numel(), part)
        row = torch.arange(len(cut), device=cut.device)
        state = self._start(self.views(vector), features[row, cut])
        if not self.attention:
            return state, ()
        place = cut.unsqueeze(1) + torch.arange(1 - self.context, 1, device=cut.device)
        start = (is_first * torch.arange(is_first.shape[1], device=cut.device)).cummax(1).values
        valid = (place >= start[row, cut].unsqueeze(1)).float()
        return state, self._attended(features[row.unsqueeze(1), place.clamp(min=0)], valid)

    def _attended(self, outputs: Tensor, valid: Tensor) -> HiddenState:
        """The last `context` outputs of the encoder, `(n, C, D)`, and which of them count."""
        outputs, valid = outputs[:, -self.context :], valid[:, -self.context :]
        return torch.where(valid.unsqueeze(2) > 0, outputs, 0.0), valid.clone()

    def _ahead(self, windows: Windows, cut: Tensor) -> Windows:
        """The records that follow each window's cut."""
        steps = windows.mask.shape[1]
        row = torch.arange(len(cut), device=cut.device).unsqueeze(1)
        observed = cut.unsqueeze(1) + torch.arange(min(self.horizon, steps) + 1, device=cut.device)
        record = observed[:, :-1].clamp(max=steps - 1)
        observed = observed.clamp(max=steps)
        is_first = windows.is_first[row, observed]
        # After a reset there is another episode, which the decoder cannot predict.
        same = (is_first[:, 1:].cumsum(1) == 0) & (observed[:, :-1] < steps)
        return Windows(
            observation=windows.observation[row, observed],
            action=windows.action[row, record],
            outcome=windows.outcome[row, record],
            is_first=is_first,
            mask=windows.mask[row, record] & same,
            position=windows.position[row, record],
        )


def _with_attention(p: Views, features: Tensor, outputs: Tensor, valid: Tensor) -> Tensor:
    """The decoder's output `(n, D)` combined with the attended encoder's outputs `(n, C, D)`."""
    query = features @ p["query.weight"] / math.sqrt(features.shape[1])
    # Row times matrix: matrix times column takes several times as long on a CPU.
    scores = torch.bmm(query.unsqueeze(1), outputs.mT).squeeze(1)
    # Not -inf: a fresh hidden state has nothing to attend to.
    weights = scores.masked_fill(valid == 0, -1e9).softmax(1)
    found = torch.bmm(weights.unsqueeze(1), outputs).squeeze(1)
    both = torch.cat([found, features], 1)
    return tanh(torch.addmm(p["attended.bias"], both, p["attended.weight"]))
