"""The recipes that ship with the suite: one TOML file per experiment, run by `rlkit train NAME`."""
