# make demo and make test do everything on a machine that has Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes: none should compile the package anew

EXAMPLES := tests/live/examples tests/live/docs tests/live/reports
PATTERNS := tests/live/patterns
FAULTS := tests/live/faults
CAPACITY := tests/live/capacity
RUNS := tests/live/runs
COMPARISONS := tests/live/comparisons
COMMITS := tests/live/commits
RAY := tests/live/ray
RAY_OWN := tests/live/ray/test_own_cluster.py
PACKAGE := tests/live/package
TOGETHER := $(RUNS) $(PATTERNS) $(EXAMPLES) $(CAPACITY) $(COMPARISONS) $(COMMITS)
CHECKED := $(TOGETHER) $(FAULTS) $(RAY) $(PACKAGE)
HOUSE := tests/house
NIGHTLY := tests/nightly
ONE_BY_ONE := --dist loadgroup --no-loadscope-reorder  # the longest first, and tests that share a run together
RAY_BIN := .venv-ray/bin
RAY_STAMP := .venv-ray/.installed

.PHONY: demo test check together nightly runs patterns examples capacity comparisons commits faults ray ray-cluster ray-own package compat covered compiled lint docs pictures bench servers fuzz schemas protos clean

demo: $(STAMP)  ## train a model, record its performance, make it slower, see it caught
	$(BIN)/python examples/quickstart/demo.py

ifdef FAST
test: compiled  ## with FAST=1 the tests that start no process, in about a minute and a half
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not processes' $(CHECKED:%=--ignore=%) --ignore=$(NIGHTLY)
else
test: compiled  ## lint, types, layers, unit tests, and the live tests of what the package promises first, with branch coverage
	@$(MAKE) --no-print-directory --jobs 2 lint covered

covered: compiled  ## the tests of make test, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 6 --dist loadfile --no-loadscope-reorder $(CHECKED:%=--ignore=%) --ignore=$(NIGHTLY) --ignore=$(HOUSE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
endif

check: $(STAMP) $(RAY_STAMP)  ## all live tests that make test leaves out, the package, and two real servers
	@$(MAKE) --no-print-directory together faults
	@$(MAKE) --no-print-directory --jobs 2 ray-cluster ray-own servers package NAMES="fastapi mosec"

together: compiled  ## six parts of make check in one run: no worker waits for the last test of a part
	$(BIN)/python -m pytest -q -n 5 $(ONE_BY_ONE) $(TOGETHER)

ifdef QUICK
nightly: compiled  ## with QUICK=1 what starts no process: simulations, a few thousand random inputs
	ALL=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'nightly and not processes' tests/unit
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(NIGHTLY)
else
nightly: compiled $(RAY_STAMP)  ## the rarer variants of all tests, random inputs, other versions and plugins, all servers, all numbers
	ALL=1 $(BIN)/python -m pytest -q -n 4 --dist worksteal -m nightly --ignore=$(NIGHTLY) --ignore=$(RAY)
	ALL=1 $(RAY_BIN)/python -m pytest -q -m nightly $(RAY)
	@$(MAKE) --no-print-directory fuzz compat servers bench
endif

runs: compiled  ## whole runs of pytest with the plugin, with and without xdist: baselines, streams, interrupts, reports
	$(BIN)/python -m pytest -q -n 5 $(ONE_BY_ONE) $(RUNS)

patterns: compiled  ## every pattern, many compositions and all wires, really deployed and under load, beside what theory says
	$(BIN)/python -m pytest -q -n 4 $(ONE_BY_ONE) $(PATTERNS)

examples: compiled  ## every example and block of the documentation as a user runs them, and the pages in a real browser
	$(BIN)/python -m pytest -q -n 4 $(ONE_BY_ONE) $(EXAMPLES)

capacity: compiled  ## searches for the capacity of real services: NMRT, scaling, and loads beyond both
	$(BIN)/python -m pytest -q -n 5 --dist worksteal $(CAPACITY)

comparisons: compiled  ## whole runs beside other code: a revision, the commit of a baseline, another service
	$(BIN)/python -m pytest -q -n 5 $(ONE_BY_ONE) $(COMPARISONS)

commits: compiled  ## old commits, searched for the one that changed a metric
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(COMMITS)

faults: compiled  ## what goes wrong on purpose: nothing hangs, passes by dying or stays behind; with ALL=1 the rarer variants too
	ALL=$(ALL) $(BIN)/python -m pytest -q -n 6 --dist worksteal $(FAULTS)

ray: $(RAY_STAMP)  ## the tests that need Ray, on a cluster of three nodes on this machine
	@$(MAKE) --no-print-directory --jobs 2 ray-cluster ray-own

ray-cluster: $(RAY_STAMP)
	$(RAY_BIN)/python -m pytest -q $(RAY) --ignore=$(RAY_OWN)

ray-own: $(RAY_STAMP)  ## Rays that runs start themselves, beside the cluster
	$(RAY_BIN)/python -m pytest -q $(RAY_OWN)

compiled: $(STAMP)
	@$(BIN)/python -m compileall -q pytest_mlpatterns

lint: $(STAMP)  ## formatting, lint, types, layers, and the rules of CONTRIBUTING that can be read from the code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q $(HOUSE)

package:  ## the sdist and the wheel, in dist: reproducible, checked, and used from an empty environment
	PYTHON=$(PYTHON) bash .ci/package

pictures: $(STAMP)  ## the pictures of README and documentation, of declared results; needs Chromium
	PYTHONPATH=tests $(BIN)/python -m support.pictures docs/images

compat:  ## other versions of Python and pytest, and 30 neighbours, in an environment each; with NAME=flaky one, FRESH=1 all anew
	$(PYTHON) tests/nightly/compat/run.py $(if $(NAME),"$(NAME)")

docs: $(STAMP)  ## the site of the documentation, in docs/_build; warnings are errors
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build
	@echo 'open docs/_build/index.html'

bench: $(STAMP)  ## the numbers of docs/explanation/speed.md, measured here beside public tools
	$(BIN)/python benchmarks/run.py

servers: $(STAMP)  ## the examples with real servers: each passes, slowed down it fails, nothing is left running; with NAMES="fastapi mosec" these
	$(BIN)/python benchmarks/real_servers.py $(NAMES)

CASES := 1000000
SEED = $(shell date +%s)

fuzz: compiled  ## a million random and mutated inputs, with CASES=20000 fewer, with SEED=13 the same ones again
	FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -q -n auto --dist worksteal tests/nightly/fuzz

schemas: $(STAMP)  ## write the JSON Schemas of the files from the types that read them
	cd tests && $(CURDIR)/$(BIN)/python -m support.file_schemas

protos: $(STAMP)  ## compile the .proto files into the descriptor set that the package ships
	cd pytest_mlpatterns/wire && $(CURDIR)/$(BIN)/python -m grpc_tools.protoc -I. --descriptor_set_out=descriptors.binpb *.proto

clean:
	rm -rf dist docs/_build .venv .venv-ray .compat .coverage .coverage.* .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $(STAMP)

$(RAY_STAMP): pyproject.toml
	$(PYTHON) -m venv .venv-ray
	$(RAY_BIN)/python -m pip install --quiet --upgrade pip
	$(RAY_BIN)/python -m pip install --quiet --editable '.[test,ray]'
	touch $(RAY_STAMP)
