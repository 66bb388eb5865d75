# make quickstart   set up .venv, install, run the whole flow on this machine's own Python texts
# make test         set up the same way, run the test suite
# TORCH_INDEX=URL   take torch from this index instead of pip's default (see README, "Where torch comes from")

PYTHON ?= python3
TORCH_INDEX ?=
OUT ?= runs/quickstart
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: quickstart test install clean

quickstart: $(STAMP)
	$(BIN)/headrace quickstart --out $(OUT)

test: $(STAMP)
	$(BIN)/python -m pytest

install: $(STAMP)

# torch first and alone: it decides which build the rest is installed beside.
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Headrace needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "torch==2.13.*" $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $(STAMP)

clean:
	rm -rf .venv build *.egg-info platform/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
