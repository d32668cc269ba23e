PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Everything that is installed is pinned, including the build environments of pip and those of `make smoke`.
CONSTRAINTS := .ci/constraints.txt
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile
INPUTS := pyproject.toml $(wildcard $(CONSTRAINTS))

TESTS ?=
# More options for pytest.
MORE ?=
PYTEST := $(BIN)/python -m pytest -q -rs -n auto --dist worksteal $(MORE)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all test-long test-cluster newest programs renew-constraints lint docs links smoke bench bench-full bench-cluster pictures crash clean

help:  ## Print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/made:
	@echo "Making $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pqlog needs Python 3.11 or later: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) "pip>=25.1"
	@touch $@

$(VENV)/demo: $(INPUTS) | $(VENV)/made
	@echo "Installing what the demo needs"
	@$(PIP) --editable ".[demo]"
	@touch $@

$(VENV)/test: $(INPUTS) | $(VENV)/made
	@echo "Installing what the fast tests need"
	@$(PIP) --editable ".[cli,dask,notebook,pandas,polars,sql]" --group test
	@touch $@

$(VENV)/all: $(INPUTS) | $(VENV)/made
	@echo "Installing everything"
	@$(PIP) --editable ".[all]" --group dev
	@touch $@

demo: $(VENV)/demo  ## Real flights through a log, a process killed halfway, a picture
	@$(BIN)/python -m pqlog.demo

test: $(VENV)/test  ## The fast ring of tests; installs what it needs into .venv; TESTS=tests/unit for a part of it
	$(PYTEST) $(TESTS)
	@echo "Left out: the long ring (long searches, the browser, Redis, tmux, notebooks, recipes) and the Kafka cluster. Run them with: make test-all"

test-all: test-long test-cluster  ## All tests; installs programs with apt-get; a missing package or program is a failure

test-long: programs $(VENV)/all  ## Both rings of tests, without the cluster
	$(PYTEST) --all --nbmake

test-cluster: build/kafka $(VENV)/all  ## The tests on a Kafka cluster of three nodes, which it starts; TESTS=tests/cluster for a part
	@.ci/programs strace
	$(PYTEST) -n 3 --cluster $(or $(TESTS),tests/cluster tests/contract pqlog/store/kafka)

build/kafka: tests/cluster/pom.xml
	@.ci/programs java:default-jre-headless mvn:maven
	@echo "Laying the jars of a Kafka broker into $@"
	@rm -rf $@ $@.part
	@mvn -B -q -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$@.part
	@mv $@.part $@ && touch $@

programs:
	@.ci/programs chromium redis-server tmux

newest:  ## The tests that depend on other packages, with their newest versions instead of those in .ci/constraints.txt
	rm -rf build/newest
	$(MAKE) test VENV=build/newest CONSTRAINTS= TESTS="tests/unit tests/contract tests/frames tests/cli tests/notebook"

renew-constraints: $(VENV)/made  ## Pin the newest version of everything that make installs
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-annotate \
		--custom-compile-command "make renew-constraints" \
		--all-extras --group dev --group installer --output-file $(CONSTRAINTS) pyproject.toml

lint: $(VENV)/all  ## Lint, format check and strict type check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/all  ## Build the documentation into docs/_build/html; warnings and broken links are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html -c docs . docs/_build/html

links: $(VENV)/all  ## Check the external links of the documentation; needs the internet
	$(BIN)/sphinx-build --quiet -b linkcheck -c docs . docs/_build/links

smoke: $(VENV)/all  ## Build sdist and wheel, and try the wheel bare and with each extra
	$(BIN)/python -m tests.smoke

bench: $(VENV)/all  ## Measure the workloads that have a goal, and this disk (5 minutes)
	$(BIN)/python -m benchmarks goals --rounds 3

bench-full: $(VENV)/all  ## Measure everything: syncs, latency, other libraries, routes to pandas, stages (half an hour)
	$(BIN)/python -m benchmarks all --rounds 3 --large --results benchmarks/results

bench-cluster: $(VENV)/all build/kafka  ## Measure logs on a Kafka cluster, which it starts, beside plain Kafka clients
	$(BIN)/python -m benchmarks cluster --rounds 3 --results benchmarks/results

pictures: $(VENV)/all  ## Draw the pictures of docs/: diagrams, plots of the stored results, the explorer in Chromium
	$(BIN)/python -m benchmarks draw
	$(BIN)/python docs/pictures/draw.py
	$(BIN)/python -m docs.pictures.explorer

SECONDS ?= 600
crash: $(VENV)/all  ## Search at random for a power cut that breaks a promise, for SECONDS=600
	$(BIN)/python -m tests.simulation --seconds $(SECONDS)

clean:  ## Remove what the other targets created
	rm -rf $(VENV) build dist docs/_build docs/reference/generated docs/reference/commands.md
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis bench-*
