# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export STEPWELL_LAKE ?= lake
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check bench ui docs golden clean

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## the main job on the embedded default: rollouts, verdicts, masks, datasets, models, evaluations
	@$(BIN)/python -m assets.materialize
	@echo
	@echo "Next: make ui          (the asset graph, its metadata and lineage, on 127.0.0.1:3000)"

test: $(READY)  ## every test
	@$(BIN)/python -m pytest -n 2

check: $(READY)  ## lint, types, import contracts, rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/test_rooms.py

bench: $(READY)  ## benchmarks, reported as ratios
	@for b in tests/bench/[a-z]*.py; do $(BIN)/python -m tests.bench.$$(basename $$b .py); done

ui: $(READY)  ## the Dagster UI
	@DAGSTER_HOME=$(CURDIR) $(BIN)/dagster dev -m assets.definitions -h 127.0.0.1 -p 3000

docs: $(READY)  ## regenerate the generated pages
	@$(BIN)/python -m stepwell.schema_page > docs/schema.md

golden: $(READY)  ## regenerate the golden results of the questions
	@$(BIN)/python -m pytest tests/test_questions.py --regenerate

clean:
	rm -rf lake .dagster/storage .dagster/logs
