# Needs python3 (3.11 or newer), make and a package registry; everything else is installed into .venv.
# The first of these that runs and is new enough makes the environment; override with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EVENTS ?= 20000
KILLS ?= 100
SEED ?= 1
ALONE := not kafka and not chaos
FAST := $(ALONE) and not slow

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint fast chaos cluster proxy sim fuzz bench lock docs clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: $(INSTALLED) ## Make .venv with the locked requirements (the other targets do it when needed)

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer with the venv module was found; install one or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (about a minute, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED) ## Run the supply chain on a real Kafka (EVENTS=20000)
	@$(BIN)/choreo demo supply_chain --events $(EVENTS)

lint: $(INSTALLED) ## Ruff, mypy --strict, import layers
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fast: $(INSTALLED) ## The tests that need no broker
	@$(BIN)/pytest -m "$(FAST)" -n 2

check: lint fast ## Linters and fast tests (at most 90 s)

test: lint ## Everything, on a real Kafka
	@$(BIN)/pytest -m "$(ALONE)" -n 2
	@$(BIN)/pytest -m "not ($(ALONE))" --durations=15

fuzz: $(INSTALLED) ## Hostile input for every reader (TARGET="avro keys" RUNS=20000 MINUTES= SEED=1 RESUME=1 CASE=file)
	@$(BIN)/python -m tests.fuzz $(if $(TARGET),--target "$(TARGET)") $(if $(RUNS),--runs $(RUNS)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(RESUME),--resume) $(if $(CASE),--case $(CASE))

sim: $(INSTALLED) ## Simulated worlds and every fault point into build/sim.json (SEEDS=0-20000 or COUNT=2000; RESUME=1 JOBS=1)
	@$(BIN)/python -m tests.kernel.sim $(if $(SEEDS),--seeds $(SEEDS)) $(if $(COUNT),--count $(COUNT)) \
		$(if $(RESUME),--resume) $(if $(JOBS),--jobs $(JOBS))

chaos: $(INSTALLED) ## The bank under faults into build/chaos.json (KILLS=100 SEED=1 NODES=1 MINUTES=; RESUME=1 goes on; ROUND=n again)
	@$(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(RESUME),--resume) $(if $(ROUND),--round $(ROUND)) $(if $(NODES),--nodes $(NODES))

cluster: $(INSTALLED) ## Three brokers: kills, restarts, pauses, min.isr lost; into build/cluster.json (ROUNDS=1 SEED=1)
	@$(BIN)/python -m tests.cluster $(if $(ROUNDS),--rounds $(ROUNDS)) --seed $(SEED)

proxy: $(INSTALLED) ## Requests lost, late and cut off on their way, into build/proxy.json (FAULTS=300 SEED=1)
	@$(BIN)/python -m tests.proxy $(if $(FAULTS),--faults $(FAULTS)) --seed $(SEED)

bench: $(INSTALLED) ## Figures against a raw loop into build/bench.json (QUICK=1: ten minutes; RESUME=1 goes on; ONLY="NAME ...")
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(RESUME),--resume) $(if $(ONLY),--only $(ONLY))

docs: $(INSTALLED) ## Write the generated pages anew
	@$(BIN)/python docs/generate.py

lock: $(INSTALLED) ## Choose versions anew and write requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra demo --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock
	@$(BIN)/uv pip compile tests/fuzz/requirements.in --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o tests/fuzz/requirements.lock

clean: ## Remove what can be made again (not the downloaded Kafka)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
