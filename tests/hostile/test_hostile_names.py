"""Files that name code, or a folder elsewhere, in every place where a name can stand."""

import sys

import pytest
from originals import ENV
from watch import EVIL, watched

import rlkit
from rlkit.agents import MPC, SAC
from rlkit.analysis.latent.training import agents_latent, report_latent
from rlkit.analysis.world.candidates import make_candidates
from rlkit.analysis.world.data import Source, load_data
from rlkit.analysis.world.training import Fitting
from rlkit.cli.main import parsed
from rlkit.envs.make import make
from rlkit.latents import FittedLatent
from rlkit.trust import UntrustedError
from rlkit.world import World

STRIKE, SHELL = "evil:Strike", {"name": "subprocess:Popen", "args": ["sh", "-c", "touch shell"]}
PLACES = {
    "encoder": STRIKE,
    "encoder table": ("encoder", SHELL),
    "latent": STRIKE,
    "latent table": ("latent", SHELL),
    "goal_generator": {"name": STRIKE},
    "replay": {"sampler": STRIKE},
    "replay table": ("replay", {"sampler": SHELL}),
    "features_extractor": {"name": STRIKE, "features_dim": 3},
    "network": {"actor": STRIKE},
    "network table": ("network", {"critic": SHELL}),
    "optimiser": "evil:Strike",
    "activation": "evil:Strike",
    "activation of a module": ("features_extractor", {"name": "mlp", "a": {"class": STRIKE}}),
}
MPC_PLACES = {
    "world": STRIKE,
    "world table": ("world", SHELL),
    "core of a world": ("world", {"name": "mdn_rnn", "core": SHELL}),
    "core as pairs": ("world", {"name": "mdn_rnn", "core": [["name", "subprocess:Popen"]]}),
    "planner": STRIKE,
    "planner table": ("planner", SHELL),
}


def options_of(places):
    found = []
    for place, value in places.items():
        name, given = value if isinstance(value, tuple) else (place, value)
        found.append(pytest.param(name, given, id=place))
    return found


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a module that tells when it is imported."""
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("evil", None)


def rlkit_command(*words):
    return parsed([str(word) for word in words])()


def toml(agent_options="", **keys):
    content = {"env": ENV, "agent": "sac", **keys}
    lines = [f'{key} = "{value}"' for key, value in content.items() if isinstance(value, str)]
    return "\n".join([*lines, "[agent_options]", agent_options, ""])


def toml_value(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml_value(one)}' for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def refuse_everywhere(folder, attempts, message="names|outside of the current folder"):
    for attempt in attempts:
        with watched(folder), pytest.raises(UntrustedError, match=message):
            attempt()


RECIPES = {
    **{
        f"agent option {one.id}": toml(f"{one.values[0]} = {toml_value(one.values[1])}")
        for one in options_of(PLACES)
    },
    **{
        f"agent option {one.id}": toml(
            f"{one.values[0]} = {toml_value(one.values[1])}", agent="mpc"
        )
        for one in options_of(MPC_PLACES)
    },
    "env": toml(env="evil:Me-v0"),
    "env of a module in a package": toml(env="evil.inner:ns/Me-v0"),
    "agent": toml(agent="evil:Strike"),
    "agent that is a function": toml(agent="os:system"),
    "a module without a class": toml(agent="antigravity:"),
    "entry point of an environment": toml() + '[env_options]\nentry_point = "os:system"',
    "class in an environment's options": toml()
    + '[env_options.config]\nother_vehicles_type = "subprocess.Popen"',
    "id in an environment's options": toml() + '[env_options]\nenv_id = "evil:Me-v0"',
    "unknown option": toml('teacher = "evil:Strike"'),
    "folder of the replay buffer": toml('replay = {directory = "/srv/elsewhere/replay"}'),
    "folder above": toml('replay = {directory = "../../../../../srv/elsewhere"}'),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, here, originals):
    (here / "x.toml").write_text(RECIPES[name])
    run = originals.run(here / "run", recipe=RECIPES[name])
    refuse_everywhere(
        here,
        [
            lambda: rlkit_command("train", "x.toml", "--out", "out"),
            lambda: rlkit_command("train", "x.toml", "--steps", "9", "--seed", "3"),
            lambda: rlkit_command("resume", "run"),
            lambda: rlkit_command("eval", "run", "--episodes", "1"),
            lambda: rlkit_command("record", "run", "--out", "a.mp4"),
            lambda: rlkit.load(run),
            lambda: load_data(Source(str(run)), make),
            lambda: rlkit_command("latent", "train", "vae", "--data", "run"),
        ],
    )
    with watched(here):
        rlkit_command("plot", "run", "--out", "/tmp/hostile.png")


@pytest.mark.parametrize(("option", "value"), options_of(PLACES))
def test_agents(option, value, here, originals):
    def change(state):
        state["agent"]["options"][option] = value

    originals.archive(here / "a.zip", "sac", change)
    run = originals.run(here / "run", change=change)
    loads = [lambda: SAC.load("a.zip"), lambda: SAC.load(run), lambda: rlkit.load("a.zip")]
    refuse_everywhere(here, [*loads, lambda: SAC.load("a.zip", make(ENV), learning_rate=1e-3)])


@pytest.mark.parametrize(("option", "value"), options_of(MPC_PLACES))
def test_planning_agents(option, value, here, originals):
    def change(state):
        state["agent"]["options"][option] = value

    originals.archive(here / "a.zip", "mpc", change)
    refuse_everywhere(here, [lambda: MPC.load("a.zip"), lambda: rlkit.load("a.zip")])


@pytest.mark.parametrize("place", ["/srv/elsewhere/replay", "../../../../../../srv/replay"])
def test_an_agents_replay_buffer_stays_in_the_current_folder(place, here, originals):
    def change(state):
        state["agent"]["options"]["replay"] = {"directory": place}

    originals.archive(here / "a.zip", "sac", change)
    refuse_everywhere(here, [lambda: SAC.load("a.zip"), lambda: SAC.load("a.zip", make(ENV))])
    assert SAC.load("a.zip", replay={}).num_timesteps == 0


@pytest.mark.parametrize("name", [STRIKE, "subprocess:Popen", "os:system", "antigravity:x"])
def test_latents(name, here, originals):
    def change(state):
        state["latent"]["model"] = {"name": name, "args": ["sh", "-c", "touch shell"]}

    def change_run(state):
        state["training"]["latent"] = {"model": {"name": name}, "shape": [4, 4, 3]}

    folder = originals.model(here / "latent", "latent", change)
    run = originals.run(here / "run", change=change_run)
    frames = str(originals.folder / "frames.npy")
    refuse_everywhere(
        here,
        [
            lambda: FittedLatent.load(folder),
            lambda: report_latent(folder, frames, make, here / "report"),
            lambda: rlkit_command("latent", "report", "latent", "--data", frames, "--out", "r"),
            lambda: rlkit_command("latent", "report", "run", "--data", frames, "--out", "r"),
            lambda: agents_latent(run),
            lambda: load_data(Source(ENV, latent=str(folder)), make),
        ],
    )


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("name", [STRIKE, "subprocess:Popen", "os:system"])
def test_worlds(name, inner, here, originals):
    def change(state):
        model = state["world"]["model"]
        if inner:
            model["core"] = [["name", name], ["args", ["sh", "-c", "touch shell"]]]
        else:
            state["world"]["model"] = {"name": name, "args": ["sh", "-c", "touch shell"]}

    folder = originals.model(here / "world", "world", change)
    refuse_everywhere(
        here,
        [
            lambda: World.load(folder),
            lambda: make_candidates([str(folder)], Fitting()),
            lambda: rlkit_command("world", "score", "world", "--data", "tanks", "--out", "s"),
            lambda: MPC("MultiInputPolicy", make(ENV), world=str(folder)),
        ],
    )
    (here / "x.toml").write_text(toml('world = "world"', agent="mpc"))
    refuse_everywhere(here, [lambda: rlkit_command("train", "x.toml", "--out", "out")])


def test_what_is_trusted_is_imported(here, originals):
    (here / "x.toml").write_text(toml(agent="evil:Strike"))
    with pytest.raises(ValueError, match="Strike'> is no agent: it lacks iterate"):
        rlkit_command("train", "x.toml", "--out", "out", "--trust")
    assert (here / "imported").exists()
    assert not (here / "called").exists()  # it was checked against the contract before


def test_what_is_typed_is_trusted_and_checked_before_it_is_called(here, originals):
    for words in (["--agent", STRIKE], ["--encoder", STRIKE]):
        (here / "imported").unlink(missing_ok=True)
        sys.modules.pop("evil", None)
        with pytest.raises(ValueError, match="Strike'> is no"):
            rlkit_command("train", "--env", ENV, *words, "--out", "out")
        assert (here / "imported").exists()
        assert not (here / "called").exists()
