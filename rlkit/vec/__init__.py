"""Vector environments, worker processes, and the state of environments."""
