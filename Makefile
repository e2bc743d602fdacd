# Everything a fresh machine needs, in two commands: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOWEST := .venv-lowest

WORKERS ?= 2

.PHONY: help install demo test test-all test-lowest lint types fast all faults clean
help:
	@echo "make demo   set up .venv, run the ablation sweep at the smoke budget, evaluate its best policy"
	@echo "make test   set up .venv, lint, check types, run the fast tests: ten minutes on two cores"
	@echo "make test-all  also the slow tests, and some with every dependency at its lowest version"
	@echo "make faults the tests of docs/RELIABILITY.md: kills, full disks, cut files, bad input"

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

test: lint types fast

test-all: lint types all test-lowest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# One worker runs what starts Ray, one test after the other; the others run the rest beside it.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

fast: $(STAMP)
	$(PYTEST) -m "not slow"

all: $(STAMP)
	$(PYTEST)

# What the dependencies are used for, with each of them at the lowest version that is allowed.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" \
		--ignore tests/harness/page/test_page_browser.py tests/envs tests/harness tests/ibc

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

faults: $(STAMP)
	$(PYTEST) -m "faults or bad_input"

clean:
	rm -rf $(VENV) $(LOWEST) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
