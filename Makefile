# Two commands: `make demo` (the light package reads a photograph) and `make test` (everything is checked).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

.PHONY: demo test lint clean

demo: .venv/light
	@mkdir -p out
	$(BIN)/mien predict examples/eileen_collins.jpg --save out/demo --overwrite
	@echo "the annotated picture: out/demo/eileen_collins.jpg"

test: .venv/full lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: .venv/full
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

.venv/light: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/full: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[train,test,lint]'
	@touch $@ .venv/light

clean:
	rm -rf .venv out build dist
