"""Latent models: data, training, scores, reports."""
