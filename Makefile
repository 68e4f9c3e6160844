# `make demo` and `make test` need Python 3.11 or newer and a package index, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint slow bench results clean

demo: .venv/done
	$(BIN)/terrella demo --out out/demo

test: lint
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: .venv/done
	$(BIN)/python -m pytest -m slow

results: .venv/done
	$(BIN)/terrella bench --results docs/results.md --readme README.md

bench: .venv/done
	for b in $(sort $(wildcard benchmarks/*.py)); do \
		echo "== $$b"; $(BIN)/python $$b || exit 1; done

.venv/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
