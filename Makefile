# Everything is installed into .venv, made with PYTHON. PyTorch is needed by the tests and benchmarks only. On Linux,
# PyPI's PyTorch brings CUDA along; its much smaller CPU build comes from PyTorch's own index, whose address its
# installation page gives: make test TORCH_INDEX=<that address>
PYTHON ?= python3
TORCH_INDEX ?=
TORCH := torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check
JOBS ?= 2

.PHONY: mnist test lint bench clean
.DELETE_ON_ERROR:

mnist: $(VENV)/installed
	$(RUN) examples/mnist/main.py $(ARGUMENTS)

test: $(VENV)/installed-test
	$(RUN) -m pytest -n $(JOBS) $(ARGUMENTS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/installed-benchmark
	$(RUN) -m benchmarks $(ARGUMENTS)
	$(RUN) -m benchmarks.footprint

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: a set-up is repeated when pyproject.toml changes. pip before 21.3 cannot install a project in place.
$(VENV)/created:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "pip>=21.3"
	touch $@

$(VENV)/installed: pyproject.toml $(VENV)/created
	$(INSTALL) --editable .
	touch $@

# Asked for first and on its own, so that no other version is pulled in on the way.
$(VENV)/installed-torch: pyproject.toml $(VENV)/created
	$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	touch $@

$(VENV)/installed-test $(VENV)/installed-dev $(VENV)/installed-benchmark: $(VENV)/installed-%: pyproject.toml $(VENV)/installed-torch
	$(INSTALL) --editable ".[$*]"
	touch $@ $(VENV)/installed
