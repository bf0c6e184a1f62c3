# Two commands do everything on a fresh Debian or Ubuntu (Python 3.11 or newer, make): `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPEC := repositories/file-type/forge.yaml
FORGE := $(BIN)/tritonforge

.PHONY: demo test check lint types layers format docs lock bench clean

demo: $(VENV)/.demo
	@$(FORGE) build --spec $(SPEC)
	@$(FORGE) validate --spec $(SPEC) --reuse
	@$(FORGE) gate --spec $(SPEC) --reuse
	@$(FORGE) report --spec $(SPEC)
	@echo
	@echo "Serve it, and ask it about a file:"
	@echo "  source $(BIN)/activate && cd repositories/file-type"
	@echo "  tritonforge serve &"
	@echo "  tritonforge infer file-type samples/page.html"

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow"

# What CI runs besides: style, types, layers, and the slow tests.
check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict tritonforge
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test
	$(BIN)/python -c "from tritonforge.spec.schema import reference_page; print(reference_page(), end='')" > docs/spec.md

# Needs uv (https://pypi.org/project/uv). Existing pins are kept where they still fit.
lock:
	uv pip compile pyproject.toml --extra simplify --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command "make lock" -o requirements.lock
	uv pip compile pyproject.toml --extra simplify --extra dev --extra docker --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements-dev.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tritonforge needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.test: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) repositories/*/build
