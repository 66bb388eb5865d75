# make quickstart   set up .venv, install, run the whole flow on this machine's own Python texts
# make test         set up the same way, run the test suite
# make faults       every kind of fault, those of training and of drivers often and at random moments, about 45 minutes on an idle
#                   machine; FAULTS_SEED=N for other moments
# make soak         half an hour of whole runs with a kill every minute: goodput, and whether anything grows
# TORCH_INDEX=URL   take torch from this index instead of pip's default (see README, "Where torch comes from")

PYTHON ?= python3
TORCH_INDEX ?=
OUT ?= runs/quickstart
FAULTS_SEED ?= 0
FAULTS := tests/faults tests/cluster/test_autoscaling.py tests/cluster/test_notice.py tests/control/test_restarts.py tests/test_shuffle.py
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: quickstart test faults soak install clean

quickstart: $(STAMP)
	$(BIN)/headrace quickstart --out $(OUT)

test: $(STAMP)
	$(BIN)/python -m pytest

faults: $(STAMP)
	HEADRACE_FAULTS=full HEADRACE_FAULTS_SEED=$(FAULTS_SEED) $(BIN)/python -m pytest $(FAULTS) --timeout=3000 --durations=0 -v

soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py --seed $(FAULTS_SEED)

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
