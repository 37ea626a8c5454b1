# Two commands: `make demo` (the light package reads a photograph) and `make test` (everything is checked).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

.PHONY: demo test lint web serve clean

demo: .venv/light
	@mkdir -p out
	$(BIN)/mien predict examples/eileen_collins.jpg --save out/demo --overwrite
	@echo "the annotated picture: out/demo/eileen_collins.jpg"

test: .venv/full lint
	@$(BIN)/python hatch_build.py || echo "the page's engine is missing: the tests that need it skip"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

web:  # the page's engine (onnxruntime-web), pinned, by npm
	$(PYTHON) hatch_build.py

serve: .venv/serve web
	$(BIN)/mien serve

lint: .venv/full
	$(BIN)/ruff check src tests benchmarks hatch_build.py
	$(BIN)/mypy

.venv/light: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/serve: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[serve]'
	@touch $@

.venv/full: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[train,test,lint]'
	@touch $@ .venv/light .venv/serve

clean:
	rm -rf .venv out build dist src/mien/apps/web/vendor
