# Two commands on a fresh machine: `make demo` and `make test`. Everything else is listed by `make help`.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
RUN := $(PY) -m monai.bundle run
TISSUE := bundles/glas_minmax_entropy
BUNDLE := $(TISSUE)/configs
TRAIN := '$(BUNDLE)/train.json','configs/data/demo.json'
# Two processes, each of one thread; a file's tests stay together, so that they share what they train; slow files first.
# Code is compiled once, not by each of the many programs that tests start.
JOBS ?= 2
DEVICE ?= cpu
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
# Threads that spin while waiting take the other core from those that work.
export OMP_WAIT_POLICY = PASSIVE
# Tensors above 32 MiB are otherwise given back to the system, and zeroed by it, again and again (glibc; all three or none).
demo table benchmark: export MALLOC_MMAP_THRESHOLD_ = 1000000000
demo table benchmark: export MALLOC_TRIM_THRESHOLD_ = 1000000000
demo table benchmark: export MALLOC_TOP_PAD_ = 268435456

.PHONY: help demo test table weights benchmark reliability check format docs bundle clean

help: ## list the commands
	@grep -E '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 10

# torch first and exactly: a plain or ranged torch pulls gigabytes of CUDA packages.
$(VENV)/installed: requirements.txt requirements-dev.txt requirements-docs.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet torch==2.13.0
	$(PY) -m pip install --quiet -r requirements-dev.txt
	$(PY) -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(VENV)/installed ## train on synthetic tissue, evaluate and localize held-out tiles, then six tiles of real tissue (minutes on 2 cores)
	$(RUN) --config_file "[$(TRAIN)]" --output_dir demo
	$(RUN) --config_file "[$(TRAIN),'$(BUNDLE)/evaluate.json']" --output_dir demo --split test
	$(PY) -m glas_wsol images demo/phantom --split test --output demo/held_out.csv
	$(RUN) --config_file $(BUNDLE)/inference.json --checkpoint demo/models/model.pt --dataset_dir demo/held_out.csv --output_dir demo/predictions
	$(PY) -m glas_wsol show demo --beat-floor 0.15
	@echo; echo "Real tissue: six samples, by the model that comes with the bundle, which was trained on other patients"
	$(RUN) --config_file "['$(BUNDLE)/train.json','$(BUNDLE)/evaluate.json']" --checkpoint $(TISSUE)/models/model.pt \
	    --dataset_dir $(TISSUE)/samples/samples.csv --output_dir demo/real_tissue --split test
	$(PY) -m glas_wsol show demo/real_tissue

test: $(VENV)/installed ## lint, format, imports, types and the whole test suite (JOBS=2 processes)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/basedpyright --pythonpath $(PY)
	$(PYTEST)

table: $(VENV)/installed ## run every method of the tables on synthetic tissue, three seeds (under 45 minutes on 2 cores; goes on where it was interrupted)
	$(PY) -m glas_wsol study comparison --bundle bundles/glas_minmax_entropy --methods all --seeds 0 1 2 --split test --jobs 2 \
	    --overlays configs/data/light.json configs/data/demo.json configs/data/table.json configs/trunks/efficientnet_lite0.json
	$(PY) -m glas_wsol table comparison --output comparison/tables --oracle
	$(PY) -m glas_wsol figure comparison --output comparison/figure.png

weights: $(VENV)/installed ## make the tissue bundle's own model again (DATA=folder with glas/ and ebhi_seg/)
	$(PY) benchmarks/weights.py "$(DATA)"

benchmark: $(VENV)/installed ## time and memory of a step, of a prediction and of loading, beside plain classification, and with how many threads (DEVICE=cuda on a GPU)
	$(PY) benchmarks/memory.py
	$(PY) benchmarks/infer.py --device $(DEVICE)
	$(PY) benchmarks/infer.py --device $(DEVICE) --trunk efficientnet_lite0
	$(PY) benchmarks/folder.py --device $(DEVICE)
	$(PY) benchmarks/data.py --device $(DEVICE)
	$(if $(filter cpu,$(DEVICE)),$(PY) benchmarks/threads.py)
	$(if $(filter cuda,$(DEVICE)),$(PY) benchmarks/gpu.py)
	$(PY) benchmarks/step.py --device $(DEVICE)

reliability: $(VENV)/installed ## bad input, kills, faults, fuzzing, bounds, offline: half an hour; writes docs/reliability.md and its table
	$(PY) benchmarks/reliability.py --all

check: $(VENV)/installed ## run the quick tests only
	$(PYTEST) -m "not slow"

format: $(VENV)/installed ## format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/installed ## build the documentation's site in site/; any warning is an error
	$(PY) -m mkdocs build --strict

bundle: $(VENV)/installed ## export self-contained copies of the bundles to dist/ (MODEL=file.pt to ship the GlaS model)
	$(PY) -m glas_wsol export bundles/glas_minmax_entropy dist $(if $(MODEL),--model "$(MODEL)")
	$(PY) -m glas_wsol export bundles/cub5_minmax_entropy dist

clean: ## remove what the commands above made
	rm -rf $(VENV) demo comparison dist site
