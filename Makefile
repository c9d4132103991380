# Everything runs in .venv; a target installs what it needs once and says what it does.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= results/digits

.PHONY: help demo figures test test-all coverage lint format docs benchmark clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

.venv/.made:
	@echo "==> making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.made pyproject.toml
	@echo "==> installing ssgd-analysis and what it needs (torch is large: minutes, once)"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.installed-test: .venv/.installed
	@echo "==> installing what the tests need"
	@$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	@touch $@

demo: .venv/.installed ## answer the question on real handwritten digits (about four minutes)
	@echo "==> the study 'digits': train, measure, compare; results in $(OUT)"
	@$(BIN)/ssgd-analyze study digits --out $(OUT) --resume

figures: .venv/.installed ## draw the gallery again from figures/data (seconds)
	@echo "==> drawing the gallery; its recipe, from training on: figures/recipes.sh"
	@$(BIN)/python figures/draw.py

test: .venv/.installed-test ## run the tests
	@echo "==> running the tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(ARGS)

test-all: .venv/.installed-test ## run all tests, the slow ones too
	@echo "==> running all tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

coverage: .venv/.installed-test ## how much of the package the quick tests reach
	@echo "==> running the tests with coverage"
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' -q --cov ssgd_analysis --cov-report term:skip-covered $(ARGS)

lint: .venv/.installed-test ## ruff and mypy
	@echo "==> linting and type checking"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/.installed-test ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: .venv/.installed ## the documents as a site, in build/site
	@$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@$(BIN)/mkdocs build --quiet --strict

benchmark: .venv/.installed-test ## methods, curvature and landscapes beside their peers (an hour)
	@$(BIN)/python benchmarks/training.py
	@$(BIN)/python benchmarks/curvature.py
	@$(BIN)/python benchmarks/correctness.py
	@$(BIN)/python benchmarks/landscape.py

clean: ## remove .venv and results
	rm -rf .venv results build dist *.egg-info
