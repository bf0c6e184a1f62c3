# Two commands do everything on a fresh Debian or Ubuntu (Python 3.11 or newer, make): `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The one package outside the locks: its CPU and its CUDA build have one version, and a machine's pip chooses between them.
TORCH := 2.13.0
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
SPEC := repositories/file-type/forge.yaml
FORGE := $(BIN)/tritonforge

.PHONY: demo test check format docs table faults corpus scale bench lock clean

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
	@echo
	@echo "Or deploy it behind HAProxy, and change it later without losing a request (docs/deploy.md):"
	@echo "  tritonforge deploy here           # processes of this machine; apt install haproxy"
	@echo "  tritonforge deploy local-docker   # containers; pip install 'tritonforge[docker]'"

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and not exhaustive" -n auto --dist loadfile --no-loadscope-reorder

# What CI runs besides: style, types, layers, and the slow tests.
check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict tritonforge benchmarks
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test
	$(BIN)/python -c "from tritonforge.spec.schema import reference_page; print(reference_page(), end='')" > docs/spec.md

# The table of sources and backends, made by building and serving every pair (about a quarter of an hour).
table: $(VENV)/.test
	TRITONFORGE_UPDATE_TABLE=1 $(BIN)/python -m pytest tests/live/test_table.py -m slow

# The tables of faults that builds and rollouts survive, made by going through all of them (an hour).
faults: $(VENV)/.test
	TRITONFORGE_UPDATE_TABLE=1 $(BIN)/python -m pytest tests/faults/test_build_points.py tests/faults/test_build_store.py \
	  tests/faults/test_build_world.py
	$(BIN)/python -m pytest tests/faults/test_build_table.py
	TRITONFORGE_UPDATE_TABLE=1 $(BIN)/python -m pytest tests/faults/test_rollout_points.py tests/faults/test_rollout_world.py
	$(BIN)/python -m pytest tests/live/test_one_slot.py -k every_point

# What is claimed about speed, measured against the alternatives in one run (benchmarks/README.md). It wants a machine
# that has nothing else to do, and 10 GB of its disk.
bench: $(VENV)/.test
	@$(BIN)/python benchmarks/table.py

# ONNX's own models and many generated signatures, built, loaded and asked in the embedded Triton (half an hour).
corpus: $(VENV)/.test
	$(BIN)/python -m pytest -s tests/live/test_onnx_corpus.py tests/live/test_signatures_property.py

# A spec of 1,000 models, a model of 4 GB and a repository of 20 GB (five minutes, and 25 GB of the disk).
scale: $(VENV)/.test
	$(BIN)/python -m pytest tests/live/test_scale.py

# Needs uv (https://pypi.org/project/uv). Existing pins are kept where they still fit, and both locks agree.
LOCK := uv pip compile pyproject.toml - --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command "make lock" --no-emit-package torch
lock:
	$(LOCK) --extra simplify -o requirements.lock </dev/null
	echo "torch==$(TORCH)" | $(LOCK) --extra dev -c requirements.lock -o requirements-dev.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tritonforge needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps -e .
	@touch $@

# The lock is complete, so it needs no resolution (--no-deps), which would look for torch. Then pip finds what torch
# depends on in place; where it took a CUDA build, it fetches the libraries of that as well.
$(VENV)/.test: requirements-dev.lock pyproject.toml Makefile | $(VENV)/bin/python
	$(PIP) --require-hashes --no-deps -r requirements-dev.lock
	$(PIP) torch==$(TORCH)
	$(PIP) --no-deps -e .
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) repositories/*/build
