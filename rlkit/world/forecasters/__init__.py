"""Forecasters: baselines that a world model must beat."""
