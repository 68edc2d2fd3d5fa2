# make demo: the main job on the embedded model. make test: the suite, whose properties draw the same
# cases every time (pytest by itself draws new ones). make test-slow: the long rest.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[models,report,learn,remote,serve,dev]'
	touch $@

demo: install
	$(BIN)/sightline collect --model embedded:vlm --data scenes:test --limit 600 --samples 10 \
	  --options --blank --layers 0.25,0.5,0.75,1.0 -o runs/demo
	$(BIN)/sightline evaluate runs/demo
	$(BIN)/sightline report runs/demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --hypothesis-profile=ci

test-slow: install
	HF_HUB_OFFLINE=1 $(BIN)/python tests/run_slow.py

docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv runs
