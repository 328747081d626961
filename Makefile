# make demo      a real sweep on the bundled base and data, from nothing (installs into .venv)
# make check     lint, types and the tests that need neither Ray nor a sweep: before every commit
# make test      lint, types and the CPU test suite: what CI runs
# make test-all  the rest, one line a test: the same facts with more seeds and more kills
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# two at once, each of which prints when it has ended
TWO := $(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target

.PHONY: demo check test test-all lint tests-quick tests-ray tests-no-ray clean

demo: $(INSTALLED)
	$(BIN)/python sweeps/lr_batch.py --demo

check: $(INSTALLED)
	@$(TWO) lint tests-quick

test: $(INSTALLED)
	@$(TWO) lint tests-ray tests-no-ray

test-all: $(INSTALLED)
	$(PYTEST) -m "exhaustive and not gpu" -v

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

tests-quick: $(INSTALLED)
	$(PYTEST) -m "not gpu and not exhaustive and not ray and not slow"

tests-ray: $(INSTALLED)
	$(PYTEST) -m "not gpu and not exhaustive and ray"

tests-no-ray: $(INSTALLED)
	$(PYTEST) -m "not gpu and not exhaustive and not ray"

# torch first and pinned, so that nothing after it takes another build
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sftray needs Python 3.11 or newer; set PYTHON=")'
	@echo 'installing into $(VENV): 2.5 GB, mostly PyTorch; some minutes'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV)
