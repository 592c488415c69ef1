"""Files: atomic writes, archives of plain data, checkpoints."""
