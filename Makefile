# Two commands: `make demo` (the light package reads a photograph) and `make test` (everything is checked).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

.PHONY: demo test lint web serve docs package floors clean

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

docs: .venv/full  # the API reference, in out/api
	$(BIN)/python docs/api.py out/api

# The tests that an installation without extras must pass.
LIGHT := tests/test_front_door.py tests/test_vision.py tests/test_runtime.py tests/test_clients.py tests/cli/test_predict.py \
	tests/cli/test_watch.py $(addprefix tests/runtime/test_,bench.py detect.py doctor.py sinks.py store.py track.py)

package: web  # source archive and wheel, in dist; the wheel is tried in an empty environment
	rm -rf dist out/package && mkdir -p out
	$(PYTHON) -m venv out/package
	out/package/bin/python -m pip install -q --disable-pip-version-check hatchling
	out/package/bin/python -m hatchling build -t sdist -d dist
	out/package/bin/python -m pip wheel -q --disable-pip-version-check --no-deps -w dist dist/mien-*.tar.gz
	$(PYTHON) -m venv --clear out/package
	out/package/bin/python -m pip install -q --disable-pip-version-check dist/mien-*.whl
	cd out && MIEN_OFFLINE=1 package/bin/mien predict ../examples/eileen_collins.jpg && package/bin/mien doctor
	out/package/bin/python -m pip install -q --disable-pip-version-check pytest hypothesis onnx
	out/package/bin/python -m pytest $(LIGHT)
	@ls -l dist

# Every "name>=X" of these, as "name==X.*".
FLOORS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	extras = project["optional-dependencies"]; needs = project["dependencies"] + extras["serve"] + extras["export"]; \
	print(*(need.replace(">=", "==") + ".*" for need in needs), sep="\n")

floors:  # the oldest versions that pyproject.toml allows, of the light package and of serve, in an empty environment
	mkdir -p out
	$(PYTHON) -c '$(FLOORS)' > out/floors.txt
	$(PYTHON) -m venv --clear out/floors
	out/floors/bin/python -m pip install -q --disable-pip-version-check -c out/floors.txt '.[serve]' pytest hypothesis onnx
	out/floors/bin/mien doctor
	MIEN_OFFLINE=1 out/floors/bin/mien predict examples/eileen_collins.jpg
	out/floors/bin/python -c 'import mien.apps.server'
	out/floors/bin/python -m pytest $(LIGHT)

lint: .venv/full
	$(BIN)/ruff check src tests benchmarks hatch_build.py
	$(BIN)/mypy --num-workers 2

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
	$(PIP) --no-compile -e '.[train,test,lint]'
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # pip compiles too, but on one core
	@touch $@ .venv/light .venv/serve

clean:
	rm -rf .venv out build dist src/mien/apps/web/vendor
