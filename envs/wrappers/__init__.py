"""Wrappers: partial observation, pixels."""
