# Targets with a description after ## appear in `make help`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := demo
# `make test COVERAGE=` runs the tests without measuring.
COVERAGE ?= --cov --cov-report=term:skip-covered

.DEFAULT_GOAL := help
.PHONY: help install demo test lint mutate bench docs docs-tables clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' | \
		while IFS='|' read -r target text; do printf '%-18s %s\n' "$$target" "$$text"; done

install: $(VENV)/installed  ## create the virtual environment and install privbench with its development tools

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "privbench needs Python 3.11 or newer: run make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install  ## run one defense, the undefended target and a placebo under one attack on embedded data, and write a report
	$(BIN)/privbench run --dataset digits --defense none --defense bido_hsic --attack kedmi --budget quick \
		--store $(DEMO)/store --results $(DEMO)/results
	$(BIN)/privbench report $(DEMO)/results --format html

# Two workers and the processes that they start share the cores: each uses one thread.
test: install  ## run the default test suite and print its line coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(COVERAGE)

lint: install  ## check formatting, lint rules and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_types.py

mutate: install  ## plant mistakes in the code one at a time and write to docs/reliability.md which ones the tests notice
	$(BIN)/python tests/slow/mutation/mutate.py --write docs/reliability.md

bench: install  ## measure timings and write them to docs/performance.md
	$(BIN)/python tests/slow/performance/bench.py --write docs/performance.md

docs: install  ## build the documentation site in site/
	$(BIN)/mkdocs build --strict --quiet

docs-tables: install  ## write the generated tables and pages in docs/
	$(BIN)/python docs/hooks/write_tables.py

clean:  ## delete the virtual environment, the demo and all caches
	rm -rf $(VENV) $(DEMO) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
