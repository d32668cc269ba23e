PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help test lint docs links smoke demo bench bench-full pictures crash clean

help:  ## Print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	touch $@

test: $(VENV)/ready  ## Install everything into .venv and run all tests
	$(BIN)/python -m pytest

lint: $(VENV)/ready  ## Lint, format check and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/ready  ## Build the documentation into docs/_build/html; warnings and broken links are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html -c docs . docs/_build/html

links: $(VENV)/ready  ## Visit the links that lead out of the documentation; needs the internet
	$(BIN)/sphinx-build --quiet -b linkcheck -c docs . docs/_build/links

smoke: $(VENV)/ready  ## Build sdist and wheel, and try the wheel bare and with each extra
	$(BIN)/python -m tests.smoke

demo: $(VENV)/ready  ## Real flights through a log, a process killed half-way, a picture
	$(BIN)/python -m pqlog.demo

bench: $(VENV)/ready  ## Measure the workloads that have a goal, beside this disk's own speed (5 minutes)
	$(BIN)/python -m benchmarks goals --rounds 3

bench-full: $(VENV)/ready  ## Measure everything: syncs, latency, peers, routes to pandas, stages (half an hour)
	$(BIN)/python -m benchmarks all --rounds 3 --large --results benchmarks/results

pictures: $(VENV)/ready  ## Draw the pictures of docs/, also from the stored results
	$(BIN)/python -m benchmarks draw
	$(BIN)/python docs/pictures/draw.py

SECONDS ?= 600
crash: $(VENV)/ready  ## Search at random for a power cut that breaks a promise, for SECONDS=600
	$(BIN)/python -m tests.simulation --seconds $(SECONDS)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build dist docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis bench-*
