"""Experiments: recipes, run folders, training, resuming, evaluation, figures and videos."""
