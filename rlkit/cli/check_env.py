"""The command `rlkit check-env`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated

from tyro.conf import Positional, arg

from rlkit.cli.console import Json, env_maker, print_json, quiet_output


def check_env(
    env: Annotated[str, Positional, arg(metavar="ID")],
    action_repeat: Annotated[int, arg(metavar="N")] = 1,
    json: Json = False,
) -> int:
    """Check an environment: Gymnasium's checker, whole episodes, and the laws of goals.

    Errors mean that training cannot work; warnings are probable mistakes, with which it is trained
    all the same. The exit code is 1 if there are errors.

    Args:
        env: Id of the environment; my_pkg:My-v0 imports my_pkg first.
        action_repeat: Steps for which every action is held, as by this key of a recipe.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.goals import make_repeating
    from rlkit.goals.check import check_env as check
    from rlkit.goals.findings import errors, grouped

    with quiet_output(json):
        build = functools.partial(make_repeating, env_maker(), action_repeat, env)
        findings = check(build)
    is_fine = not errors(findings)
    if json:
        found = [dataclasses.asdict(finding) for finding in findings]
        print_json({"env": env, "ok": is_fine, "findings": found})
        return int(not is_fine)
    if findings:
        print(grouped(findings))
    if is_fine:
        held = "" if action_repeat == 1 else f" --set action_repeat={action_repeat}"
        print(f"{env} can be trained. Next: rlkit train --env {env}{held}")
    else:
        print(f"{env} cannot be trained as it is. Correct the errors and check again, or try:")
        print(f"  rlkit train --env {env} --set check_env=false")
    return int(not is_fine)
