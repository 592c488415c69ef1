"""The command `rlkit new`: a part of your own, with a test, from a template that works."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from rlkit.cli.console import Folder


@dataclass(frozen=True)
class _Names:
    """The names that a template is filled with: those of the module and the class."""

    module: str
    class_: str

    def filled(self, text: str) -> str:
        return text.replace("template_name", self.module).replace("TemplateName", self.class_)


# The commands that come next; the page of the documents explains the part.
_NEXT = {
    "env": [
        "rlkit check-env template_name:TemplateName-v0",
        "rlkit train --env template_name:TemplateName-v0 --steps 5000",
    ],
    "agent": [
        "rlkit train --env rlkit/PointMaze-Open-v0 --agent template_name:TemplateName "
        "--steps 5000 --set agent_options.replay.hindsight=future",
    ],
    "encoder": [
        "rlkit train --env rlkit/PlanarReach-HiddenVelocity-v0 --steps 5000 "
        "--encoder template_name:TemplateName",
    ],
    "world": [
        "rlkit world train template_name:TemplateName --data Pendulum-v1 --gather 2000",
        "rlkit world score template_name:TemplateName --data Pendulum-v1 --gather 2000 "
        "--windows 50 --steps 500",
    ],
}


KINDS = tuple(_NEXT)


def new(
    kind: Annotated[Literal["env", "agent", "encoder", "world"], Positional],
    name: Annotated[str, Positional, arg(metavar="NAME")],
    out: Folder = None,
) -> int:
    """Write a part of your own that works, and its test, as a start.

    Args:
        kind: env (environment), agent, encoder (of sequences) or world (world model).
        name: What it is called: my_task writes my_task.py, with the class MyTask, and
            test_my_task.py.
        out: Folder of the two files; by default the current one.
    """
    names = _names(name)
    folder = out or Path()
    files = {
        folder / f"{names.module}.py": f"{kind}.py.txt",
        folder / f"test_{names.module}.py": f"test_{kind}.py.txt",
    }
    for path in files:
        if path.exists():
            raise ValueError(f"{path} exists already; choose another NAME or --out FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    templates = resources.files("rlkit.cli") / "templates"
    for path, template in files.items():
        path.write_text(names.filled((templates / template).read_text()))
        print(f"wrote {path}")
    print("next:" if folder == Path() else f"next, in the folder {folder}:")
    python = Path(sys.executable).name
    for command in (f"{python} -m pytest test_{names.module}.py", *_NEXT[kind]):
        print(f"  {names.filled(command)}")
    return 0


def _names(name: str) -> _Names:
    """The names of module and class; MyTask, my-task and my_task are the same.

    Raises:
        ValueError: If it cannot be a module's name, or would hide an installed one.
    """
    spelled = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    if not spelled.isidentifier() or keyword.iskeyword(spelled) or spelled.startswith("_"):
        raise ValueError(
            f"{name!r} cannot name a Python module; use letters, digits and _, such as my_task"
        )
    if spelled in sys.stdlib_module_names or _is_installed(spelled):
        raise ValueError(
            f"{spelled!r} is the name of an installed module, which it would hide; "
            f"choose another, such as my_{spelled}"
        )
    return _Names(spelled, "".join(part.capitalize() for part in spelled.split("_")))


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    here = Path.cwd()
    return spec is not None and (spec.origin is None or Path(spec.origin).parent != here)
