"""Data of world models."""
