"""Curves as CSV, by Stable-Baselines3's logger."""

import csv
import sys

from stable_baselines3.common.logger import configure

from rlkit.agents import SAC

STEPS = int(sys.argv[1])

model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=32, train_freq=8, seed=0)
model.set_logger(configure("log", ["csv"]))
model.learn(max(STEPS, 400), log_interval=1)
model.logger.close()

with open("log/progress.csv") as file:
    rows = list(csv.DictReader(file))
assert [int(row["time/total_timesteps"]) for row in rows] == [200, 400]
assert float(rows[-1]["train/critic_loss"]) > 0
assert float(rows[-1]["rollout/ep_rew_mean"]) < 0
