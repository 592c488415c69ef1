"""Files: atomic writes, serialisation of plain data, checkpoints and archives."""
