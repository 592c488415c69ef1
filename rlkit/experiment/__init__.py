"""Experiments: environments in batches, runs, checkpoints, resuming, evaluation."""
