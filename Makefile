# demo: a proven int8 classifier, from nothing.  test: lint, types and all tests.  Both set up .venv.
.PHONY: demo test check bench clean

BIN := .venv/bin
OUT := build
DEMO := shufflenet_v2_x0.5_cifar_32_int8

demo: .venv/installed
	$(BIN)/python -m convert --model shufflenet_v2 --weights bundled --int8 --out $(OUT)
	$(BIN)/python -m convert.classify $(OUT)/$(DEMO)/model.tflite examples/*.png

test: check
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --durations 15

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/widths.py --out $(OUT)/bench

.venv/installed: pyproject.toml scripts/setup
	scripts/setup .

.venv/installed-dev: pyproject.toml scripts/setup
	scripts/setup '.[dev]'

clean:
	rm -rf .venv build results
