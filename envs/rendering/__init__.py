"""Drawing pictures of environments."""
