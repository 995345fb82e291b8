# make help lists the targets. Needs Linux, Python 3.11 to 3.13, git and make; everything else goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
DEMO_DATA := data/wardrobe
DEMO_IMAGES := 900
PAGE := docs/demo
RUNTIME := onnxruntime-web@1.30.0
REFERENCE := api structures data model inference postprocess evaluation formats tuning export wardrobe

OVERRIDDEN := opencv-python scikit-image imageio lazy-loader tifffile

.PHONY: help setup lock try page demo ladder bench docs test lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv with the pinned lock (done by the others when needed)

# The stamp comes last, so an interrupted set-up is taken up again; a good .venv is left alone.
$(STAMP): requirements.lock pyproject.toml
	@$(if $(PYTHON),,echo "no python3 found: install Python 3.11" >&2; exit 1)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 needed, $(PYTHON) is {v[0]}.{v[1]}: set PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	awk '/^[a-z]/ {found = /^setuptools==/} found' requirements.lock > $(VENV)/setuptools.lock # builds the others
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $(VENV)/setuptools.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --no-build-isolation --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

# Without what tool.uv in pyproject.toml overrides. Versions stay as they are unless UPGRADE=--upgrade is given.
lock: ## write requirements.lock with the hashes of all packages; needs uv
	uv pip compile pyproject.toml --extra app --extra onnx --extra slurm --group dev --universal --python-version 3.11 \
	  $(addprefix --no-emit-package ,$(OVERRIDDEN)) --generate-hashes --no-annotate --custom-compile-command "make lock" \
	  $(UPGRADE) --quiet --output-file requirements.lock

try: $(STAMP) ## find clothes on the photos in docs/photos with the model in models/: half a minute
	$(BIN)/python predict.py checkpoint=street data.root=docs/photos draw=true out=predictions/try

# Each browser loads one of the two runtimes: with WebGPU or without.
page: $(STAMP) ## complete docs/demo, a page that finds clothes in the browser; needs npm for onnxruntime-web
	@command -v npm > /dev/null || { echo "no npm found: install Node.js, whose npm downloads $(RUNTIME)" >&2; exit 1; }
	$(BIN)/fashion-hydra export street $(PAGE)/street.onnx --half --force
	cp fashion_hydra/report/page.css $(PAGE)/base.css
	cp fashion_hydra/app/page.css $(PAGE)/app.css
	cp fashion_hydra/app/controls.js $(PAGE)/controls.js
	archive=$$(npm pack --silent --pack-destination $(PAGE) $(RUNTIME))
	mkdir -p $(PAGE)/ort
	tar --extract --gzip --file $(PAGE)/$$archive --directory $(PAGE)/ort --strip-components 2 \
	  package/dist/ort.wasm.min.mjs package/dist/ort-wasm-simd-threaded.{mjs,wasm} \
	  package/dist/ort.webgpu.min.mjs package/dist/ort-wasm-simd-threaded.asyncify.{mjs,wasm}
	rm $(PAGE)/$$archive
	echo "open it: python -m http.server --directory $(PAGE), then http://localhost:8000"

demo: $(STAMP) ## draw the wardrobe, train a small model, tune, predict and score its test images: 15 minutes on two cores
	@timed() { local begin=$$SECONDS; echo "==> $$*"; "$$@"; times+="$$(printf '%6d s  %s' $$((SECONDS - begin)) "$$*")"$$'\n'; }; times=
	timed $(BIN)/fashion-hydra wardrobe $(DEMO_DATA) --train $(DEMO_IMAGES) --test 60 --size 224
	timed $(BIN)/python train.py experiment=demo
	rm -rf tuned/demo predictions/demo
	timed $(BIN)/python tune_thresholds.py ensemble=top3 tta=flip out=tuned/demo
	timed $(BIN)/python predict.py ensemble=top3 tta=flip postprocess=tuned data.root=$(DEMO_DATA) out=predictions/demo draw=true
	timed $(BIN)/fashion-hydra submit-check predictions/demo/submission.csv --sample $(DEMO_DATA)/sample_submission.csv
	timed $(BIN)/fashion-hydra compare tuned/demo predictions/demo --truth $(DEMO_DATA)/test_truth.csv
	timed $(BIN)/fashion-hydra report predictions/demo tuned/demo "$$(ls -td runs/demo/*/ | head -1)" --truth $(DEMO_DATA)/test_truth.csv
	timed $(BIN)/fashion-hydra score $(DEMO_DATA)/test_truth.csv predictions/demo/submission.csv
	printf '\nwall time\n%s%6d s  in all\n' "$$times" $$SECONDS

# Each data set's model is trained once: with ckpt_path=last a finished run only says so.
ladder: $(STAMP) ## walk the winner's ladder on wardrobe: one to two hours on two cores; CCP=FOLDER adds its street photos and two hours
	@walk() { local name=$$1; shift
	  $(BIN)/python train.py name=$$name "$${training[@]}" ckpt_path=last
	  $(BIN)/fashion-hydra ladder runs/$$name "$$@"; }
	$(BIN)/fashion-hydra wardrobe data/ladder --train 900 --test 300 --size 224
	training=(experiment=demo data.root=data/ladder)
	walk ladder_wardrobe --truth data/ladder/test_truth.csv --out predictions/ladder-wardrobe --title "wardrobe, 300 test images"
	if [ -n "$(CCP)" ]; then
	  training=(experiment=street data.root="$(CCP)")
	  walk ladder_street --images test_fold --out predictions/ladder-street --title "street photos, 78 of the test fold"
	  walk ladder_street --images test_fold --out predictions/ladder-street-all --title "street photos, all classes" --set classes=all
	fi

bench: $(STAMP) ## run the benchmarks, half an hour on two cores; benchmarks/RESULTS.md says what they gave
	@for name in annotations samples submission_path ensemble train_step attributes app evaluation threshold_search predict_memory worker_memory growth; do
	  echo "==> python -m benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name
	done

docs: $(STAMP) ## make the API reference from the docstrings: site/reference/index.html
	$(BIN)/pdoc --docformat google --output-directory site/reference $(addprefix fashion_hydra.,$(REFERENCE))

test: lint ## run the linters and the tests
	$(BIN)/python -m pytest -q -n 2

lint: $(STAMP) ## lint and type-check alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv
	rm -rf $(VENV)
