"""Speed of world models: training and imagination, compared with their bare layers.

    python runs/bench/world_speed.py                        all models, some minutes
    python runs/bench/world_speed.py --models ensemble rssm

Prints one JSON object and a table, and writes the object to `runs/results/bench_world_speed.json`.
Each model has its default size, on Pendulum's columns with a reward. One thread, float32;
candidates alternate in short slices and medians count. Time is processor time: it excludes other
processes, but not their effect on caches. See `load`, the load average.

`training`: records per second of a full step of `World.fit`: drawing windows, scaling, loss,
  metrics, backward pass, checks, clipping and Adam.
`imagining`: steps per second, rows times horizon, of `World.imagine`: prediction, samples, moments,
  scaling. 750 rows are one decision of `MPC`, 4096 the size of a forecast's batch.

The floor is a lower bound: `torch.nn` layers of the same widths and number, on the same batch, with
their activations and nothing else. In training it is the forward pass and the backward pass of the
outputs' sum into all weights: no loss, sampling, scaling or optimiser. In imagination it is the
forward pass, step by step. Floors are timed with MKL and with oneDNN; the faster counts. By model:

`ensemble`: a `Sequential` per member, all on the same records; in imagination on its share of the
  rows.
`mdn_rnn`: `GRU` over the windows, `Linear` on all of its outputs; in imagination `GRUCell` and
  `Linear`.
`rssm`: two layers each of embedding, posterior, prior and decoder, and a recurrent core that reads
  the posterior's latents: `GRUCell` and posterior step by step, everything else at once.
`seq2seq`: `GRU` over the past, `Linear` for the start, and an autoregressive decoder, so `GRUCell`
  and head step by step; with attention between them where the model has it.

`at_once` is a bound that no such model can reach: core and decoder are a `GRU` over all steps, as
if no step depended on the output of the previous one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

# Before numpy is imported: the figures are per core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.networks.gradient import fast_float32
from rlkit.world import WORLDS, Episodes, Layout, World, repeat

OUT = Path(__file__).resolve().parents[1] / "results" / "bench_world_speed.json"
MODELS: dict[str, dict[str, Any]] = {
    "ensemble": {"name": "ensemble"},
    "mdn_rnn": {"name": "mdn_rnn"},
    "rssm gaussian": {"name": "rssm"},
    "rssm categorical": {"name": "rssm", "latents": "categorical"},
    "seq2seq": {"name": "seq2seq"},
    "seq2seq attention": {"name": "seq2seq", "attention": True},
}
LAYOUT = Layout(observation=3, action=1, outcomes=("reward",))
INPUTS, TARGETS = LAYOUT.observation + LAYOUT.action, LAYOUT.widths.target
Work = Callable[[], object]


def medians(works: Mapping[str, Work], rounds: int, slice_s: float) -> dict[str, float]:
    """Median processor seconds per call of each candidate; candidates alternate."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    calls: dict[str, int] = {}
    for name, work in works.items():
        work()
        began = time.process_time()
        work()
        calls[name] = max(round(slice_s / max(time.process_time() - began, 1e-6)), 1)
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            for _ in range(calls[name]):
                work()
            spent[name].append((time.process_time() - began) / calls[name])
    return {name: statistics.median(times) for name, times in spent.items()}


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    parts = [part for layer in layers for part in (layer, nn.SiLU())]
    return nn.Sequential(*parts[:-1])


def cell_of(gru: nn.GRU) -> nn.GRUCell:
    """A cell with the same weights."""
    cell = nn.GRUCell(gru.input_size, gru.hidden_size)
    for name, weight in gru.named_parameters():
        setattr(cell, name.removesuffix("_l0"), weight)
    return cell


class BareEnsemble(nn.Module):
    """Layers of `Ensemble`."""

    def __init__(self, model: Any, records: int) -> None:
        super().__init__()
        widths = (INPUTS, *model.hidden, 2 * TARGETS)
        self.members = nn.ModuleList(perceptron(*widths) for _ in range(model.members))
        self.x = torch.randn(records, INPUTS)

    def in_order(self) -> list[Tensor]:
        """The forward pass of training; returns the final outputs."""
        return [member(self.x) for member in self.members]

    def ahead(self, rows: int, horizon: int) -> None:
        """The forward passes of imagination."""
        x = torch.randn(-(-rows // len(self.members)), INPUTS)
        for _ in range(horizon):
            for member in self.members:
                member(x)


class BareMdn(nn.Module):
    """Layers of `MdnRnn`."""

    def __init__(self, model: Any, records: int) -> None:
        super().__init__()
        self.gru = nn.GRU(INPUTS, model.encoders["core"].features)
        self.head = nn.Linear(self.gru.hidden_size, model.mixtures * (1 + 2 * TARGETS))
        self.x = torch.randn(model.window, records // model.window, INPUTS)

    def in_order(self) -> list[Tensor]:
        """The forward pass of training; returns the final outputs."""
        return [self.head(self.gru(self.x)[0])]

    def ahead(self, rows: int, horizon: int) -> None:
        """The forward passes of imagination."""
        x, h, cell = (
            torch.randn(rows, INPUTS),
            torch.zeros(rows, self.gru.hidden_size),
            cell_of(self.gru),
        )
        for _ in range(horizon):
            h = cell(x, h)
            self.head(h)


class BareRssm(nn.Module):
    """Layers of `Rssm`."""

    def __init__(self, model: Any, records: int) -> None:
        super().__init__()
        state, hidden, latents = model.deterministic, model.hidden, model.stochastic
        self.latent = latents.width
        self.embedding = perceptron(LAYOUT.observation, hidden, hidden)
        self.gru = nn.GRU(latents.width + LAYOUT.action, state)
        self.read = nn.Linear(state, hidden, bias=False)
        self.posterior = nn.Linear(hidden, latents.outputs)
        self.prior = perceptron(state, hidden, latents.outputs)
        self.decoder = perceptron(state + latents.width, hidden, 2 * TARGETS)
        lead = model.window + 1, records // model.window
        self.x = torch.randn(*lead, LAYOUT.observation)
        self.inputs = torch.randn(*lead, latents.width + LAYOUT.action)

    def at_once(self) -> list[Tensor]:
        """The same with all steps at once."""
        h = self.gru(self.inputs)[0]
        posterior = self.posterior(F.silu(self.read(h) + self.embedding(self.x)))
        return [posterior, *self._prior_and_decoder(h, posterior)]

    def in_order(self) -> list[Tensor]:
        """The forward pass of training; returns the final outputs."""
        cell, embedded, actions = cell_of(self.gru), self.embedding(self.x), self.inputs
        h = torch.zeros(self.x.shape[1], self.gru.hidden_size)
        z, states, outputs = torch.zeros(len(h), self.latent), [], []
        for t, action in enumerate(actions[..., self.latent :]):
            h = cell(torch.cat([z, action], 1), h)
            posterior = self.posterior(F.silu(self.read(h) + embedded[t]))
            z = posterior[:, : self.latent]
            states.append(h)
            outputs.append(posterior)
        posterior = torch.stack(outputs)
        return [posterior, *self._prior_and_decoder(torch.stack(states), posterior)]

    def _prior_and_decoder(self, h: Tensor, posterior: Tensor) -> list[Tensor]:
        h, z = h[1:], posterior[1:, :, : self.latent]
        return [self.prior(h), self.decoder(torch.cat([h, z], 2))]

    def ahead(self, rows: int, horizon: int) -> None:
        """The forward passes of imagination."""
        x, cell = torch.randn(rows, self.gru.input_size), cell_of(self.gru)
        h = torch.zeros(rows, self.gru.hidden_size)
        both = torch.zeros(rows, self.gru.hidden_size + self.latent)
        for _ in range(horizon):
            h = cell(x, h)
            self.prior(h)
            self.decoder(both)


class BareSeq2Seq(nn.Module):
    """Layers of `Seq2Seq`."""

    def __init__(self, model: Any, records: int) -> None:
        super().__init__()
        width, count = model.encoders["encoder"].features, records // model.window
        self.encoder, self.decoder = nn.GRU(INPUTS, width), nn.GRU(INPUTS, width)
        self.start, self.head = nn.Linear(width, width), nn.Linear(width, 2 * TARGETS)
        self.attention, self.context = model.attention, model.context
        if model.attention:
            self.query = nn.Linear(width, width, bias=False)
            self.attended = nn.Linear(2 * width, width)
        self.past = torch.randn(model.context + 1, count, INPUTS)
        self.future = torch.randn(model.horizon, count, INPUTS)

    def _outputs(self, h: Tensor, encoded: Tensor) -> Tensor:
        """The head's outputs for states `(B, T, H)` with attention to `encoded (B, C, H)`."""
        if self.attention:
            weights = torch.bmm(self.query(h), encoded.mT).softmax(-1)
            h = self.attended(torch.cat([torch.bmm(weights, encoded), h], 2)).tanh()
        outputs: Tensor = self.head(h)
        return outputs

    def _encoded(self) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(self.past)[0]
        return self.start(encoded[-1]).tanh(), encoded[1:].transpose(0, 1)

    def at_once(self) -> list[Tensor]:
        """The same with all steps at once."""
        h, encoded = self._encoded()
        states = self.decoder(self.future, h.unsqueeze(0))[0]
        return [self._outputs(states.transpose(0, 1), encoded)]

    def in_order(self) -> list[Tensor]:
        """The forward pass of training; returns the final outputs."""
        (h, encoded), cell, outputs = self._encoded(), cell_of(self.decoder), []
        x, actions = self.future[0, :, : LAYOUT.observation], self.future[..., LAYOUT.observation :]
        for action in actions:
            h = cell(torch.cat([x, action], 1), h)
            outputs.append(self._outputs(h.unsqueeze(1), encoded)[:, 0])
            x = outputs[-1][:, : LAYOUT.observation]
        return [torch.stack(outputs)]

    def ahead(self, rows: int, horizon: int) -> None:
        """The forward passes of imagination."""
        x, h = torch.randn(rows, INPUTS), torch.zeros(rows, self.decoder.hidden_size)
        cell, encoded = (
            cell_of(self.decoder),
            torch.randn(rows, self.context, self.decoder.hidden_size),
        )
        for _ in range(horizon):
            h = cell(x, h)
            self._outputs(h.unsqueeze(1), encoded)


BARE: dict[str, Callable[[Any, int], Any]] = {
    "ensemble": BareEnsemble,
    "mdn_rnn": BareMdn,
    "rssm": BareRssm,
    "seq2seq": BareSeq2Seq,
}


def fitting(settings: Mapping[str, Any], records: int) -> tuple[World, Work]:
    """A world model after some gradient steps, and a function that makes one more."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observation": rng.standard_normal((201, LAYOUT.observation)).cumsum(0),
            "action": rng.standard_normal((200, LAYOUT.action)),
            "reward": rng.standard_normal(200),
        }
        for _ in range(20)
    ]
    generator = torch.Generator().manual_seed(0)
    world = World(WORLDS.make(settings), LAYOUT, generator)
    steps = world.fit(Episodes.of(episodes), steps=10**9, records=records, generator=generator)
    for _ in range(5):
        next(steps)
    return world, lambda: next(steps)


def backward(layers: nn.Module, outputs: Callable[[], Sequence[Tensor]]) -> Work:
    """Forward and backward pass, from the outputs' sum to all weights."""
    weights = list(layers.parameters())
    return lambda: torch.autograd.grad([part.sum() for part in outputs()], weights)


def imagining(world: World, rows: int, horizon: int) -> Work:
    """Imagination of many rows from one state."""
    generator = torch.Generator().manual_seed(0)
    past, done = torch.randn(1, 8, LAYOUT.observation), torch.randn(1, 8, LAYOUT.action)
    hidden_state = world.observe(past, done, world.initial(1), torch.zeros(1, 8, dtype=torch.bool))
    many, actions = repeat(hidden_state, rows), torch.randn(rows, horizon, LAYOUT.action)
    return lambda: world.imagine(many, actions, generator=generator)


def both_libraries(name: str, work: Work, gradients: bool) -> dict[str, Work]:
    """The same work with MKL and with oneDNN."""

    def run(onednn: bool) -> None:
        with fast_float32(onednn), torch.set_grad_enabled(gradients):
            work()

    return {f"{name} mkl": lambda: run(False), f"{name} onednn": lambda: run(True)}


def rates(amount: int, spent: Mapping[str, float], unit: str) -> dict[str, float]:
    """Rates per second and ratios to the floors, the faster library of each."""
    found: dict[str, float] = {unit: round(amount / spent["ours"])}
    for floor in dict.fromkeys(name.split()[0] for name in spent if name != "ours"):
        fastest = min(spent[f"{floor} mkl"], spent[f"{floor} onednn"])
        found[floor] = round(amount / fastest)
        found[f"ratio_to_{floor}"] = round(fastest / spent["ours"], 3)
    return found


def measure(settings: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Training and imagination of one model and of its floors."""
    world, step = fitting(settings, args.records)
    layers = BARE[settings["name"]](world.model, args.records)
    works = {"ours": step} | both_libraries("floor", backward(layers, layers.in_order), True)
    if hasattr(layers, "at_once"):
        works |= both_libraries("at_once", backward(layers, layers.at_once), True)
    spent = medians(works, args.rounds, args.slice)
    found: dict[str, Any] = {"training": rates(args.records, spent, "tokens_per_s")}
    for rows in args.rows:
        works = {"ours": imagining(world, rows, args.horizon)}
        works |= both_libraries("floor", partial(layers.ahead, rows, args.horizon), False)
        spent = medians(works, args.rounds, args.slice)
        found[f"imagining_{rows}"] = rates(rows * args.horizon, spent, "steps_per_s")
    return found


def table(models: Mapping[str, Any]) -> str:
    """One line per model and part."""
    lines = [
        f"{'model':18} {'part':15} {'per second':>11} {'floor':>11} {'ratio':>6} {'at once':>8}"
    ]
    for model, parts in models.items():
        for part, row in parts.items():
            rate = next(iter(row.values()))
            lines.append(
                f"{model:18} {part:15} {rate:11,} {row['floor']:11,} {row['ratio_to_floor']:6.2f} "
                f"{row.get('ratio_to_at_once', ''):>8}"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--records", type=int, default=256, help="per gradient step")
    parser.add_argument("--rows", type=int, nargs="+", default=[750, 4096], help="imagined at once")
    parser.add_argument("--horizon", type=int, default=20, help="imagined steps")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each candidate")
    parser.add_argument("--slice", type=float, default=0.03, help="seconds of a turn")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {name: getattr(args, name) for name in ("records", "rows", "horizon", "rounds")}
    load = [round(os.getloadavg()[0], 2)]
    models = {name: measure(MODELS[name], args) for name in args.models}
    load.append(round(os.getloadavg()[0], 2))
    settings = {**shape, "load": load, "cores": os.cpu_count(), "torch": version("torch")}
    text = json.dumps({"settings": settings, "models": models}, indent=1)
    print(text)
    print(table(models))
    args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
