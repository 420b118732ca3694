# `make test` and `make demo` need Python >= 3.11 and make; everything else is installed into .venv on the first call.

.DEFAULT_GOAL := help
.PHONY: help demo demo-pretrain demo-endoscopy test check format

VENV := .venv
BIN := $(VENV)/bin
# One thread in each test process: `pytest -n` is what uses the processors.
TEST_WORKERS ?= 2
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1

help:
	@echo "make demo    the brain pipeline on sample_data, under runs/demo"
	@echo "make demo-pretrain  an encoder from scans without labels, and what it knows, under runs/demo-pretrain"
	@echo "make demo-endoscopy  depth, a surface and a flight from a made-up endoscopy video, under runs/demo-endoscopy"
	@echo "make test    style, layers, types and tests"
	@echo "make check   style, layers and types alone"
	@echo "make format  put the code into its style"

demo: $(VENV)/.installed
	$(BIN)/medssl run brain_segmentation --config sample_data/demo.yaml --out runs/demo

demo-pretrain: $(VENV)/.installed
	$(BIN)/medssl run pretrain_volumes --config sample_data/demo_pretrain.yaml --out runs/demo-pretrain
	$(BIN)/medssl probe runs/demo-pretrain/encoder --data sample_data/manual --reading same \
		--label_set sample_data/label_set.txt --out runs/demo-pretrain/probe

demo-endoscopy: $(VENV)/.installed-endoscopy runs/demo-endoscopy/recording
	$(BIN)/medssl run endoscopy_depth --config sample_data/demo_endoscopy.yaml \
		--video runs/demo-endoscopy/recording/video.mp4 --truth runs/demo-endoscopy/recording --out runs/demo-endoscopy/results

# Made aside and renamed, so that one whose making was interrupted is made again.
runs/demo-endoscopy/recording: | $(VENV)/.installed-endoscopy
	rm -rf $@.part
	$(BIN)/python -m sample_data.make_endoscopy --out $@.part --frames 80 --step_mm 0.5 --surface true
	mv $@.part $@

test: check
	$(THREADS) $(BIN)/pytest -n $(TEST_WORKERS) --cov --cov-report=term

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The first Python that is new enough and starts; said plainly when there is none.
$(BIN)/python:
	@for python in python3 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python --version)"; \
			$$python -m venv $(VENV) && exit 0; \
			rm -rf $(VENV); \
			echo "$$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "medssl needs Python 3.11 or newer; found: $$(python3 --version 2>&1)" >&2; \
	exit 1

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-endoscopy: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[endoscopy]' --constraint constraints.txt
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@ $(VENV)/.installed $(VENV)/.installed-endoscopy
