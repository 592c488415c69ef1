"""The README's tables, made of the measurements in this folder.

    python runs/results/table.py            prints them
    python runs/results/table.py --write    puts them into the README

`<name>.json` comes from `runs/evidence.py`. `bench_<name>.json` is what the script of that name in
`runs/bench/` printed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"


def recipe_rows(folder: Path) -> Iterator[list[str]]:
    """One row per trained recipe."""
    for path in sorted(folder.glob("*.json")):
        if path.stem.startswith("bench_"):
            continue
        result = json.loads(path.read_text())
        minutes = result["minutes"]
        yield [
            f"`{path.stem}`",
            f"`{result['env']}`, {result['agent'].upper()}",
            _range([f"{steps:,}" for steps in sorted(result["steps"])]),
            " ".join(f"{100 * share:.0f}" for share in result["success"]) + " %",
            _range([f"{value:.1f}" for value in sorted(minutes)]),
        ]


def bench_rows(folder: Path) -> Iterator[list[str]]:
    """One row per comparison with a peer."""
    for name, rows in _BENCHES.items():
        path = folder / f"bench_{name}.json"
        if path.is_file():
            yield from rows(json.loads(path.read_text()))


def _fetch_reach(result: dict[str, Any]) -> Iterator[list[str]]:
    seconds = result["median_seconds"]
    yield [
        "FetchReach-v4 to 95 % success, collecting and learning",
        f"{seconds['ours']:.1f} s",
        f"{seconds['sb3']:.0f} s (SB3 SAC + HER)",
        f"{result['times_faster']:.0f} x",
    ]


def _update_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    for layers, found in result.items():
        for peer, title in (("sb3", "SB3"), ("sbx", "SBX")):
            if layers.startswith("2x") and peer in found:
                ours, theirs = (found[n]["updates_per_s"] for n in ("ours compiled", peer))
                yield [
                    f"SAC updates per second, layers of {layers}, batch 256",
                    f"{ours:,.0f}",
                    f"{theirs:,.0f} ({title})",
                    f"{ours / theirs:.1f} x",
                ]


def _replay_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    size = max(result, key=int)
    ours, theirs = result[size]["ours"], result[size]["sb3"]
    yield [
        f"Relabelled batch of 256 from {int(size):,} steps",
        f"{ours['sample_us']:,.0f} µs",
        f"{theirs['sample_us']:,.0f} µs (SB3 `HerReplayBuffer`)",
        f"{theirs['sample_us'] / ours['sample_us']:.1f} x",
    ]
    yield [
        f"Memory of {int(size):,} steps",
        f"{ours['memory_mb']:,.0f} MB",
        f"{theirs['memory_mb']:,.0f} MB (SB3 `HerReplayBuffer`)",
        f"{theirs['memory_mb'] / ours['memory_mb']:.1f} x",
    ]


def _point_maze_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    peers = [value for name, value in result.items() if name.startswith("peer_")]
    yield [
        "PointMaze steps per second, 4,096 environments",
        f"{result['vector_4096']:,}",
        f"{peers[0]:,} (Gymnasium-Robotics)" if peers else "not measured",
        f"{result['vector_4096'] / peers[0]:.0f} x" if peers else "",
    ]


_BENCHES = {
    "fetch_reach": _fetch_reach,
    "update_speed": _update_speed,
    "replay_speed": _replay_speed,
    "point_maze_speed": _point_maze_speed,
}
_HEADS = {
    "recipes": ["recipe", "task", "steps", "success, one number per seed", "minutes"],
    "bench": ["one thread", "here", "peer", "ratio"],
}


def tables(folder: Path = HERE) -> dict[str, str]:
    """Every table as Markdown, by name."""
    rows = {"recipes": list(recipe_rows(folder)), "bench": list(bench_rows(folder))}
    return {name: _markdown(_HEADS[name], rows[name]) for name in rows}


def filled(text: str, folder: Path = HERE) -> str:
    """A document with the tables between its marks `<!-- table: NAME -->`, `<!-- end -->`."""
    for name, table in tables(folder).items():
        mark = f"<!-- table: {name} -->"
        if mark not in text:
            raise ValueError(f"the document has no place for the table {name!r}: add {mark}")
        place = re.compile(f"({re.escape(mark)}\n).*?(<!-- end -->)", re.DOTALL)
        text = place.sub(lambda found, table=table: f"{found[1]}{table}{found[2]}", text)
    return text


def _range(values: list[str]) -> str:
    return values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "Not measured yet.\n"
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Prints the tables, or writes them into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="change the README")
    if parser.parse_args().write:
        README.write_text(filled(README.read_text()))
    else:
        print("\n".join(tables().values()), end="")


if __name__ == "__main__":
    main()
