"""Dict observations without goals, with an image among them."""

import sys

from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from rlkit.agents import DQN, TD3

STEPS = int(sys.argv[1])

for algorithm, is_discrete in ((DQN, True), (TD3, False)):
    env = Monitor(SimpleMultiObsEnv(random_start=False, discrete_actions=is_discrete))
    # As in SB3's CombinedExtractor: a small convolution for the image, the vector as it is.
    policy_kwargs = {"features_extractor_kwargs": {"cnn_output_dim": 16}, "net_arch": [32]}
    model = algorithm(
        "MultiInputPolicy",
        env,
        policy_kwargs=policy_kwargs,
        learning_starts=20,
        batch_size=8,
        buffer_size=1000,
        train_freq=8,
        seed=0,
    )
    model.learn(STEPS // 2)
    assert sorted(model.replay_buffer.observations) == ["img", "vec"]
    evaluate_policy(model, env, n_eval_episodes=1, deterministic=False)
