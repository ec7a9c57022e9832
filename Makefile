# make demo: the paper's curve with honest controls. make demo-multimodal: which tower can be cut.
# make test: lint, types, floors, tests. make docs: the site, in site/.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-multimodal test docs install install-multimodal install-dev clean

demo: install
	$(BIN)/swe sweep experiment=demo

demo-multimodal: install-multimodal
	$(BIN)/swe sweep experiment=multimodal_demo

test: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --dist worksteal

docs: install-dev
	$(BIN)/zensical build --strict

install: .venv/installed
install-multimodal: .venv/installed-multimodal
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-multimodal: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[multimodal]'
	@touch $@ .venv/installed

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed .venv/installed-multimodal

clean:
	rm -rf .venv .cache build dist site *.egg-info
