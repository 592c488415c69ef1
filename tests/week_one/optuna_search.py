"""Optuna around `learn`, with pruning by a callback."""

import sys

import gymnasium as gym
import optuna
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

from rlkit.agents import SAC

STEPS = int(sys.argv[1])


class TrialCallback(EvalCallback):
    def __init__(self, env, trial):
        super().__init__(env, eval_freq=STEPS // 2, n_eval_episodes=1, verbose=0)
        self.trial = trial

    def _on_step(self):
        going = super()._on_step()
        if self.n_calls % self.eval_freq == 0:
            self.trial.report(self.last_mean_reward, self.n_calls)
            if self.trial.should_prune():
                raise optuna.TrialPruned
        return going


def objective(trial):
    width = trial.suggest_categorical("width", [16, 32])
    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        gamma=1 - trial.suggest_float("one_minus_gamma", 1e-3, 0.1, log=True),
        policy_kwargs={"net_arch": [width, width]},
        learning_starts=20,
        batch_size=32,
        seed=0,
    )
    callback = TrialCallback(Monitor(gym.make("Pendulum-v1")), trial)
    model.learn(STEPS, callback=callback)
    return callback.last_mean_reward


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
study.optimize(objective, n_trials=2)
assert study.best_value < 0
assert len(study.trials) == 2
