# make demo   a real sweep on the bundled base and data, from nothing (installs into .venv)
# make test   lint, types and the whole CPU test suite, from nothing
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(INSTALLED)
	$(BIN)/python sweeps/lr_batch.py --demo

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -m "not gpu"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

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
