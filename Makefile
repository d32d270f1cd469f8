# make demo    predict and relax real crystals
# make test    style, layers, tests
# make lint    all style checks and types
# make venv    what the others need, in .venv

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
READY := $(VENV)/.ready

# Crystals are small: more than two threads slow them down, and tests run two at a time.
export OMP_NUM_THREADS ?= 2
export MPLBACKEND ?= Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint venv clean

demo: $(READY)
	@$(BIN)/python workflows/demo.py

test: $(READY)
	@$(BIN)/ruff check --quiet
	@$(BIN)/lint-imports --no-logo
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

venv: $(READY)

# torch first and at one version: it is most of the download, and keeps when the rest changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing torch (1/2)"
	@$(BIN)/pip install -qq $$(grep '^torch==' constraints.txt)
	@echo "Installing the rest (2/2)"
	@$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
