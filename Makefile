# Everyday commands; they use .venv where it exists.
BIN := $(if $(wildcard .venv/bin/python),.venv/bin/,)

.PHONY: test fast lint docs bench

test:   ## all tests
	$(BIN)python -m pytest -n 2

fast:   ## the tests without those marked slow
	$(BIN)python -m pytest -m "not slow" -n 2

lint:   ## style and types, as in continuous integration
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy -p rlkit

docs:   ## fills the tables and builds the pages into build/site (pip install "mkdocs>=1.6,<2")
	$(BIN)python runs/studies/render_tables.py --write
	$(BIN)mkdocs build --strict --site-dir build/site

bench:  ## the benchmarks that take minutes, on one thread
	$(BIN)python runs/bench/point_maze_speed.py
	$(BIN)python runs/bench/replay_speed.py
	$(BIN)python runs/bench/update_speed.py
