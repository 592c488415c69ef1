"""Speed of recurrent encoders: updates, acting, parallel scans and training.

    python runs/bench/recurrent_speed.py                      all four parts
    python runs/bench/recurrent_speed.py --parts update scan

One thread, float32; candidates alternate and the best round counts. The parts:

`update`: recurrent SAC in tokens (steps of training windows) per second, including sampling,
losses, optimiser and target. Two lower bounds run the bare `torch.nn.GRU` or `LSTM`, time first, on
T + 1 observations, with only the passes that one update needs:
  encoders: actor's forward and backward (its forward serves the target's next actions, too),
    critic's forward and backward, target critic's forward;
  networks: the same, and the heads as `torch.nn.Sequential` on T steps: for the target, actor and
    two critics forward; for the critic loss, two critics forward and backward; for the actor loss,
    actor and two critics forward, back through both, gradients kept for the actor alone.
`acting`: microseconds of one step of each encoder.
`scan`: milliseconds of a window forward and backward, for windows of many lengths.
`training`: environment steps per second of recurrent SAC with a recipe's settings, and of
sb3-contrib's RecurrentPPO with its own, LSTM and layers of the same width, each in its own process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import torch
from torch import Tensor, nn

ENV, RECIPE = "rlkit.envs:rlkit/Pendulum-HiddenVelocity-v0", "pendulum-hidden-velocity"
CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
ENCODERS = ("rnn", "gru", "lstm", "mingru", "lru", "conv", "transformer")
SHAPE = ("hidden", "layers", "batch", "window")
LENGTHS = (32, 64, 128, 256, 512)
OBSERVATION, ACTION = 2, 1
OUT = Path(__file__).resolve().parents[1] / "results" / "bench_recurrent_speed.json"
Work = Callable[[], object]


def fastest(works: Mapping[str, Work], rounds: int, seconds: float) -> dict[str, float]:
    """Seconds per call of each candidate: its best round; candidates alternate."""
    best: dict[str, float] = {}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            calls, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds or calls == 0:
                work()
                calls += 1
            spent = (time.perf_counter() - began) / calls
            best[name] = min(spent, best.get(name, spent))
    return best


def measure_update(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Tokens per second of an update and of its lower bounds, per cell."""
    works: dict[str, Work] = {}
    for cell in CELLS:
        works[f"{cell} ours"] = our_update(cell, args)
        works[f"{cell} floor_encoders"] = bare_update(cell, args, heads=False)
        works[f"{cell} floor_networks"] = bare_update(cell, args, heads=True)
    spent = fastest(works, args.rounds, args.seconds)
    tokens = args.batch * args.window
    found: dict[str, dict[str, float]] = {cell: {} for cell in CELLS}
    for name, seconds in spent.items():
        cell, part = name.split()
        found[cell][part] = round(tokens / seconds)
    return found


def our_update(cell: str, args: argparse.Namespace) -> Work:
    """One update of recurrent SAC on a filled replay buffer."""
    import gymnasium as gym

    from rlkit.agents import SAC

    model = SAC(
        "MlpPolicy",
        gym.make(ENV),
        encoder={"name": cell, "hidden": args.hidden},
        net_arch=args.layers,
        window=args.window,
        batch_size=args.batch,
        learning_starts=10**9,
        buffer_size=10_000,
        seed=0,
        device="cpu",
    )
    model.learn(5_000)
    return lambda: model.train(1, args.batch)


def bare_update(cell: str, args: argparse.Namespace, heads: bool) -> Work:
    """The passes of one update through `torch.nn` modules."""
    width, rows = args.hidden, args.window * args.batch
    actor, critic, target = (CELLS[cell](OBSERVATION + ACTION, width) for _ in range(3))
    actor_head = perceptron(width + OBSERVATION, args.layers, 2 * ACTION)
    q_heads, target_heads = (
        [perceptron(width + OBSERVATION + ACTION, args.layers, 1) for _ in range(2)]
        for _ in range(2)
    )
    x = torch.randn(args.window + 1, args.batch, OBSERVATION + ACTION)
    observed, action = torch.randn(rows, OBSERVATION), torch.randn(rows, ACTION)

    def encoders() -> None:
        backward(actor(x)[0])
        backward(critic(x)[0])
        with torch.no_grad():
            target(x)

    def value(members: list[nn.Sequential], features: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([features, observed, action], 1)
        return torch.stack([head(inputs) for head in members])

    def networks() -> None:
        acting, valued = actor(x)[0], critic(x)[0]
        with torch.no_grad():
            chosen = actor_head(torch.cat([acting[1:].flatten(0, 1), observed], 1))[:, :ACTION]
            value(target_heads, target(x)[0][1:].flatten(0, 1), chosen)
        current = valued[:-1].flatten(0, 1)
        backward(value(q_heads, current, action))
        chosen = actor_head(torch.cat([acting[:-1].flatten(0, 1), observed], 1))[:, :ACTION]
        for head in q_heads:
            head.requires_grad_(False)
        backward(value(q_heads, current.detach(), chosen))
        for head in q_heads:
            head.requires_grad_(True)

    return networks if heads else encoders


def backward(outputs: Tensor) -> None:
    """Gradients of the outputs' sum."""
    torch.autograd.backward(outputs.sum())


def perceptron(inputs: int, widths: Sequence[int], outputs: int) -> nn.Sequential:
    """A head with hidden layers of these widths."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def encoder_of(name: str, hidden: int) -> Any:
    """An encoder of the suite for the benchmark's inputs, and its parameters."""
    from rlkit.networks.encoders import ENCODERS

    encoder: Any = ENCODERS.make({"name": name, "hidden": hidden})
    encoder = encoder.with_inputs(OBSERVATION + ACTION)
    return encoder, encoder.initial_parameters(torch.Generator().manual_seed(0))


def measure_acting(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Microseconds of one step, per encoder and number of environments."""
    works = {
        f"{name} {count}": one_step(name, args.hidden, count)
        for name in ENCODERS
        for count in (1, 8)
    }
    spent = fastest(works, args.rounds, args.seconds / 4)
    found: dict[str, dict[str, float]] = {name: {} for name in ENCODERS}
    for key, seconds in spent.items():
        name, count = key.split()
        found[name][count] = round(seconds * 1e6, 1)
    return found


def one_step(name: str, hidden: int, count: int) -> Work:
    """A step of an encoder after 128 steps, when its cache is full."""
    encoder, vector = encoder_of(name, hidden)
    x = torch.randn(count, OBSERVATION + ACTION)
    is_first = torch.zeros(count, dtype=torch.bool)
    hidden_state = encoder.initial(count)
    with torch.no_grad():
        for _ in range(128):
            _, hidden_state = encoder.step(vector, x, hidden_state, is_first)

    def step() -> None:
        with torch.no_grad():
            encoder.step(vector, x, hidden_state, is_first)

    return step


def measure_scan(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds of a window forward and backward, per length and cell."""
    found = {}
    for steps in LENGTHS:
        works = {"torch.nn.GRU": bare_scan(steps, args)}
        works |= {name: our_scan(name, steps, args) for name in ("gru", "mingru", "lru")}
        spent = fastest(works, args.rounds, args.seconds / 2)
        found[str(steps)] = {name: round(s * 1e3, 2) for name, s in spent.items()}
    return found


def bare_scan(steps: int, args: argparse.Namespace) -> Work:
    """A window through `torch.nn.GRU`, time first."""
    cell = nn.GRU(OBSERVATION + ACTION, args.hidden)
    x = torch.randn(steps, args.batch, OBSERVATION + ACTION)
    return lambda: backward(cell(x)[0])


def our_scan(name: str, steps: int, args: argparse.Namespace) -> Work:
    """A window through an encoder of the suite, with an episode start inside."""
    encoder, vector = encoder_of(name, args.hidden)
    vector.requires_grad_(True)
    x = torch.randn(args.batch, steps, OBSERVATION + ACTION)
    hidden_state = encoder.initial(args.batch)
    is_first = torch.zeros(args.batch, steps, dtype=torch.bool)
    is_first[0, 0] = is_first[1, steps // 2] = True
    return lambda: backward(encoder.scan(vector, x, hidden_state, is_first)[0])


def measure_training(args: argparse.Namespace) -> dict[str, Any]:
    """Environment steps per second, ours and RecurrentPPO's (None if it is not installed)."""
    names = ["ours"]
    if importlib.util.find_spec("sb3_contrib"):
        names.append("recurrent_ppo")
    best: dict[str, float] = {}
    for _ in range(args.rounds):
        for name in names:
            shape = ["--hidden", str(args.hidden), "--layers", *map(str, args.layers)]
            command = [sys.executable, __file__, "--one", name, *shape]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            best[name] = max(best.get(name, 0.0), float(answer.stdout.split()[-1]))
    rates = {
        name: round(best[name]) if name in best else None for name in ("ours", "recurrent_ppo")
    }
    return {"env": ENV.partition(":")[2], **rates}


def steps_per_second(name: str, hidden: int, layers: list[int]) -> float:
    """The rate of one candidate while it learns, on as many environments as the recipe has."""
    from stable_baselines3.common.env_util import make_vec_env

    from rlkit.agents import SAC
    from rlkit.experiment.recipe import load_recipe

    recipe = load_recipe(RECIPE)
    options = recipe.agent_options
    env = make_vec_env(ENV, recipe.num_envs, seed=0)
    model: Any
    if name == "ours":
        options |= {"encoder": {"name": "lstm", "hidden": hidden}, "net_arch": layers}
        model = SAC("MlpPolicy", env, seed=0, device="cpu", **options)
        warmup, measured = options.get("learning_starts", 100) + 400, 1_600
    else:
        from sb3_contrib import RecurrentPPO

        kwargs = {"lstm_hidden_size": hidden, "net_arch": layers}
        model = RecurrentPPO("MlpLstmPolicy", env, seed=0, device="cpu", policy_kwargs=kwargs)
        warmup, measured = model.n_steps * env.num_envs, 8 * model.n_steps * env.num_envs
    model.learn(warmup)
    began, start = time.perf_counter(), int(model.num_timesteps)
    model.learn(measured, reset_num_timesteps=False)
    return (int(model.num_timesteps) - start) / (time.perf_counter() - began)


PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "update": ("update", measure_update),
    "acting": ("acting_us", measure_acting),
    "scan": ("scan_ms", measure_scan),
    "training": ("training", measure_training),
}


def main() -> None:
    """Measures, writes the JSON file after each part, and prints it as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    sizes = {
        "hidden": (64, "width of every encoder"),
        "batch": (32, "windows"),
        "window": (64, "steps of a window in `update`"),
        "rounds": (5, "measurements of each candidate"),
    }
    for name, (default, meaning) in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    parser.add_argument("--layers", type=int, nargs="+", default=[64, 64], help="of every head")
    parser.add_argument("--seconds", type=float, default=2.0, help="per candidate and round")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", choices=("ours", "recurrent_ppo"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        print(steps_per_second(args.one, args.hidden, args.layers))
        return
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    for part in args.parts:
        key, measure = PARTS[part]
        result[key] = measure(args)
        shape = {name: getattr(args, name) for name in SHAPE}
        result.setdefault("settings", {})[part] = {**shape, "torch": version("torch")}
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        print_part(part, result[key])


def print_part(part: str, found: Mapping[str, Any]) -> None:
    """One line per candidate or length."""
    print(part)
    for name, row in found.items():
        cells = row.items() if isinstance(row, Mapping) else [("", row)]
        print(f"  {name:14}", *(f"{key} {value:,}" if key else f"{value}" for key, value in cells))


if __name__ == "__main__":
    main()
