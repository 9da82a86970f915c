# make demo   train and test detection, segmentation and classification on a small embedded data set
# make test   run the tests          make test-all   the slow ones as well
# make lint   check style and imports  make types      check types (pyproject.toml says where)
# make docs   build the documentation as a site, in build/docs; the Chinese one in build/docs/zh_CN
# make figures   draw the figures of README and docs from what make demo left
# VENV=... PYTHON=...   choose another environment or interpreter
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: env demo figures test test-all lint types docs

env:
	@tools/make_env.sh $(VENV)

demo: env
	$(RUN) tools/quickstart.py

figures: env
	$(RUN) -m dev.figures

test: env
	$(RUN) -m pytest

test-all: env
	$(RUN) -m pytest -m 'not gpu'

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

types: env
	$(VENV)/bin/mypy

docs: env
	$(RUN) -m sphinx -W -n --keep-going -q -c docs . build/docs
	$(RUN) -m sphinx -W -n --keep-going -q -c docs -D language=zh_CN . build/docs/zh_CN
