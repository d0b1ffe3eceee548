# Everything a fresh machine needs to run and test Baton: Python >= 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(shell find protos -name '*.proto') protos/compile.py

# Everything that is fetched stays in the checkout; nothing of it is needed in anybody's home.
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip

# Where Python is told to keep no bytecode, each process of Baton, and of the suite, would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check protos openapi lock migrate clean
.DEFAULT_GOAL := help

help: ## what there is to make
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

run: $(VENV)/.run gen/.stamp ## set up and start all of Baton on this machine; DB=postgres for an embedded PostgreSQL
	@DB="$(DB)" exec $(BIN)/python -m services

test: $(VENV)/.dev gen/.stamp ## the whole suite; brings its own PostgreSQL and Valkey
	$(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder

check: $(VENV)/.dev gen/.stamp ## contracts, style, types and boundaries
	$(BIN)/buf lint gen/baton/descriptors.binpb
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python protos/breaking.py
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

protos: gen/.stamp ## build the stubs into gen/

openapi: gen/.stamp ## write docs/openapi.yaml anew after a change of the contracts
	$(BIN)/python -m services.gateway.openapi > docs/openapi.yaml

migrate: $(VENV)/.run gen/.stamp ## bring the databases of DATABASE_URL, or of the home, up to date
	$(BIN)/python -m migrations upgrade

lock: $(VENV)/.run ## write the lock files anew
	UV=$(BIN)/uv sh requirements/lock.sh

clean: ## remove what was built; the home stays
	rm -rf $(VENV) .cache gen .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache

$(BIN)/uv: requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Baton needs Python 3.11 or newer, and this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/bootstrap.lock
	@touch $@

$(VENV)/.run: $(BIN)/uv requirements/run.lock pyproject.toml
	$(BIN)/uv pip install --quiet --python $(VENV) --no-deps --require-hashes --compile-bytecode -r requirements/run.lock
	@mkdir -p gen
	$(BIN)/uv pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	$(BIN)/uv pip install --quiet --python $(VENV) --no-deps --require-hashes -r requirements/dev.lock
	@touch $@

gen/.stamp: $(VENV)/.run $(PROTOS)
	$(BIN)/python protos/compile.py
	@touch $@
