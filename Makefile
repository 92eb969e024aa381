# `make demo` and `make test` set up everything they need in .venv on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup demo test test-kernels test-browser browser lint ci clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/.runs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	# torch first and by itself: asked for as a dependency, pip may choose a build with gigabytes of CUDA.
	$(BIN)/pip install --quiet "$$(grep -E '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

.venv/.tests: .venv/.runs tests/oracles.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,train]'
	# Beside the packages and not among them: one of these brings a top-level package `models`, which would hide ours.
	$(BIN)/pip install --quiet --no-deps --upgrade --target .venv/oracles -r tests/oracles.txt
	touch $@

setup: .venv/.tests  ## make .venv with everything that demo, test and lint need

demo: .venv/.runs  ## run the jobs on embedded data with embedded tiny checkpoints; leaves demo_output/
	$(BIN)/triptych demo

# Several processes, since most tests have one thread's work; Ray's share one Ray and must not.
test: setup  ## the default tests: fast, no Ray
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

test-kernels: setup  ## the promises of models and runs on other CPUs, as far as this one can act them
	$(BIN)/pytest -m kernels

browser:  ## install Chromium, where there is none (Debian and Ubuntu; elsewhere install it by hand)
	command -v chromium || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends chromium; }

test-browser: setup browser  ## the pages, in headless Chromium
	$(BIN)/pytest -m browser

lint: setup  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ci: setup  ## what .ci/run does
	bash .ci/run

clean:  ## remove .venv and outputs
	rm -rf .venv demo_output output
