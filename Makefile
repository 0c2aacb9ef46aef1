# make demo    watch the system at work (ARGS="--tasks 60 --summary figures.json")
# make test    all tests, on all cores (ARGS="tests/policies -k rule": in one process, where debuggers work)
# make lint    style, types, import rules
# make check   lint and test
# make docs    the pages that are made from the code
# make venv    only make the environment
# make clean   remove the environment and what runs have written
#
# Each makes .venv first if it is missing, with everything in it. Needs Python 3.11 or newer, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test lint check docs venv clean

demo: $(INSTALLED)
	$(BIN)/splitplace demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

docs: $(INSTALLED)
	$(BIN)/splitplace asyncapi > docs/asyncapi.json
	$(BIN)/splitplace asyncapi --markdown > docs/topics.md

venv: $(INSTALLED)

clean:
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("SplitPlace needs Python 3.11 or newer; this is %d.%d (make PYTHON=...)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	touch $@
