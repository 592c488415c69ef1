"""Parts for rlkit, one file each; `pyproject.toml` registers them by entry points."""
