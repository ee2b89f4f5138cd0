# make demo   install, then the whole road on the embedded model: audit, train, compare, trace, export (minutes)
# make test   every check: lint, types, import contract, tests
# make clean  remove .venv and what the demo wrote

PYTHON ?= python3
BIN := .venv/bin
GEMMA := $(BIN)/mlx-gemma
RUN := runs/demo

.PHONY: install demo test clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mlx-gemma needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	rm -rf $(RUN)
	mkdir -p runs
	$(GEMMA) doctor || true
	$(GEMMA) audit datasets/python3/raw.jsonl --against evals/python3.jsonl --write runs/clean.jsonl
	$(GEMMA) lora recipes/nano.yaml --set output=$(RUN)
	$(GEMMA) eval evals/python3.jsonl --model nano --adapter $(RUN)
	$(GEMMA) trace nano "Print the numbers from 1 to 5, one per line." --uncertain 8
	$(GEMMA) trace $(RUN) "Print the numbers from 1 to 5, one per line." --uncertain 8
	$(GEMMA) export $(RUN) --to hf

test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

clean:
	rm -rf .venv runs/demo runs/clean.jsonl runs/clean.rejected.jsonl
