# Everything a developer does here; `make` alone lists it.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := vuemantics_pipeline vuemantics_pipeline_tests benchmarks

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# `make setup PYTHON=/path/to/python` chooses one; the lock holds for each of them.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,\
	$(shell $(python) -c '$(SUPPORTED)' 2>/dev/null && echo $(python))))

PIP := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check \
	--progress-bar off --no-deps --no-compile
FROM_LOCK := --require-hashes --requirement

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak corpus check lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make .venv with the locked packages and this project in it

# The lock's own pip goes first: it installs twice as fast as the one Python 3.11 brings along.
# Bytecode is compiled here because Dagster imports everything afresh for every run; tests and
# tools for development are left out of that.
$(STAMP): requirements.lock pyproject.toml
	@$(if $(PYTHON),,echo "No Python from 3.11 to 3.13 was found. Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1;) \
	"$(PYTHON)" -c '$(SUPPORTED)' || { echo "$(PYTHON) is not a Python from 3.11 to 3.13." >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON); this takes about a minute."
	@"$(PYTHON)" -m venv --clear $(VENV)
	@sed -n '/^pip==/,/# via/p' requirements.lock | $(PIP) $(FROM_LOCK) /dev/stdin
	@$(PIP) $(FROM_LOCK) requirements.lock
	@$(PIP) --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 -x '/(tests|mypy|pip|setuptools)/' $(VENV)/lib vuemantics_pipeline
	@touch $@

demo: setup ## Process sample photos and show them live: PHOTOS=/my/folder for your own, ONCE=1 to leave when done
	@exec $(BIN)/vuemantics demo --home .home $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(ONCE),--once)

test: setup ## Run all tests
	@tools/install-debian-packages chromium redis-server
	@tools/run-tests

soak: setup ## Kill workers 5,000 times at random moments
	VUEMANTICS_FAULT_KILLS=5000 $(BIN)/python -m pytest -s vuemantics_pipeline_tests/faults/test_random_kills.py

corpus: setup ## Feed broken and hostile files of other projects to the pipeline
	$(BIN)/python -m vuemantics_pipeline_tests.corpus

check: setup ## Lint, format, types, and whether Dagster can load the definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@mkdir -p $(VENV)/dagster && touch $(VENV)/dagster/dagster.yaml
	DAGSTER_HOME=$(abspath $(VENV)/dagster) DAGSTER_DISABLE_TELEMETRY=1 \
		$(BIN)/dagster definitions validate -m vuemantics_pipeline.definitions

lock: setup ## Pin every package anew, for all supported systems and Pythons
	$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	$(BIN)/uv pip compile --quiet --upgrade --universal --fork-strategy fewest --python-version 3.11 \
		--all-extras --generate-hashes \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

clean: ## Remove what the other targets made, the demo's data included
	rm -rf $(VENV) .home build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard $(PACKAGES)) -name __pycache__ -type d -prune -exec rm -rf {} +
