# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` both work from a bare clone; both begin with `make setup`.
.DEFAULT_GOAL := help
.PHONY: help setup build demo demo-day test check clean

VENV  := .venv
PY    := $(VENV)/bin/python
CORE  := CMakeLists.txt $(shell find csrc -type f 2>/dev/null)
# The editable install has a map of the packages: a new one is found after another install.
FOUND := $(shell find python sprout_ext -name __init__.py 2>/dev/null)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

# Two stamps, so that a change of C++ code costs a compile and not a look at every dependency.
setup: $(VENV)/.built  ## .venv, dependencies, compiled core, weights (seconds when nothing changed)

$(VENV)/.dependencies: pyproject.toml scripts/setup
	@scripts/setup

$(VENV)/.built: $(VENV)/.dependencies $(CORE) $(FOUND)
	@echo "setup: the compiled core"
	@$(PY) -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@$(PY) -m sprout.serve.weights
	@$(PY) -c "import sprout_ext; print('setup: compiled core', 'with CUDA' if sprout_ext.cuda_built() else 'without CUDA (no nvcc found): the CPU draws the same bits')"
	@touch $@

build: setup  ## compile the core again after a change in csrc/

demo: setup  ## the whole stack on this machine: real prompts, receipts, policy, comparison
	$(VENV)/bin/sprout demo

demo-day: setup  ## a day of a real grid in two minutes: the mix follows it, in one picture
	$(VENV)/bin/sprout demo --day

test: setup  ## every test that this machine can run
	$(PY) -m pytest

check: setup  ## formatting, lints and types, as CI does
	scripts/check

clean:  ## remove what the targets above made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
