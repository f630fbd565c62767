# viaserve: `make serve`, `make test`. Needs Python 3.11 or 3.12 with its venv module; no root.
# ARGS go to the program, as in `make serve ARGS="--help"`; .ci/setup names the other variables.

VENV ?= .venv
BIN := $(VENV)/bin
export VENV PYTHON TORCH_INDEX

.PHONY: help serve test slow lint env env-dev lock clean distclean

help:
	@echo "make serve      make the environment and the default model, then serve (ARGS)"
	@echo "make test       run the default tests (ARGS)"
	@echo "make slow       run the tests that serve for minutes (ARGS)"
	@echo "make lint       ruff, pyright, import-linter"
	@echo "make lock       write constraints.txt from the environment"
	@echo "make clean      remove caches; distclean: the environment as well"
	@echo "TORCH_INDEX=cpu installs the CPU build of torch from PyTorch's own index"

serve: env
	@$(BIN)/python -m cluster fetch
	@exec $(BIN)/python -m cluster serve $(ARGS)

test: env-dev
	@$(BIN)/python -m pytest $(ARGS)

slow: env-dev
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: env-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

env:
	@.ci/setup

env-dev:
	@.ci/setup dev

lock: env-dev
	@$(BIN)/python -m pip freeze --exclude-editable | sed -e '/@/d' -e 's/+.*//' > constraints.txt

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(VENV).lock
