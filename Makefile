# Everything a newcomer, a developer or a CI machine runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# Tools that the distribution ships only inside larger packages are unpacked here.
export PATH := $(CURDIR)/.cache/bin:$(PATH)

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q

##@ Two commands to know

.PHONY: demo
demo: ## A container, from nothing, explained as it runs; leaves nothing behind (root)
	@scripts/system-packages.sh demo
	@scripts/venv.sh runtime
	@scripts/demo.sh

.PHONY: test
test: packages check ## All checks, and all tests but vm and fuzz, from a fresh clone (root)
	$(PYTEST) tests/unit tests/golden tests/kernel
	$(PYTEST) tests/integration tests/conformance

##@ Development

.PHONY: venv
venv: ## Make or refresh .venv (the newest Python from 3.11 to 3.13)
	@scripts/venv.sh dev

.PHONY: packages
packages:
	@scripts/system-packages.sh test

.PHONY: check
check: venv ## Lint, format, types, import contract, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

.PHONY: fmt
fmt: venv ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: test-unit
test-unit: packages venv ## The tests that need no privilege (root: to install what they need)
	$(PYTEST) tests/unit tests/golden

.PHONY: test-kernel
test-kernel: packages venv ## The tests of our kernel interfaces (root)
	$(PYTEST) tests/kernel

.PHONY: test-daemon
test-daemon: packages venv ## caisd through its API, the docker CLI and docker-py (root)
	$(PYTEST) tests/integration tests/conformance

.PHONY: test-round-trips
test-round-trips: packages venv ## 1,000 random trees to layers and back (CAIS_ROUND_TRIPS=n: fewer) (root)
	CAIS_ROUND_TRIPS=$${CAIS_ROUND_TRIPS:-1000} $(PYTEST) tests/kernel/images/test_layer_round_trips.py

.PHONY: test-vm
test-vm: venv ## The tests that need a kernel of their own, in virtual machines (root)
	@scripts/system-packages.sh vm
	$(PYTEST) -rA tests/vm

.PHONY: test-vm-quick
test-vm-quick: venv ## The most telling of them (root)
	@scripts/system-packages.sh vm
	CAIS_VM=quick $(PYTEST) -rA tests/vm

.PHONY: fuzz
fuzz: packages venv ## 100,000 broken config.json documents (CAIS_FUZZ_DOCUMENTS=n: fewer) (root)
	CAIS_FUZZ_DOCUMENTS=$${CAIS_FUZZ_DOCUMENTS:-100000} $(PYTEST) tests/fuzz

##@ Measuring

.PHONY: bench
bench: packages venv ## Cais beside dockerd (to be installed), runc and crun; writes docs/benchmarks.md (root)
	$(BIN)/python -m bench

.PHONY: bench-quick
bench-quick: packages venv ## The same rows, few repetitions, nothing written (root)
	$(BIN)/python -m bench --quick

##@ Other

.PHONY: clean
clean: ## Remove everything made here (not system packages)
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
