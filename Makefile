# make demo, make test, make faults: each installs what it needs into .venv, unless it is there already.
# Ctrl-C in a demo leaves checkpoints; make demo resumes from them.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := setup.cfg pyproject.toml optim_family/__init__.py

.PHONY: demo test check docs dist faults bench gpu clean

demo: .venv/.installed
	$(BIN)/optim-family study run digits

test: check
	$(BIN)/python -m pytest -n 2

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site in build/docs; any warning, such as a link that leads nowhere, is an error.
docs: .venv/.installed-dev
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/docs
	@echo "open build/docs/index.html"

# The sdist and the wheel of the last commit in dist/, the same bytes from every build, checked by twine.
dist: .venv/.installed-dev
	$(BIN)/python .ci/dist.py

# FAULTS=0.1 makes a tenth of the trials.
FAULTS ?= 1
faults: .venv/.installed-dev
	OPTIM_FAMILY_FAULTS=$(FAULTS) $(BIN)/python -m pytest -n 2 tests/faults

# On a machine with a CUDA card: docs/gpu.md.
GPU ?= runs/gpu
gpu: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.gpu $(GPU)

bench: .venv/.installed-dev
	$(BIN)/python -m benchmarks

.venv/.installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/.installed-dev: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	touch $@ .venv/.installed

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
