# `make demo` and `make test` work on a fresh clone with nothing but Python 3, make and the package index.
PYTHON ?= python3
VENV ?= .venv
OTHER_TRITON := 3.6
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt
CSRC := $(wildcard csrc/*/*.cpp csrc/*/*.h csrc/include/*/*.h)
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
CUDA := $(wildcard benchmarks/cuda/* kernels/*/*/*.cu kernels/*/*/*.cuh tests/ops/*.cu tests/ops/emulated/*)

DEMO_TEXT ?= Hello! I am bark fast, and every step of speaking this sentence ran on your own machine.
DEMO_SEED ?= 2
PYTEST_ARGS ?=
GPU_ARGS ?=
CPU_ARGS ?=
BENCH_ARGS ?=
DEMO_VOICE_ARGS ?=

# The reference implementation, an oracle for the parity tests only; with dependencies it would pull torchaudio.
REFERENCE := tts-webui.bark==0.1.1 encodec==0.1.1

# The extra `docs` without barkfast, so without torch and a compiler: the sources are read, not imported.
DOCS := mkdocs mkdocstrings-python ruff

# Large clients of the speech server, in an environment of their own.
CLIENTS := livekit-plugins-openai pipecat-ai

.PHONY: help demo demo-voice test test-all test-rest test-clients test-page screenshots bench cpu gpu gpu-full house
.PHONY: results docs lint format venv clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    speak a sentence with the built-in demo model, write demo.wav"
	@echo "make test    run the tests, parity with the reference included; of large sweeps a sample, which changes daily"
	@echo "make test-all    and every case of the sweeps, and the slow tests"
	@echo "make test-clients    the text-to-speech clients of LiveKit and Pipecat against the server; they are large"
	@echo "make test-page  the page of barkfast serve in a browser: needs Chromium"
	@echo "make screenshots  the pictures of the page in docs/pictures"
	@echo "make gpu     on a machine with an NVIDIA GPU: which kernels are fastest there, in 5 minutes at most"
	@echo "make gpu-full    and: all tests, larger batches, beside bark and transformers, in 4 minutes at most"
	@echo "make bench   a clip beside bark and transformers, stage by stage, with pictures, in 10 minutes"
	@echo "make cpu     on any CPU: every kernel, stage and dtype, in half an hour at most"
	@echo "make results write the tables of README.md and docs/ from the newest results"
	@echo "make docs    build the site of docs/ and of the docstrings in build/docs"
	@echo "make house   count the repository: lines, files that a call enters, what stands in it twice"
	@echo "make demo-voice  train the demo voice anew: hours, see docs/demo-voice.md; goes on where it was"
	@echo "make lint    ruff, mypy and clang-format, changing nothing"
	@echo "make format  let ruff and clang-format rewrite the sources"
	@echo "make clean   remove .venv and everything that was built"
	@echo "PYTHON=python3.12 picks the interpreter; PYTEST_ARGS='-k name' goes to pytest"

# Passive: on a busy machine OpenMP threads that spin while they wait make so small a model thirty times slower.
demo: venv
	@echo "speaking with the built-in demo voice, a very small model; for Suno's see README.md"
	OMP_WAIT_POLICY=passive $(BIN)/barkfast say "$(DEMO_TEXT)" --model demo --seed $(DEMO_SEED) -o demo.wav

# test-rest runs what the sample of test leaves out.
test-all: SWEEPS := --all
test-rest: SWEEPS := --rest
test test-all test-rest: $(VENV)/.test $(VENV)/.reference $(if $(CHROMIUM),$(VENV)/.page)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=15 $(SWEEPS) $(PYTEST_ARGS)

test-clients: $(VENV)/.test build/clients/.installed
	PYTHONPATH=".:kernels$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python tests/clients/run.py build/clients/bin/python

build/clients/.installed: Makefile
	$(PYTHON) -m venv build/clients
	build/clients/bin/pip --disable-pip-version-check install --quiet $(CLIENTS)
	@touch $@

# Also in test where there is a Chromium.
test-page: $(VENV)/.page build/axe
	$(BIN)/python -m pytest tests/page $(PYTEST_ARGS)

screenshots: $(VENV)/.page
	$(BIN)/python -m tools.screenshots

# $(PYTHON) as it is; if it lacks something (exit status 3), the virtual environment, unless pip may not fetch it.
gpu gpu-full:
	@export PYTHONPATH=".:kernels$${PYTHONPATH:+:$$PYTHONPATH}"; \
	$(PYTHON) -m benchmarks $@ $(GPU_ARGS); status=$$?; \
	if [ $$status -ne 3 ] || [ -n "$$PIP_NO_INDEX" ]; then exit $$status; fi; \
	$(MAKE) --no-print-directory $(VENV)/.test $(VENV)/.reference && $(BIN)/python -m benchmarks $@ $(GPU_ARGS)

# Bark-small's sizes with random weights, beside the others: nothing has to be fetched.
bench: $(VENV)/.test $(VENV)/.reference
	$(BIN)/barkfast bench --model random:small --dtype int8 --voice full --compare bark,transformers,torch \
	    --json benchmarks/results --plot docs/pictures $(BENCH_ARGS)

# Every kernel, stage, dtype and number of threads.
cpu: $(VENV)/.test $(VENV)/.reference
	PYTHONPATH=".:kernels$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python -m benchmarks cpu $(CPU_ARGS)

results: $(VENV)/.installed
	PYTHONPATH=".:kernels$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python -m benchmarks.markdown

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --quiet
	@echo "the site begins at build/docs/index.html"

house: $(VENV)/.test
	$(BIN)/python -m tools.house

# Hours on two cores, and it goes on where it was cut off. Needs festival and WordNet, see docs/demo-voice.md.
demo-voice: $(VENV)/.test
	$(INSTALL) -e '.[wer]'
	PYTHONPATH=".:kernels$${PYTHONPATH:+:$$PYTHONPATH}" nice $(BIN)/python -m training.demo_voice $(DEMO_VOICE_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CSRC) $(CUDA)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC) $(CUDA)

venv: $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo.wav
	rm -f barkfast/_native*.so barkfast/_native_build.txt
	find barkfast kernels benchmarks tests tools training -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for one set of installed packages and is renewed when what it was made from changes.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py constraints.txt CMakeLists.txt $(wildcard csrc/CMakeLists.txt csrc/*.cmake csrc/*/*.in) $(CSRC) | $(BIN)/python
	@echo "installing barkfast into $(VENV) (the first time takes a minute or two)"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(INSTALL) -e '.[test,reference]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(INSTALL) -e '.[dev]'
	@touch $@

# The extra `page` without barkfast, which would be compiled again.
$(VENV)/.page: $(VENV)/.test
	$(INSTALL) playwright pillow
	@touch $@

# What looks for barriers in the page: its test skips where this cannot be had, so no failure here.
build/axe:
	@mkdir -p build
	@if cd build && npm pack --silent --fetch-retries=1 --fetch-timeout=60000 axe-core@4 >axe.name; then mkdir -p axe && tar -xzf "$$(cat axe.name)" -C axe; else \
	    echo "WARNING: axe-core could not be fetched: its test WILL BE SKIPPED" >&2; fi

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) $(DOCS)
	@touch $@

# The version that torch's CUDA builds of 2026 bring along; tests of the machine code compile with it too where it is.
build/triton-$(OTHER_TRITON): | $(BIN)/python
	$(BIN)/pip install --quiet --no-deps --target $@ 'triton==$(OTHER_TRITON).*'

# Without these two the tests that need them skip with a reason, and the golden files still hold: so no failure here.
$(VENV)/.reference: $(VENV)/.installed
	@if $(INSTALL) --no-deps $(REFERENCE); then touch $@; else \
	    echo "WARNING: $(REFERENCE) could not be installed: tests against the reference itself WILL BE SKIPPED" >&2; fi
