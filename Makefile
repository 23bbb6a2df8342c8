# Two environments: .venv holds the plain wheel (demo, test, lint, CI: what users get), .venv-dev an editable
# install for working on the code. Why: docs/decisions/0001-folders-at-the-top.md
#
# Every target sets up what it needs. Options: PYTHON=python3.12  DIR=demo-data  ARGS="-k switch -x"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test torture simulate bench lint format dev clean ci

PYTHON ?=
DIR ?=
ARGS ?=
SEEDS ?= 10000
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3)
FOLDERS := engine actors storage model service
BIN := .venv/bin
PIP_FLAGS := --quiet --no-input --disable-pip-version-check

# Folders are listed, too: a deleted module changes the time of its folder, and must vanish from the install.
SOURCES := pyproject.toml README.md LICENSE $(shell find $(FOLDERS) -name __pycache__ -prune -o -print)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed-cli ## the whole story on real files (DIR=where, else a temporary folder)
	@$(BIN)/shadowswitch demo $(DIR)
	@$(BIN)/shadowswitch demo --branches --max-files 2000 --seconds 12 $(DIR)

test: .venv/.installed-dev ## all tests except the long ones, two files at a time (ARGS="-k name", ARGS="-n 0")
	$(BIN)/pytest -m "not torture" -n 2 --dist loadfile $(ARGS)

torture: .venv/.installed-dev ## the long tests: many kills, many schedules; three at a time, two hours
	$(BIN)/pytest -m torture -n 3 --dist load $(ARGS)

simulate: .venv/.installed-dev ## random schedules by seed (SEEDS=100000, or one with its trace: SEED=4711)
ifdef SEED
	$(BIN)/python -m tests.simulation.runs --seed $(SEED) $(ARGS)
else
	SEEDS=$(SEEDS) $(BIN)/pytest -s tests/simulation/test_simulation.py -k ten_thousand_seeds $(ARGS)
endif

bench: .venv/.installed-bench ## every benchmark and the simulation at full size, up to 150 minutes (ARGS="--only switch")
	$(BIN)/python -m benchmarks.run $(ARGS)

lint: .venv/.installed-dev ## ruff, its formatter as a check, mypy --strict
	@status=0; for check in "ruff check ." "ruff format --check ." "mypy"; do \
	  echo "== $$check"; $(BIN)/$$check || status=1; done; exit $$status

format: .venv/.installed-dev ## let ruff repair and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dev: .venv-dev/.made ## editable install in .venv-dev; again after adding a module
	.venv-dev/bin/python -m pip install $(PIP_FLAGS) --config-settings editable_mode=strict --editable '.[dev]'
	@echo "now: . .venv-dev/bin/activate"

ci: ## what CI runs
	bash .ci/run

clean: ## remove everything that make made
	rm -rf .venv .venv-dev build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(FOLDERS) $(wildcard tests benchmarks) -name __pycache__ -prune -exec rm -rf {} +

# setuptools ships every file in build/lib, deleted modules too. build/__editable__* belongs to `make dev` and stays.
define install
@echo "installing .[$(1)] into .venv"
@rm -rf build/lib build/bdist.*
@$(BIN)/python -m pip install $(PIP_FLAGS) '.[$(1)]'
endef

.venv/.installed-cli: $(SOURCES) | .venv/.made
	$(call install,cli)
	@touch $@

.venv/.installed-dev: $(SOURCES) | .venv/.made
	$(call install,dev)
	@$(BIN)/python -m pip install $(PIP_FLAGS) '.[korean]' || echo "kiwipiepy cannot be installed here: the tests that need it are skipped"
	@$(BIN)/python -m pip install $(PIP_FLAGS) '.[wordllama]' || echo "wordllama cannot be installed here: the test that needs it is skipped"
	@touch .venv/.installed-cli $@

# Tantivy is a contender of the benchmarks. Without it they measure the others.
.venv/.installed-bench: .venv/.installed-dev
	@$(BIN)/python -m pip install $(PIP_FLAGS) '.[bench]' || echo "Tantivy cannot be installed here: the benchmarks go on without it"
	@touch $@

# A source may vanish after the listing: no error.
$(SOURCES): ;

# A Python counts only if it runs: a pyenv shim may stand for a version that is not installed.
define PROBE
import sys
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
try:
    import sqlite3
    sqlite3.connect(":memory:").execute("CREATE VIRTUAL TABLE probe USING fts5(body)")
except Exception as error:
    sys.exit("has no SQLite with FTS5: %s" % error)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("cannot make an environment; on Debian and Ubuntu: apt-get install python3-venv")
endef
export PROBE

.venv/.made .venv-dev/.made:
	@for python in $(CANDIDATES); do \
	  if refusal=$$("$$python" -c "$$PROBE" 2>&1); then \
	    echo "making $(@D) with $$python"; \
	    "$$python" -m venv --clear $(@D) && touch $@; exit; \
	  fi; \
	  tried="$$tried  $$python: $$(printf '%s\n' "$$refusal" | head -n 1)\n"; \
	done; \
	printf "shadowswitch needs Python 3.11 or newer with venv, and SQLite with FTS5. Tried:\n$$tried" >&2; \
	echo "Install one (Debian and Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
