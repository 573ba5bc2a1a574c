# make help lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The checkout whose git history the demo embeds too.
REPO ?= $(CURDIR)
# Test files run at once.
WORKERS ?= 2
# The fault suite's plan, and how many faults it has.
SEED ?= 1
RUNS ?= 50
# Nothing of a demo or a test run is reported to anybody.
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help setup tools demo test faults lint format clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make .venv with everything in it; instant when it is up to date.

# torch comes first, so that its one big download is not repeated when a later requirement fails.
$(VENV)/.ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed. Install Python 3.11, or name one: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch, then the rest: a few minutes the first time."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable ".[dev]"
	@touch $@

tools: setup ## Get the programs that tests drive into .venv/tools; instant when they are there.
	@.ci/tools $(VENV)/tools

demo: setup ## Show everything once, on invented data and the history of REPO (this checkout).
	$(BIN)/rowbeam demo --repo "$(REPO)"

# A worker that dies ends the run: xdist deals its files out again, the finished ones too, and waits for ever.
test: setup ## Run all tests, two files at a time (WORKERS).
	@.ci/tools $(VENV)/tools || echo "Going on without."
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

faults: setup ## Break a running server 50 times in mid-work (SEED, RUNS), and count what is lost: nothing.
	$(BIN)/python -m tests.faults --seed $(SEED) --runs $(RUNS)

lint: setup ## Check style, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Put code into the house style.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Stop the embedded stack; delete .venv, .rowbeam and caches.
	-@test ! -x $(BIN)/rowbeam || $(BIN)/rowbeam down
	-@test ! -x $(BIN)/rowbeam || ROWBEAM_HOME=.rowbeam/demo $(BIN)/rowbeam down
	rm -rf $(VENV) .rowbeam build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
