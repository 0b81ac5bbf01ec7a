# The commands of the book. `make help` lists them.

PYTHON ?= python3
# More options for pip, such as --extra-index-url for another build of torch.
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
CHAPTERS := ch01 ch02 ch03 ch04 ch05 ch06 ch07 ch08

.PHONY: help env book $(CHAPTERS) export html pdf test test-full lint record \
	chat clean

help:  ## this list
	@echo "make … (LLM_PRESET=smoke, pocket or gpt2-124m picks the size)"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) \
		| awk -F ':.*## ' '{ printf "  %-10s %s\n", $$1, $$2 }'
	@echo "  ch01…ch08  one chapter, if it or what it reads has changed"
	@echo "  lab_…      one lab, such as lab_quality"
	@echo "  bench-data chapters 1 and 2 beside other tools; needs real text"
	@echo "  bench-train chapters 3 to 5 beside other tools"
	@echo "  bench-infer  chapter 8 beside transformers, and its engine"
	@echo "  bench-posttrain a step of chapters 6 and 7 beside TRL"
	@echo "  bench-gpu  a training step of GPT-2's size on a GPU"
	@echo "  bench-serve two hundred clients at the server for a minute"

env: $(READY)  ## the environment, in .venv

$(READY): requirements.txt book/constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	sys.exit(0 if (3, 11) <= v <= (3, 13) else "the book needs Python 3.11 \
	to 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.12 …" % v)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@test -f llm_utils.py || $(PYTHON) book/export.py
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		-r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		--no-deps axolotl==0.19.0
	@touch $@

book: $(READY)  ## run what changed, build the HTML book, print the report card
	@$(PY) book/run.py
	@$(PY) book/build.py html
	@$(PY) book/card.py

$(CHAPTERS): $(READY)
	@$(PY) book/run.py $@

lab_%: $(READY)  # a lab, if it or what it reads has changed
	@$(PY) book/run.py $@

export: $(READY)  ## write llm_utils.py from the notebooks
	@$(PY) book/export.py

html: $(READY)  ## the HTML book from the chapters as last run
	@$(PY) book/build.py html

pdf: $(READY)  ## the PDF book from the chapters as last run (needs xelatex)
	@$(PY) book/build.py pdf

test: $(READY)  ## unit tests, all notebooks at the smoke preset, the HTML
	@$(PY) -m pytest -q -m "not full" -n 2 --dist loadfile \
		--no-loadscope-reorder

test-full: $(READY)  ## the long tests, after `make test`
	@$(PY) -m pytest -q -m full -n 2 --dist worksteal

lint: $(READY)  ## style and spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check book
	@$(BIN)/codespell ch*/*.ipynb ch01_data/pocket_world book tests *.md

bench-%: $(READY)  # figures beside other tools: results/bench-….json
	@$(PY) book/bench.py $*

record: $(READY)  ## write the outputs of the last run into the notebooks
	@$(PY) book/record.py

chat: $(READY)  ## talk with the model that you trained (MODEL=…: another)
	@$(PY) ch08_inference/serve.py $(if $(MODEL),--model "$(MODEL)")

clean:  ## remove _build: the next `make book` runs every chapter again
	rm -rf _build
