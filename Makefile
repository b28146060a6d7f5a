# Two commands do everything on a fresh machine: `make run` and `make test`.
# Arguments go to the program:  make run ARGS="farm.chips=8 inversion.method=refine"

ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first interpreter that is new enough; override with `make PYTHON=/path/to/python3.12`.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.14 python3; do \
	command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo $$p && break; done)
# A process per core, and one that waits for those which tests of the farm start.
TEST_PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# One BLAS thread per process: chips are processes, and they share the cores.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Tests start many processes, which would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-slow test-torch lint docs package format bench install clean help
.DEFAULT_GOAL := help

run: install ## Train the default network on the default farm; ARGS="key=value ..." changes settings
	$(BIN)/repast-dist $(ARGS)

test: install ## Run the tests but those that take long; ARGS="tests/analog -k fcg" selects
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: install ## Run the tests that take long: kills, faults, clusters, Slurm, whole studies
	$(PYTEST) -m slow $(ARGS)

test-torch: install ## Install PyTorch (5.5 GB on disk) and run the tests that need it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[torch]'
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile tests/pytorch $(ARGS)

lint: install ## Check format, style, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## Build the documentation as a site: site/index.html, with pages of runs made just now
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	rm -rf build/docs
	$(BIN)/python docs/make_site.py build/docs/pages
	REPAST_DOCS=build/docs/pages $(BIN)/python -m mkdocs build --quiet
	@echo "Open site/index.html"

package: install ## Build wheel and source archive, and try the wheel in a clean environment; ARGS=all: with every Python found
	$(BIN)/python .ci/package.py build/package $(ARGS)

format: install ## Rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Time the analog core, the farm and the cost model against references
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

install: $(STAMP) ## Create .venv and install the package with its development tools

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.12 or newer is needed and none was found." \
	  "Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON) (a minute or two, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,fast,onnx,images,query,launchers,search]'
	@# Each of many processes would do it again.
	@echo "Compiling the inner loops"
	@once="farm=inprocess train.max_steps=1 train.epochs=1 run_root=build/first"; \
	$(BIN)/repast-dist $$once >/dev/null 2>&1 & \
	$(BIN)/repast-dist $$once model=digits_mlp experiment=honest farm.kernels=float32 >/dev/null 2>&1 & \
	wait; rm -rf build/first
	@touch $@

clean: ## Delete the environment, caches and build results (runs/ stays)
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16
