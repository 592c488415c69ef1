"""One small file of each kind that can be loaded; hostile ones are changed copies."""

import shutil

import numpy as np
import torch

from rlkit.agents import MPC, SAC
from rlkit.envs.make import make
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.train import train
from rlkit.io.archive import read_archive, write_archive
from rlkit.io.checkpoint import read_checkpoint, saved_steps, write_checkpoint
from rlkit.latents import LATENTS, FittedLatent
from rlkit.world import WORLDS, Layout, World

ENV = "rlkit/PointMaze-Open-v0"
SMALL = {"net_arch": [8], "buffer_size": 200, "learning_starts": 5, "batch_size": 8}
QUICK = [
    *("steps=40", "check_env=false", "checkpoint.every=0", "evaluation.every=0"),
    *("evaluation.final_episodes=1", "pictures.video_episodes=0", "agent_options.net_arch=[8]"),
    *("agent_options.learning_starts=5", "agent_options.batch_size=8", "num_envs=1"),
    "agent_options.buffer_size=500",
]


class Originals:
    """Folders and files, each made once."""

    def __init__(self, folder):
        self.folder = folder
        env = make(ENV)
        SAC("MultiInputPolicy", env, **SMALL).save(folder / "sac.zip")
        MPC("MultiInputPolicy", env, buffer_size=200).save(folder / "mpc.zip")
        env.close()
        generator = torch.Generator().manual_seed(0)
        shaped = LATENTS.make({"name": "pca", "dims": 2}).with_shape((4, 4, 3))
        latent = FittedLatent(shaped, generator)
        frames = np.random.default_rng(0).integers(0, 255, (40, 4, 4, 3), np.uint8)
        for _ in latent.fit(frames, steps=1, generator=generator):
            pass
        latent.save(folder / "latent")
        np.save(folder / "frames.npy", frames)
        model = WORLDS.make({"name": "mdn_rnn", "core": "gru"})
        World(model, Layout(3, 2), generator).save(folder / "world")
        train(load_recipe("goal", QUICK, env=ENV), make, folder / "run")

    def archive(self, target, kind, change):
        """A changed copy of a saved agent: `sac` or `mpc`."""
        state = read_archive(self.folder / f"{kind}.zip")
        change(state)
        write_archive(target, state)
        return target

    def model(self, target, kind, change):
        """A changed copy of the `latent` or the `world`."""
        state = read_checkpoint(self.folder / kind)
        change(state)
        write_checkpoint(target, state)
        return target

    def run(self, target, recipe=None, change=None):
        """A changed copy of the run: lines of its recipe, or its checkpoint."""
        shutil.copytree(self.folder / "run", target)
        if recipe is not None:
            (target / "recipe.toml").write_text(recipe)
        if change is not None:
            step = saved_steps(target / "checkpoints")[-1]
            path = target / "checkpoints" / f"step-{step}"
            state = read_checkpoint(path)
            change(state)
            write_checkpoint(path, state)
        return target
