"""Evaluate, save and stop by Stable-Baselines3's callbacks, and a callback of one's own."""

import sys
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor

from rlkit.agents import SAC

STEPS = int(sys.argv[1])


class Counter(BaseCallback):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def _on_step(self):
        self.steps += 1
        self.logger.record("mine/steps", self.steps)
        return True


counter = Counter()
stop = StopTrainingOnRewardThreshold(reward_threshold=-10_000)  # any evaluation reaches it
evaluate = EvalCallback(
    Monitor(gym.make("Pendulum-v1")),
    callback_on_new_best=stop,
    best_model_save_path="best",
    log_path="evaluations",
    eval_freq=STEPS // 2,
    n_eval_episodes=1,
    verbose=0,
)
save = CheckpointCallback(save_freq=STEPS // 4, save_path="saved", name_prefix="pendulum")
model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=32, seed=0)
model.learn(STEPS, callback=CallbackList([counter, save, evaluate]))

assert model.num_timesteps == counter.steps == STEPS // 2
assert {path.name for path in Path("saved").iterdir()} >= {f"pendulum_{STEPS // 4}_steps.zip"}
best = SAC.load("best/best_model")
assert best.predict(model.observation_space.sample(), deterministic=True)[0].shape == (1,)
