"""The command `rlkit check-env`."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.conf import Positional, arg

from rlkit.cli.console import Json, env_maker, print_json, quiet_output


def check_env(env: Annotated[str, Positional, arg(metavar="ID")], json: Json = False) -> int:
    """Check an environment: Gymnasium's checker and the laws of goal environments.

    Args:
        env: Id of the environment; my_pkg:My-v0 imports my_pkg first.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.goals.check import check_goal_env

    with quiet_output(json):
        problems = check_goal_env(env_maker()(env))
    # Unlike in training, an environment without goals fails here.
    is_fine = all(problem.note and problem.law != "goals" for problem in problems)
    if json:
        found = [{"law": p.law, "message": p.message, "note": p.note} for p in problems]
        print_json({"env": env, "ok": is_fine, "problems": found})
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{env} {'keeps' if is_fine else 'breaks'} the laws of a goal environment")
    return 0 if is_fine else 2
