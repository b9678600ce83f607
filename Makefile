# make demo    fetch a real checkpoint, prune it to 90 %, export, measure: ends with one table
# make test    all tests; make test-fast leaves the slow ones out
# make lint    formatting, types, and who may import whom
# make sanitize  the C code under ASan and UBSan, alone and with the Python tests; make sanitize-threads under TSan
# make fuzz    five million changed files in the background; log in build/fuzz, goes on where it left off
# make fuzz-guided  files that libFuzzer makes by what the last ones reached, until it is stopped; corpus in build/fuzz
# make torture  runs that are killed, interrupted, starved of disk, spread over processes; prints its figures
# make studies  the studies that are missing: hours; CELL=B/lm/hard25-magnitude/0 for one
# make bench   time a pruned LSTM with 1024 units, dense against sparse
# Everything is installed into .venv, at the versions of constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
INTERPRETER := .venv/.triton
PARALLEL := -n auto --maxprocesses 8 --dist worksteal  # one process a core; each test has one thread

.PHONY: demo test test-fast torture lint studies bench sanitize sanitize-threads fuzz fuzz-guided clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/python -m examples.g2p_en.demo

test: $(READY) $(INTERPRETER)
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not torture"

test-fast: $(READY)
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow and not torture"

torture: $(READY)
	$(BIN)/python -m pytest -q -s tests/torture tests/workflows/test_resume.py \
	    tests/workflows/test_resume_refused.py tests/workflows/test_resume_train.py tests/workflows/test_sweep.py \
	    tests/formats/test_state_folder.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

studies: $(READY)
	-$(BIN)/python -m examples.studies run $(CELL)
	-$(BIN)/python -m examples.studies time $(CELL)
	$(BIN)/python -m examples.studies render

bench: $(READY)
	$(BIN)/python examples/bench_lstm.py

fuzz: $(READY)
	mkdir -p build/fuzz
	nohup $(BIN)/python -m tests.fuzz.run --count 5000000 --workers 2 --state build/fuzz/state.json \
	    > build/fuzz/log 2>&1 & echo "at work as process $$!; see build/fuzz/log and build/fuzz/state.json"

fuzz-guided: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz.guided

# The C files alone, beside loops in double precision.
NATIVE := rnnprune/kernels/native
ENGINE := tests/native/harness.c $(filter-out %/python_module.c,$(wildcard $(NATIVE)/*.c))
CHECKED := -std=gnu11 -g -Wall -Wextra -Werror -Wno-psabi -ffp-contract=fast -pthread -I$(NATIVE)
build/harness-address: $(ENGINE) $(wildcard $(NATIVE)/*.h)
	mkdir -p build
	$(CC) $(CHECKED) -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=address,undefined \
	    $(ENGINE) -lm -o $@

build/harness-threads: $(ENGINE) $(wildcard $(NATIVE)/*.h)
	mkdir -p build
	$(CC) $(CHECKED) -O2 -Wno-error=tsan -fsanitize=thread $(ENGINE) -lm -o $@

sanitize-threads: build/harness-threads
	setarch -R build/harness-threads

# The native engine under AddressSanitizer and UndefinedBehaviorSanitizer, with its own tests.
SANITIZED := build/sanitized
sanitize: $(READY) build/harness-address
	build/harness-address
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r rnnprune tests setup.py pyproject.toml $(SANITIZED)/
	rm -f $(SANITIZED)/rnnprune/kernels/_native*.so
	cd $(SANITIZED) && \
	    CFLAGS="-O1 -g -UNDEBUG -Werror -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=address,undefined" \
	    LDFLAGS="-fsanitize=address,undefined" $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace --force
	cd $(SANITIZED) && \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=. \
	    $(CURDIR)/$(BIN)/python -m pytest -q -p no:cacheprovider tests/kernels/test_native.py tests/kernels/test_native_layer.py

$(READY): pyproject.toml constraints.txt setup.py $(wildcard rnnprune/kernels/native/*)
	@echo "setting up .venv with torch and the C engine; a few minutes on a slow line"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Triton runs the CUDA kernels in its interpreter, so that they are tested without a GPU: 286 MB, only for `make test`.
$(INTERPRETER): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cuda]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
