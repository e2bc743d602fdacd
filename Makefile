# Everything a fresh machine needs, in two commands: `make demo` and `make test`. Python compiles a
# module when it is first imported; pip would compile all 20,000 of them, for a minute.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOWEST := .venv-lowest

# The tests start Python a hundred times, each of which would compile torch, Ray and zarr anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-all test-lowest lint types fast all faults clean
help:
	@echo "make demo   set up .venv, answer two questions with real trainings, film the best policy"
	@echo "make test   set up .venv, lint, check types, run the fast tests on two cores"
	@echo "make test-all  also the slow tests, and some with every dependency at its lowest version"
	@echo "make faults the tests of docs/RELIABILITY.md: kills, full disks, cut files, bad input"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python must be 3.11 or newer, got: $$($(PYTHON) --version); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[test]'
	@touch $@

# DATA=PATH takes demonstrations from elsewhere: make demo DATA=path/to/pusht_cchi_v7_replay.zarr
demo: $(STAMP)
	$(BIN)/python run_sweep.py search_spaces/demo.yaml --yes $(if $(DATA),--data $(DATA))
	$(BIN)/python run_eval.py --ckpt best --sweep demo-standard --seeds 100 --video 1 --overlay energy
	$(BIN)/python -m harness.results report demo-standard
	@echo $(CURDIR)/results/demo-standard/report.html

# mypy runs beside the first minutes of the tests.
test: lint
	@$(MAKE) --no-print-directory --jobs 2 types fast

test-all: lint types all test-lowest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Three processes that end at about the same time: what starts Ray waits for other processes for most
# of its time, so one of them runs that, one test after the other. (Clusters of several nodes fail to
# start where two more do so.) The second runs SECOND, the third the rest; their output follows the
# third's. (Exit code 5: none of them is asked for.) At first, one process imports the large packages
# alone, or all three would compile them.
# Arguments: the environment, the marked tests, the folders, further options.
SECOND := tests/test_documented_commands.py tests/envs tests/faults tests/ibc
define beside
$(1)/bin/python -c "import hypothesis, optuna, pandas, ray.tune, scipy.stats, torch, zarr"; \
logs=$$(mktemp -d) && trap 'rm -rf "$$logs"' EXIT; export OMP_NUM_THREADS=1; \
	$(1)/bin/python -m pytest -m "ray and ($(2))" $(4) \
		$$(grep -rl --include 'test_*.py' 'mark\.ray\b' $(3) | sort) >"$$logs/ray" 2>&1 & ray=$$!; \
	($(1)/bin/python -m pytest -m "not ray and ($(2))" $(4) \
		$(if $(filter tests,$(3)),$(SECOND),$(filter $(SECOND),$(3))); \
		test $$? = 0 -o $$? = 5) >"$$logs/second" 2>&1 & second=$$!; \
	$(1)/bin/python -m pytest -m "not ray and ($(2))" $(4) $(3) $(SECOND:%=--ignore %); failed=$$?; \
	wait $$ray || failed=1; wait $$second || failed=1; cat "$$logs"/*; exit $$failed
endef

fast: $(STAMP)
	@$(call beside,$(VENV),not slow,tests)

all: $(STAMP)
	@$(call beside,$(VENV),slow or not slow,tests)

# What the dependencies are used for, with each of them at the lowest version that is allowed.
test-lowest: $(LOWEST)/.installed
	@$(call beside,$(LOWEST),not slow,tests/envs tests/harness tests/ibc,\
		--ignore tests/harness/page/test_page_browser.py)

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

faults: $(STAMP)
	@$(call beside,$(VENV),faults or bad_input,tests)

clean:
	rm -rf $(VENV) $(LOWEST) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
