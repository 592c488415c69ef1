"""Command lines with a mistake, each with what the message must contain; none of them needs torch.

Run by itself it prints, as JSON, each line's exit code, output, error and processor seconds.
"""

import contextlib
import io
import json
import shlex
import sys
import time

WRONG = [
    # Commands
    ("tain quickstart", "Did you mean 'train'?"),
    ("trian quickstart", "Did you mean 'train'?"),
    ("Train quickstart", "Did you mean 'train'?"),
    ("resum runs/out/a", "Did you mean 'resume'?"),
    ("evaluate runs/out/a", "Did you mean 'eval'?"),
    ("plto a", "Did you mean 'plot'?"),
    ("checkenv Pendulum-v1", "Did you mean 'check-env'?"),
    ("check_env Pendulum-v1", "Did you mean 'check-env'?"),
    ("lst recipes", "Did you mean 'list'?"),
    ("wrold train", "Did you mean 'world'?"),
    ("docter", "Did you mean 'doctor'?"),
    ("complete bash", "Did you mean 'completion'?"),
    ("xyzzy", "rlkit has no command 'xyzzy'. Known: check-env,"),
    ("world trian", "rlkit world has no command 'trian'. Did you mean 'train'?"),
    ("world scor", "Did you mean 'score'?"),
    ("latent reprt a", "Did you mean 'report'?"),
    ("latent --data x", "rlkit latent has no option --data; options stand behind a command"),
    ("--steps 3 train", "options stand behind a command, such as `rlkit train --steps`"),
    ("-x", "rlkit has no option -x"),
    # Options
    ("train --stpes 3", "rlkit train has no option --stpes. Did you mean --steps?"),
    ("train quickstart --sed 1", "Did you mean --seed?"),
    ("train quickstart --Agent td3", "Did you mean --agent?"),
    ("train quickstart --algo td3", "rlkit train has no option --algo."),
    ("train quickstart -s 3", "rlkit train has no option -s. See `rlkit train --help`."),
    ("train quickstart --verbose", "has no option --verbose"),
    ("train quickstart --encodr gru", "Did you mean --encoder?"),
    ("train quickstart --output a", "Did you mean --out?"),
    ("train quickstart --sett a=1", "Did you mean --set?"),
    ("train quickstart --stpes=3", "Did you mean --steps?"),
    ("eval a --episode 3", "Did you mean --episodes?"),
    ("eval a --check-point best", "Did you mean --checkpoint?"),
    ("record a --episods 3", "Did you mean --episodes?"),
    ("resume a --step 3", "Did you mean --steps?"),
    ("plot a --outt b.png", "Did you mean --out?"),
    ("check-env Pendulum-v1 --jsn", "Did you mean --json?"),
    ("latent train vae --dat x", "Did you mean --data?"),
    ("latent train vae --data x --batchsize 3", "Did you mean --batch-size?"),
    ("world train ensemble --data x --latents a", "Did you mean --latent?"),
    ("world score ensemble --data x --horizon 3", "Did you mean --horizons?"),
    ("world score ensemble --data x --nocontrols", "Did you mean --no-controls?"),
    ("new env mine --output x", "Did you mean --out?"),
    ("train quickstart --noise-correlation 1", "--noise-correlation is now called"),
    # Missing and surplus words
    ("train", "name a recipe (see `rlkit list recipes`) or an environment (--env ID)"),
    ("train --steps", "--steps needs a value. See `rlkit train --help`."),
    ("train quickstart --steps --json", "--steps needs a value, and --json is an option"),
    ("train quickstart --out", "--out needs a value"),
    ("train quickstart --set", "--set needs a value"),
    ("train quickstart --seeds", "--seeds needs a value"),
    ("train quickstart seed=3", "settings stand behind --set: `--set seed=3`"),
    ("train quickstart other", "rlkit train takes no further word 'other'"),
    ("train quickstart steps 300", "Did you mean --steps?"),
    ("train quickstart --json 3", "takes no further word '3'"),
    ("train quickstart --json=true", "--json takes no value, got 'true'"),
    ("resume", "rlkit resume needs RUN. See `rlkit resume --help`."),
    ("eval", "rlkit eval needs RUN"),
    ("record", "rlkit record needs RUN"),
    ("plot", "name at least one run"),
    ("check-env", "rlkit check-env needs ID"),
    ("list", "rlkit list needs WHAT"),
    ("new", "rlkit new needs KIND"),
    ("new env", "rlkit new needs NAME"),
    ("completion", "rlkit completion needs SHELL"),
    ("latent train", "rlkit latent train needs MODEL"),
    ("latent train vae", "rlkit latent train needs --data"),
    ("latent report", "rlkit latent report needs FOLDER"),
    ("world train ensemble", "rlkit world train needs --data"),
    ("eval a b", "rlkit eval takes no further word 'b'"),
    ("list agents encoders", "takes no further word 'encoders'"),
    # Values
    ("train quickstart --steps many", "--steps 'many' is no whole number; write 20000, 20_000 or"),
    ("train quickstart --steps 1.5", "--steps '1.5' is no whole number"),
    ("train quickstart --steps 1e-3", "is no whole number"),
    ("train quickstart --steps inf", "is no whole number"),
    ("train quickstart --steps nan", "is no whole number"),
    ("train quickstart --steps 0", "steps = 0 must be at least 1"),
    ("train quickstart --steps -5", "steps = -5 must be at least 1"),
    ("train quickstart --steps=", "--steps '' is no whole number"),
    ("train quickstart --seed -1", "seed = -1 must not be negative"),
    ("train quickstart --seed one", "--seed 'one' is no whole number"),
    ("train quickstart --seeds 0 x", "--seeds 'x' is no whole number"),
    ("train quickstart --seeds 0 0", "--seeds 0 0 names a seed twice"),
    ("train quickstart --seed 0 --seeds 1 2", "--seed and --seeds exclude each other"),
    ("train quickstart --seeds 0 -1", "seed = -1 must not be negative"),
    ("list agent", "Did you mean 'agents'?"),
    ("list everything", "rlkit list does not know 'everything'. Known: agents,"),
    ("new robot mine", "rlkit new does not know 'robot'"),
    ("new env 2fast", "'2fast' cannot name a Python module"),
    ("new agent json", "'json' is the name of an installed module"),
    ("completion tcsh", "rlkit completion does not know 'tcsh'"),
    ("eval a --episodes none", "--episodes 'none' is no whole number"),
    ("eval a --episodes 0", "--episodes 0 must be at least 1"),
    ("record a --episodes 0", "--episodes 0 must be at least 1"),
    ("record a --out video.avi", "--out video.avi must end in .mp4 or .gif"),
    ("plot a --out curve.txt", "--out curve.txt must end in .png, .svg or .pdf"),
    ("latent train vae --data x --learning-rate fast", "'fast' is no number; write 0.001 or 1e-3"),
    ("world score a --data x --horizons 1 far", "--horizons 'far' is no whole number"),
    # Recipes and settings
    ("train quikstart", "unknown recipe 'quikstart'. Did you mean 'quickstart'?"),
    ("train QUICKSTART", "Did you mean 'quickstart'?"),
    ("train fetchpush", "Did you mean 'fetch-push'?"),
    ("train latent-memory", "It is now called 'latent-recurrent'."),
    ("train missing.toml", "there is no recipe file 'missing.toml'; check the path"),
    ("train quickstart --set step=3", "unknown recipe key 'step'. Did you mean 'steps'?"),
    ("train quickstart --set steps", "'steps' is no setting; write key=value"),
    ("train quickstart --set =3", "'=3' is no setting; write key=value"),
    ("train quickstart --set steps=many", "steps = 'many' is a str; it must be int"),
    ("train quickstart --set evaluation.evry=3", "Did you mean 'evaluation.every'?"),
    ("train quickstart --set evaluation=3", "evaluation = 3 is a int; it must be a table"),
    ("train quickstart --set steps.a=3", "'steps.a=3': steps is not a table"),
    ("train quickstart --set num_envs=0", "num_envs = 0 must be at least 1"),
    ("train quickstart --set gamma=0.9", "Options of the agent go under agent_options"),
    ("train quickstart --set evaluation.stop_at_success=2", "must lie in (0, 1]"),
    # Parts, runs and environments
    ("train quickstart --agent sca", "unknown agent 'sca'. Did you mean 'sac'?"),
    ("train quickstart --agent no_mod:Agent", "'no_mod:Agent' cannot be imported"),
    ("train quickstart --agent json:Agent", "json has no class 'Agent'"),
    ("train --env rlkit/PointMaze-Opn-v0", "rlkit/PointMaze-Open-v0"),
    ("train --env no_pkg:Me-v0", "'no_pkg', which cannot be imported"),
    ("check-env rlkit/PointMaze-Opn-v0", "rlkit/PointMaze-Open-v0"),
    ("resume nowhere", "'nowhere' is no run: it holds no recipe.toml"),
    ("eval nowhere", "'nowhere' is no run"),
    ("record nowhere", "'nowhere' is no run"),
    ("plot nowhere", "'nowhere' is no run"),
]


def outcome(line):
    """What `rlkit LINE` does: exit code, output, error, processor seconds."""
    from rlkit.cli import main as cli

    out, err, code = io.StringIO(), io.StringIO(), None
    sys.argv = ["rlkit", *shlex.split(line)]
    began = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    return [line, code, out.getvalue(), err.getvalue(), time.process_time() - began]


if __name__ == "__main__":
    rows = [outcome(line) for line, _ in WRONG]
    print(json.dumps({"rows": rows, "torch": "torch" in sys.modules}))
