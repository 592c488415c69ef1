"""Save an agent and its replay buffer, load both in another program, and go on training."""

import sys

from rlkit.agents import SAC

STEPS = int(sys.argv[1])


def schedule(remaining):
    return 1e-3 * remaining


model = SAC(
    "MlpPolicy",
    "Pendulum-v1",
    schedule,
    learning_starts=20,
    batch_size=32,
    ent_coef="auto_0.1",
    seed=0,
)
model.learn(STEPS)
model.save("agent")
model.save_replay_buffer("replay")
del model

model = SAC.load("agent", env="Pendulum-v1")
assert model.replay_buffer.size() == 0
model.load_replay_buffer("replay")
assert model.replay_buffer.observations.shape == (STEPS, 1, 3)
assert abs(model.lr_schedule(0.5) - 5e-4) < 1e-9
model.learn(STEPS, reset_num_timesteps=False)
assert model.num_timesteps == 2 * STEPS
