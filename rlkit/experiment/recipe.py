"""Recipes: all settings of a run in one TOML file."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from rlkit.names import nearest
from rlkit.trust import require_local, require_trusted


@dataclass(frozen=True)
class Evaluation:
    """When and how the agent is evaluated on held-out episodes."""

    every: int = 10_000
    """Environment steps between evaluations; 0: only at the end."""
    episodes: int = 20
    """Episodes of an evaluation during training."""
    final_episodes: int = 100
    """Episodes of the evaluation at the end."""
    max_steps: int = 10_000
    """Steps after which an episode that has not ended is cut off and counts as a failure."""
    stop_at_success: float | None = None
    """Training ends once an evaluation reaches this success rate, in (0, 1]."""
    stop_at_return: float | None = None
    """Training ends once an evaluation reaches this mean return."""


@dataclass(frozen=True)
class Checkpoint:
    """When checkpoints are saved, in addition to the one at the end."""

    every: int = 50_000
    """Environment steps between checkpoints; 0: only at the end."""


@dataclass(frozen=True)
class Pictures:
    """Heat maps of reached goals and videos, in TensorBoard and in the run folder."""

    every: int = 0
    """Environment steps between pictures; 0: only at the end."""
    video_episodes: int = 3
    """Episodes per video; 0: no videos."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run: the same recipe gives the same weights on the same machine."""

    env: str
    """Id of the environment; `module:Id-v0` imports the module first."""
    agent: str = "sac"
    """Name of an installed agent, or `package.module:Class`."""
    steps: int = 100_000
    """Environment steps to train for, counted over all environments."""
    num_envs: int = 1
    """Environments that are stepped together."""
    action_repeat: int = 1
    """Environment steps for which every action is held; the agent decides in between. Steps of a
    recipe are the environment's all the same."""
    subprocess: bool = False
    """Whether each environment gets a process of its own, replaced when it crashes or hangs;
    environments with a native vector form need none."""
    worker_timeout_s: float = 60.0
    """Seconds that such a process may take for one step."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """Torch device of the agent."""
    threads: int = 1
    """Torch threads; one is fastest for small networks, and the results depend on it."""
    goals: bool | str = "auto"
    """Whether the environment must have goals: true; "auto": hindsight if it has any."""
    check_env: bool = True
    """Whether the environment is checked first; errors then stop the run before it starts."""
    description: str = ""
    """One line for `rlkit list recipes`."""
    env_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment."""
    agent_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the agent."""
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    pictures: Pictures = Pictures()

    def to_toml(self) -> str:
        """The recipe as TOML, defaults included."""
        return "\n".join(_toml_lines(dataclasses.asdict(self))) + "\n"

    def flat(self) -> dict[str, Any]:
        """Settings by dotted key, such as `agent_options.gamma`; those that are None left out."""
        return dict(_flat(dataclasses.asdict(self)))


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the suite."""
    files = resources.files("rlkit.recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def describe_recipes() -> list[tuple[str, str]]:
    """Names of the shipped recipes, with their descriptions."""
    return [(name, load_recipe(name).description) for name in recipe_names()]


def load_recipe(
    name: str, settings: Iterable[str] = (), *, trust: bool = False, **flags: Any
) -> Recipe:
    """Reads a recipe by its name, or by the path of a `.toml` file.

    Args:
        name: A shipped recipe's name or a path.
        settings: Changes as `"dotted.key=value"`; see `parse_setting`.
        trust: Whether the file may name any environment and any class, which are then imported;
            settings and flags may in any case.
        flags: Changes of top-level keys; None changes nothing.

    Raises:
        UntrustedError: If the file names others than installed ones and is not trusted.
        ValueError: If the recipe or a key is unknown, or a value has the wrong type.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"there is no recipe file {name!r}; check the path")
        text, is_ours = path.read_text(), False
    elif name in recipe_names():
        text, is_ours = (resources.files("rlkit.recipes") / f"{name}.toml").read_text(), True
    else:
        raise ValueError(
            f"unknown recipe {name!r}. {nearest(name, recipe_names())} "
            f"A recipe of your own is the path of a .toml file."
        )
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {name!r} is no valid TOML: {error}") from error
    settings = tuple(settings)
    if not is_ours:
        typed = [[key] for key, value in flags.items() if value is not None]
        typed += [parse_setting(setting)[0] for setting in settings]
        _require_trusted(_without(content, typed), name, trust)
    return make_recipe(content, settings, **flags)


def _require_trusted(content: Mapping[str, Any], source: str, trust: bool) -> None:
    """Refuses what a recipe's file must not name; see `rlkit.trust`."""
    for key in ("env", "agent", "env_options", "agent_options"):
        require_trusted({key: content.get(key)}, source, trust=trust)
    node: Any = content
    for key in ("agent_options", "replay", "directory"):
        node = node.get(key) if isinstance(node, Mapping) else None
    require_local(node, source, trust=trust)


def _without(content: Mapping[str, Any], keys: Iterable[list[str]]) -> dict[str, Any]:
    """A copy of nested dicts without the values at some keys."""
    left = typing.cast(dict[str, Any], _copy(content))
    for *tables, last in keys:
        table: Any = left
        for key in tables:
            table = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(last, None)
    return left


def make_recipe(content: Mapping[str, Any], settings: Iterable[str] = (), **flags: Any) -> Recipe:
    """A recipe from nested dicts, changed as by `load_recipe`.

    Raises:
        ValueError: If a key is unknown, or a value has the wrong type.
    """
    content = {key: _copy(value) for key, value in content.items()}
    content.update({key: value for key, value in flags.items() if value is not None})
    for setting in settings:
        keys, value = parse_setting(setting)
        table = content
        for depth, key in enumerate(keys[:-1]):
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ValueError(f"{setting!r}: {'.'.join(keys[: depth + 1])} is not a table")
        table[keys[-1]] = value
    if "env" not in content:
        raise ValueError("the recipe names no environment; set env = 'ID' or pass --env ID")
    recipe: Recipe = _build(Recipe, content, "")
    _check_ranges(recipe)
    return recipe


def parse_setting(setting: str) -> tuple[list[str], Any]:
    """Splits `"dotted.key=value"`; the value is TOML (`0.1`, `true`, `[1, 2]`) or a bare string.

    Raises:
        ValueError: If there is no `=` or the key is empty.
    """
    key, separator, text = setting.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        raise ValueError(
            f"{setting!r} is no setting; write key=value, e.g. agent_options.gamma=0.9"
        )
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return keys, text
    value = parsed["value"]
    # More keys, or a date: the text is valid TOML by chance, and a string was meant.
    is_value = len(parsed) == 1 and isinstance(value, str | int | float | list | dict)
    return keys, value if is_value else text


def named_table(name: str, settings: Iterable[tuple[list[str], Any]], owner: str) -> dict[str, Any]:
    """The table `{name = ..., key = value}` of a component such as a world model.

    Args:
        name: The component's.
        settings: Keys and values, as `parse_setting` splits them.
        owner: Whose settings these are, with an example; ends the error.

    Raises:
        ValueError: If a setting has no key of its own, or is the name.
    """
    table = {"name": name}
    for keys, value in settings:
        if len(keys) != 1 or keys[0] == "name":
            raise ValueError(f"{'.'.join(keys)!r} is no setting of {owner}")
        table[keys[0]] = value
    return table


def _copy(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _copy(value) for key, value in node.items()}
    return node


def _build(kind: type[Any], content: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    for key in content:
        if key not in hints:
            known = [f"{prefix}{name}" for name in hints]
            raise ValueError(
                f"unknown recipe key {prefix + key!r}. {nearest(prefix + key, known)} "
                f"Options of the agent go under agent_options, the environment's under env_options."
            )
    values = {key: _convert(hints[key], value, prefix + key) for key, value in content.items()}
    return kind(**values)


def _convert(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(typing.cast(type, hint), value, f"{key}.")
    allowed = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    allowed = tuple(typing.get_origin(kind) or kind for kind in allowed)
    if float in allowed and type(value) is int:
        return float(value)
    # TOML has no null: "none" switches off what a recipe sets.
    if type(None) in allowed and str not in allowed and value == "none":
        return None
    # Exact types: `bool` is a subclass of `int`, and true is not a number of steps.
    if type(value) not in allowed:
        names = " or ".join(
            "'none'" if kind is type(None) else kind.__name__
            for kind in allowed
            if kind is not type(None) or str not in allowed
        )
        names = "a table" if dataclasses.is_dataclass(hint) or dict in allowed else names
        raise ValueError(f"{key} = {value!r} is a {type(value).__name__}; it must be {names}")
    return value


def _check_ranges(recipe: Recipe) -> None:
    plan = recipe.evaluation
    counts = {
        "steps": recipe.steps,
        "num_envs": recipe.num_envs,
        "action_repeat": recipe.action_repeat,
        "threads": recipe.threads,
        "evaluation.episodes": plan.episodes,
        "evaluation.final_episodes": plan.final_episodes,
        "evaluation.max_steps": plan.max_steps,
    }
    for key, value in counts.items():
        if value < 1:
            raise ValueError(f"{key} = {value} must be at least 1")
    from_zero = {
        "seed": recipe.seed,
        "evaluation.every": plan.every,
        "checkpoint.every": recipe.checkpoint.every,
        "pictures.every": recipe.pictures.every,
        "pictures.video_episodes": recipe.pictures.video_episodes,
    }
    for key, value in from_zero.items():
        if value < 0:
            raise ValueError(f"{key} = {value} must not be negative")
    if recipe.goals not in (True, False, "auto"):
        raise ValueError(f'goals = {recipe.goals!r} must be true, false or "auto"')
    if not recipe.worker_timeout_s > 0:
        raise ValueError(f"worker_timeout_s = {recipe.worker_timeout_s} must be positive")
    if plan.stop_at_success is not None and not 0 < plan.stop_at_success <= 1:
        raise ValueError(
            f"evaluation.stop_at_success = {plan.stop_at_success} must lie in (0, 1]; "
            f"leave it out to train to the end"
        )


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _toml_lines(table: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    for key, value in table.items():
        if key not in tables and value is not None:  # TOML has no null: absent is None
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in tables.items():
        name = f"{prefix}{_toml_key(key)}"
        yield f"\n[{name}]"
        yield from _toml_lines(value, f"{name}.")


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's strings are TOML's, except that TOML also escapes DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise ValueError(f"a recipe cannot hold {value!r} of type {type(value).__name__}")
