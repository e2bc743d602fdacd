# Everything a fresh machine needs, in two commands: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help install demo test lint types unit faults clean
help:
	@echo "make demo   set up .venv, run the ablation sweep at the smoke budget, evaluate its best policy"
	@echo "make test   set up .venv, lint, check types, run the tests"
	@echo "make faults run what docs/RELIABILITY.md promises: kills, full disks, torn files, bad input"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python must be 3.11 or newer, got: $$($(PYTHON) --version); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

# DATA=PATH takes demonstrations from elsewhere: make demo DATA=path/to/pusht_cchi_v7_replay.zarr
demo: $(STAMP)
	$(BIN)/python run_sweep.py search_spaces/ablations.yaml --budget smoke --yes $(if $(DATA),--data $(DATA))
	$(BIN)/python run_eval.py --ckpt best --sweep ablations-smoke --seeds 100
	$(BIN)/python -m harness.results show ablations-smoke

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# What starts Ray or kills processes runs alone afterwards: its deadlines are real ones.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not ray and not faults"
	$(BIN)/python -m pytest -m "ray or faults"

faults: $(STAMP)
	$(BIN)/python -m pytest -m "faults or bad_input"

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
