"""Where the data of world models come from."""
