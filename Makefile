# demo: a verified int8 classifier, from nothing.  test: lint, types and tests.  test-all: the long
# tests too.  check-pythons: an installation with the oldest and the newest Python here.
# All but check-pythons set up .venv and use it.
.PHONY: demo test test-all check check-pythons bench clean

BIN := .venv/bin
OUT := build
DEMO := shufflenet_v2_x0.5_cifar_32_int8
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	--durations 15

demo: .venv/installed
	$(BIN)/python -m convert --model shufflenet_v2 --weights bundled --int8 --out $(OUT)
	$(BIN)/python -m convert.classify $(OUT)/$(DEMO)/model.tflite examples/*.png

test: check
	$(PYTEST) -m "not slow"

test-all: check
	$(PYTEST)

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-pythons:
	scripts/check_pythons

bench: .venv/installed
	$(BIN)/python benchmarks/widths.py --out $(OUT)/bench

.venv/installed: pyproject.toml constraints.txt scripts/setup
	scripts/setup .

.venv/installed-dev: pyproject.toml constraints.txt scripts/setup
	scripts/setup '.[dev]'

clean:
	rm -rf .venv build results
