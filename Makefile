# The verbs of this project. Plain `make` lists them.
#
#   make test TESTS=tests/ledger/test_clock.py      some tests only
#   make demo INPUT=PATH                            FHIR files instead of generated prescriptions
#   make setup PYTHON=python3.13                    another Python (3.11 or newer)

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
# The tool that writes the locks; needed only by `make lock`.
LOCKER := uv==0.13.9
JOBS ?= 2
TESTS ?=
MINUTES ?= 10
SEED ?=
SEEDS ?= 200
# Runs of a night, other ones every day.
NIGHT_SEEDS ?= 10000
INPUT ?=

# Prints how long the verb took, whether it succeeded or not.
TIMED = started=$$(date +%s); trap 'echo "make $@: $$(( $$(date +%s) - started )) s"' EXIT; set -eo pipefail;

.PHONY: help
help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

.PHONY: setup
setup: $(VENV)/installed ## make .venv with everything pinned and hash-checked
	@echo "ready: $$($(BIN)/python -V), $$($(BIN)/rxledger --version 2>/dev/null || echo rxledger)"

# An empty .venv first, so that what an older lock brought in cannot linger.
$(VENV)/locked: $(LOCK)
	@started=$$(date +%s); set -e; \
	python=; for candidate in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "no Python 3.11 or newer with venv was found; give one: make setup PYTHON=..." >&2; exit 1; fi; \
	"$$python" -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(LOCK); \
	touch $@; echo "setup: $$(( $$(date +%s) - started )) s"

$(VENV)/installed: $(VENV)/locked pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation -e . && touch $@

.PHONY: demo
demo: $(VENV)/installed ## the main job on this machine, under 20 s (INPUT=PATH: your FHIR files)
	@$(TIMED) $(BIN)/rxledger demo $(if $(INPUT),--input "$(INPUT)")

.PHONY: demo-nats
demo-nats: $(VENV)/installed ## an outage on real servers and processes, under 60 s
	@$(TIMED) $(BIN)/rxledger demo-nats

.PHONY: test
test: $(VENV)/installed ## all tests but the nightly ones (TESTS=path: some)
	@$(TIMED) $(BIN)/python -m pytest -n $(JOBS) $(TESTS)

.PHONY: check
check: $(VENV)/installed ## format, lint, types, schemas, house rules
	@$(TIMED) failed=; try() { echo "· $$*"; "$$@" || failed="$$failed $$1"; }; \
	try $(BIN)/ruff format --check --output-format concise .; \
	try $(BIN)/ruff check --output-format concise .; \
	try $(BIN)/mypy; \
	if [ -f scripts/schemas.py ]; then try $(BIN)/python scripts/schemas.py --check; fi; \
	try $(BIN)/python -m pytest -q tests/test_tidy.py; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

.PHONY: format
format: $(VENV)/installed ## put imports and layout in order
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/installed ## speed, each figure against its floor in the same run
	@$(TIMED) $(BIN)/python -m benchmarks.run

.PHONY: sim
sim: $(VENV)/installed ## a simulated realm (SEED=n repeats one run)
	@$(TIMED) PYTHONHASHSEED=0 $(BIN)/python -m simulations $(if $(SEED),--seed $(SEED))

.PHONY: sim-swarm
sim-swarm: $(VENV)/installed ## 200 simulated realms, under 90 s (SEEDS=n: as many)
	@$(TIMED) PYTHONHASHSEED=0 $(BIN)/python -m simulations --swarm $(SEEDS) --jobs $(JOBS)

.PHONY: fuzz
fuzz: $(VENV)/installed ## hostile bytes against every decoder (MINUTES=10)
	@$(TIMED) $(BIN)/python scripts/fuzz.py --minutes $(MINUTES)

.PHONY: nightly
nightly: $(VENV)/installed ## the long tests, the fuzzer, and the tests on a second Python if there is one
	@$(TIMED) \
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n $(JOBS) -m "nightly or not nightly"; \
	$(BIN)/python scripts/fuzz.py --minutes $(MINUTES); \
	PYTHONHASHSEED=1 $(BIN)/python -m simulations --swarm $(NIGHT_SEEDS) --first $$(( $$(date +%s) / 86400 * 100000 )) --jobs $(JOBS); \
	mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for other in 3.13 3.12 3.11; do \
	  if [ $$other != $$mine ] && python$$other -c 'import venv, ensurepip' 2>/dev/null; then \
	    $(MAKE) test VENV=.venv-$$other PYTHON=python$$other; exit; \
	  fi; \
	done; \
	echo "no second Python found: tested on $$mine only"

.PHONY: docs
docs: $(VENV)/installed ## reference pages of all modules, into build/docs
	@$(TIMED) mkdir -p build/docs; cd build/docs; \
	../../$(BIN)/python -m pydoc -w $$(cd ../.. && find ledger nodes simulations -name '*.py' ! -name '__main__.py' | sed 's,/__init__\.py$$,,; s,\.py$$,,; s,/,.,g' | sort) > /dev/null; \
	echo "build/docs/ledger.html"

.PHONY: schemas
schemas: $(VENV)/installed ## write schemas/ anew from the code
	@$(TIMED) $(BIN)/python scripts/schemas.py

.PHONY: lock
lock: ## write requirements/*.txt anew from pyproject.toml (needs the package index)
	@$(TIMED) python3 -m venv --clear build/lock; \
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check $(LOCKER); \
	compile="build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate"; \
	$$compile pyproject.toml -o requirements/runtime.txt; \
	$$compile pyproject.toml --group dev -o requirements/dev.txt

.PHONY: clean
clean: ## remove everything that the verbs made, .venv too
	@rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
	@find ledger nodes simulations scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
