# Two commands: `make demo` trains the default job, `make test` runs the tests.
# Both set up .venv first; a change of pyproject.toml or constraints.txt does it again.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
QUICK := not slow and not peers and not real_weights and not gpu and not tpu_aot
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile

.PHONY: demo test test-slow test-peers test-real test-tpu-aot test-gpu pretrain-data \
	bench bench-gpu chaos lint clean

demo: .venv/.installed
	$(BIN)/python -m trainer

test: .venv/.installed-dev lint
	$(PYTEST) -m "$(QUICK)"

test-slow: .venv/.installed-dev
	$(PYTEST) -m "slow and not peers and not gpu and not tpu_aot"

test-peers: .venv-peers/.installed
	.venv-peers/bin/python -m pytest -q -m "peers"

# Weights under the Gemma Terms of Use: tests/tools/real_gemma3.py says how to build
# the directory. GEMMA3_270M_DIR=DIR make test-real
test-real: .venv/.installed-dev
	@test -n "$$GEMMA3_270M_DIR" || { echo "Set GEMMA3_270M_DIR."; exit 1; }
	$(BIN)/python -m pytest -q -m "real_weights"

# TPU programs compiled on a machine without a TPU; two cores, 120 s and 3 GB for each.
test-tpu-aot: .venv-plan/.installed
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 \
		.venv-plan/bin/python -m pytest -q -m "tpu_aot"

# For a machine with an NVIDIA GPU, and CUDA builds of JAX and PyTorch.
test-gpu: .venv-gpu/.installed
	JAX_PLATFORMS=cuda .venv-gpu/bin/python -m pytest -q -m "gpu"

bench-gpu: .venv-gpu/.installed
	.venv-gpu/bin/python tests/benchmarks/gpu.py --peers .venv-gpu/bin/python

pretrain-data: .venv/.installed
	$(BIN)/python tests/tools/pretrain_data.py

# Peers by their own environment: PEERS="--python keras_hub=DIR/bin/python"
bench: .venv/.installed
	$(BIN)/python tests/benchmarks/default_job.py
	$(BIN)/python tests/benchmarks/start.py
	$(BIN)/python tests/benchmarks/peers.py $(PEERS)
	$(BIN)/python tests/benchmarks/loading.py $(PEERS)

# Runs that are killed, stopped, damaged and moved; a rerun does what is missing.
chaos: .venv/.installed-dev
	$(BIN)/python -m tests.chaos --record $(CHAOS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-peers .venv-plan .venv-gpu .cache build dist

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) --editable ".[dev]"
	@touch $@

# The peers bring other versions with them, so they get a place of their own.
.venv-peers/.installed: .venv/bin/python pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --editable ".[dev,peers]"
	@touch $@

# libtpu is large and only compiles: an environment of its own leaves the others quick.
.venv-plan/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-plan
	.venv-plan/bin/python -m pip install --quiet --constraint constraints.txt \
		--editable ".[dev,plan]"
	@touch $@

.venv-gpu/.installed: .venv/bin/python pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --editable ".[dev,cuda,peers]"
	@touch $@
