# `make demo` segments real photographs, `make test` runs every check. Each needs Python 3.11 or later and nothing else:
# it makes .venv, installs into it, and does neither again until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTOGRAPHS := predictions/photographs
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --editable

.PHONY: help demo test clean
.NOTPARALLEL:

help:
	@echo "make demo    segment photographs with the example model; pictures in predictions/"
	@echo "make test    ruff, mypy and pytest"
	@echo "make clean   remove $(VENV)"
	@echo "PYTHON=python3.12 in front chooses the interpreter that $(VENV) is made with."

demo: $(VENV)/installed-demo
	@$(BIN)/python -m maskrcnn.demo $(PHOTOGRAPHS)
	$(BIN)/maskrcnn predict example $(PHOTOGRAPHS) --out predictions
	@echo
	@echo "The pictures are in $(CURDIR)/predictions"

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV)

# Photographs come with two packages of which the demonstration needs no code.
$(VENV)/installed-demo: pyproject.toml scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py $(VENV)
	@echo "Installing into $(VENV)"
	@$(INSTALL) ".[onnx]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps scikit-image matplotlib
	@touch $@

# The stamp is written last, so an interrupted installation is taken up again.
$(VENV)/installed-%: pyproject.toml scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py $(VENV)
	@echo "Installing into $(VENV). PyTorch is several GB when it is not cached: minutes on a fast line."
	@$(INSTALL) ".[$*]"
	@touch $@
