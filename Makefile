# make demo    fetch a real checkpoint, prune it to 90 %, export, measure: ends with one table
# make test    all tests; make test-fast leaves the slow ones out
# make lint    formatting, types, and who may import whom
# make bench   time a pruned LSTM with 1024 units, dense against sparse
# Everything is installed into .venv, at the versions of constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-fast lint bench clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/python examples/g2p_en/demo.py

test: $(READY)
	$(BIN)/python -m pytest -q

test-fast: $(READY)
	$(BIN)/python -m pytest -q -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python examples/bench_lstm.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
