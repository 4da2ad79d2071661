# Everything a clone needs, with Python 3.11 (or newer) and make alone. Each target may be run again at any time:
# the stamps in .venv and build say what is installed already.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
CONSTRAINTS ?= constraints.txt
HOME_DIR ?= data
PYTEST_ARGS ?=

BIN := .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
PACKAGES := bcdb consensus query
CODE := $(PACKAGES) tests benchmarks docker

.PHONY: run engine test lint format bench npm clean help
.DEFAULT_GOAL := help

help:
	@echo "make run     a node with everything in it, at http://localhost:9984"
	@echo "make engine  CometBFT, for a network of nodes: built once for this user, Go included if there is none"
	@echo "make test    all tests, and first whatever they need (PYTEST_ARGS=... to choose)"
	@echo "make lint    style, format and types"
	@echo "make format  put the code into the project's format"
	@echo "make npm     put the BigchainDB driver for Node.js into build/npm"
	@echo "make bench   the benchmarks of benchmarks/README.md"
	@echo "make clean   remove what these made, except the ledger in data/"

run: .venv/.run-stamp
	@exec $(BIN)/bcdb start --home $(HOME_DIR)

engine: .venv/.run-stamp
	@$(PIP_INSTALL) --editable '.[engine]'
	@$(BIN)/bcdb engine install

test: .venv/.dev-stamp
	@$(BIN)/python -m tests.support.nodejs
	@$(BIN)/python -m tests.support.cometbft
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

npm: .venv/.dev-stamp
	@$(BIN)/python -m tests.support.nodejs

lint: .venv/.dev-stamp
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE) || (echo "run 'make format'"; exit 1)
	@$(BIN)/mypy --strict $(PACKAGES)

format: .venv/.dev-stamp
	@$(BIN)/ruff check --fix --quiet $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)

bench: .venv/.dev-stamp
	@$(BIN)/python -m pytest benchmarks --benchmark-only $(PYTEST_ARGS)
	@$(BIN)/python -m benchmarks.load
	@$(BIN)/python -m benchmarks.query
	@GOMAXPROCS=1 $(BIN)/python -m benchmarks.cluster

clean:
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

.venv/.python-stamp:
	@test -n "$(PYTHON)" || (echo "Python 3.11 or newer is needed and was not found; name one: make PYTHON=/path/to/python3"; exit 1)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "$(PYTHON) is too old: Python 3.11 or newer is needed"; exit 1)
	@test -x $(BIN)/python || (echo "making .venv" && $(PYTHON) -m venv .venv)
	@touch $@

.venv/.run-stamp: .venv/.python-stamp pyproject.toml $(CONSTRAINTS)
	@echo "installing bcdb into .venv (once)"
	@$(PIP_INSTALL) --editable .
	@touch $@

.venv/.dev-stamp: .venv/.python-stamp pyproject.toml $(CONSTRAINTS)
	@echo "installing bcdb and what its tests need into .venv (once)"
	@$(PIP_INSTALL) --editable '.[dev,mongo,engine]'
	@touch $@ .venv/.run-stamp
