# make bench   measure, print the answer, save the run and a page to look at under .benchmarks/
# make test    the properties
# make lint    style and types
# make gpu     on a machine with a GPU: its tests, the default run and what runs there alone, in ten minutes
# Each makes .venv on first use and reuses it afterwards. PYTHON=python3.12 chooses an interpreter.
PYTHON ?= python3
BIN := .venv/bin
# Two processes share the tests, and who has none left takes of the other's; ARGS="-n 0" runs them in one.
SHARED := -n 2 --dist worksteal

.PHONY: bench test lint gpu clean

bench: .venv/ready
	$(BIN)/python -m pytest bench --benchmark-autosave --report $(ARGS)

test: .venv/ready
	$(BIN)/python -m pytest tests $(SHARED) $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu: .venv/ready
	$(BIN)/python -m bench gpu $(ARGS)

# The stamp is written last, so an interrupted install is done again.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
