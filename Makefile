PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: venv run test check evidence chaos bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "landsweep needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

run: venv
	$(BIN)/landsweep run infra/sweeps/digits.yaml

test: venv
	$(BIN)/python -m pytest -m 'not evidence' -n 2 --dist loadfile

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

evidence: venv
	$(BIN)/python -m tests.evidence

chaos: venv
	$(BIN)/python -m tests.chaos

bench: venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
