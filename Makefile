# make demo   virtual environment, install, the main job on embedded data, HTML report
# make test   virtual environment, install, the default test suite
# make lint   formatting, lint and types
# make bench  timings into docs/performance.md
# make docs   the documentation site into site/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test lint bench docs install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "privbench needs Python 3.11 or newer; say make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/privbench run --dataset digits --defense none --defense bido_hsic --attack kedmi --budget quick \
		--store $(DEMO)/store --results $(DEMO)/results
	$(BIN)/privbench report $(DEMO)/results --format html

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_types.py

bench: install
	$(BIN)/python tests/slow/performance/bench.py --write docs/performance.md

docs: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(DEMO) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
