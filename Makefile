# make demo   install, then the whole road on the embedded model: audit, train, compare, trace, export (minutes)
# make test   every check: lint, types, import contract, tests
# make test-llama  build llama.cpp from source (20 to 25 minutes on two cores, once), and run the tests that run it
# make clean  remove .venv and what the demo wrote

PYTHON ?= python3
BIN := .venv/bin
GEMMA := $(BIN)/mlx-gemma
RUN := runs/demo
PROMPT := "Print the numbers from 1 to 5, one per line."
say = @printf '\n== %s ==\n' "$(1)"

.PHONY: install demo test test-llama clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mlx-gemma needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	@rm -rf $(RUN)
	@mkdir -p runs
	$(call say,1. The machine)
	$(GEMMA) doctor || true
	$(call say,2. What is in the data)
	$(GEMMA) audit datasets/python3/raw.jsonl --against evals/tasks.jsonl --write runs/clean.jsonl
	$(call say,3. Train an adapter on it through the filter)
	$(GEMMA) lora recipes/nano.yaml --set output=$(RUN)
	$(call say,4. Bad outputs before and after)
	$(GEMMA) eval evals/tasks.jsonl --model $(RUN) --compare base
	$(call say,5. One decision before and after: the least certain tokens)
	$(GEMMA) trace nano $(PROMPT) --uncertain 6
	$(GEMMA) trace $(RUN) $(PROMPT) --uncertain 6
	$(call say,6. One folder for other programs)
	$(GEMMA) export $(RUN) --to hf

test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Not for this machine's own processor: a native build uses AMX, and dies of it on virtual machines (0.3.36, Q8_0).
LLAMA := -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF $(foreach part,TOOLS EXAMPLES TESTS SERVER,-DLLAMA_BUILD_$(part)=OFF)

test-llama: .venv/llama
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/llama

.venv/llama: .venv/installed
	$(call say,Building llama.cpp from source: 20 to 25 minutes on two cores)
	CMAKE_ARGS="$(LLAMA)" $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[dev,llama]'
	@touch $@

clean:
	rm -rf .venv runs/demo runs/clean.jsonl runs/clean.rejected.jsonl
