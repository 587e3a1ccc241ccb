# Without Backprop. Two commands matter: `make lab` to learn, `make test` to check everything.
# Every target is a thin line over one tool, run by the course's own Python in .venv.

PY    := .venv/bin/python
STAMP := .venv/.installed
HAND_WRITTEN := course_utils tools tests

# For programs that load torch before course_utils can say so; course_utils/__init__.py has the reason.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 2000

# Two files at once, one thread each: on two cores quicker than one file on two threads.
TWO_AT_ONCE := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help .venv data lab test lint types spelling check-build binder unit first-lesson lessons-test \
        notebooks-test browser build lesson results figures bench cost lock clean

# An environment made in another folder (the clone was moved), or whose Python has gone, counts as missing.
$(shell { [ "$$(cat $(STAMP))" = "$$(pwd -P)" ] && $(PY) -c ''; } >/dev/null 2>&1 || rm -f $(STAMP))

help:            ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

.venv: $(STAMP)  ## create or update the environment
$(STAMP): requirements.lock pyproject.toml
	@sh tools/make_env.sh

data: $(STAMP)   ## find MNIST, or download it
	@echo "[data] looking for MNIST"
	@$(PY) -c "from course_utils.data import main; raise SystemExit(main('mnist'))"

lab: data        ## open JupyterLab at the first lesson
	@set -- notebooks/[0-9]*.ipynb; echo "[lab] JupyterLab at $$1 (Ctrl-C twice ends it)"; \
	 root=; if [ "$$(id -u)" = 0 ]; then root=--allow-root; fi; \
	 exec $(PY) -m jupyter lab $$root --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url="/lab/tree/$$1" $(LAB_ARGS)

test: lint spelling check-build data first-lesson unit lessons-test  ## everything a reviewer needs
	@echo "[test] all passed"

lint: $(STAMP)   ## part of test: ruff on code and notebooks
	@echo "[lint] ruff: rules and layout"
	@$(PY) -m ruff check --quiet $(HAND_WRITTEN) notebooks
	@$(PY) -m ruff format --quiet --check $(HAND_WRITTEN)

types: $(STAMP)  ## part of first-lesson: mypy on the package and the tools
	@echo "[types] mypy (about 15 s the first time)"
	@$(PY) -m mypy --no-error-summary

spelling: $(STAMP)  ## part of test: codespell on prose and code
	@echo "[spelling] codespell"
	@$(PY) -m codespell_lib $(HAND_WRITTEN) lessons README.md Makefile

check-build: $(STAMP)  ## part of test: notebooks and rules agree with the lessons
	@echo "[check-build] are notebooks/ and course_utils/rules/ in step with lessons/?"
	@$(PY) tools/build.py --check

binder: $(STAMP)  ## part of unit: repo2docker's dry run, and what the image would run
	@echo "[binder] repo2docker, without building"
	@$(PY) -m pytest tests/test_binder.py

unit: $(STAMP)   ## part of test: the package and the science
	@echo "[unit] pytest: the package, the science, the tools"
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests -m "not browser" $(TWO_AT_ONCE)

# mypy keeps one core busy, a notebook the other.
first-lesson: $(STAMP)  ## part of test: nbval on the first lesson; beside it, mypy
	@$(MAKE) --no-print-directory types & types=$$!; \
	 $(MAKE) --no-print-directory notebooks-test N=00 && wait $$types

# Each lesson takes a minute, so it runs once: in JupyterLab, as its reader runs it, and by nbval where no Chromium is.
lessons-test: $(STAMP)  ## part of test: run every lesson, in Chromium where there is one
	@$(PY) tests/conftest.py || $(MAKE) --no-print-directory notebooks-test
	@$(MAKE) --no-print-directory browser

# CI=true makes a failed check in a lesson an error; IPYTHONDIR brings in the hook that surfaces swallowed ones.
notebooks-test: $(STAMP)  ## run the notebooks from top to bottom without a browser (one: N=06)
	@echo "[notebooks-test] nbval: notebooks from top to bottom"
	@CI=true OMP_NUM_THREADS=1 IPYTHONDIR="$(CURDIR)/tests/ipython" $(PY) -m pytest notebooks/$(N)*.ipynb \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout 180 --durations=5 $(TWO_AT_ONCE)

browser: $(STAMP)  ## drive JupyterLab in a headless Chromium (PAGES=1 keeps a picture of every page)
	@echo "[browser] every lesson in JupyterLab, in headless Chromium"
	@OMP_NUM_THREADS=1 PAGES="$(PAGES)" $(PY) -m pytest tests/test_browser.py -m browser -rs --durations=5 -n 2 --maxschedchunk=1

build: $(STAMP)  ## lessons/*.md to notebooks/ and course_utils/rules/
	@echo "[build] notebooks and rules from lessons"
	@$(PY) tools/build.py

lesson: $(STAMP)  ## run one lesson, write an HTML page: make lesson N=06
	@test -n "$(N)" || { echo "Which lesson? For example: make lesson N=06"; exit 2; }
	@set -- notebooks/$(N)_*.ipynb; test -f "$$1" || { echo "There is no notebook $$1"; exit 2; }; \
	 echo "[lesson] running $$1"; \
	 $(PY) -m nbconvert --log-level=ERROR --to html --execute --ExecutePreprocessor.timeout=600 --output-dir html "$$1" && \
	 echo "html/$$(basename "$$1" .ipynb).html"

# An interrupted run goes on where it was; `make results ARGS=--fresh` begins from nothing.
results: $(STAMP)  ## measure all stored tables anew, or one lesson's: make results N=06
	@echo "[results] measuring results/"
	@$(PY) tools/results.py $(N) $(ARGS)

figures: $(STAMP)  ## draw lessons/figures/*.svg (one lesson's: make figures N=06)
	@echo "[figures] drawing lessons/figures"
	@$(PY) tools/figures.py $(N)

bench: $(STAMP)  ## measure speed, print one table (on a GPU alone: ARGS=--gpu)
	@echo "[bench] timing; keep the machine quiet"
	@$(PY) tools/bench.py $(ARGS)

cost: $(STAMP)   ## measure every lesson's time and memory (one: make cost N=06)
	@echo "[cost] running the lessons; keep the machine quiet"
	@$(PY) tools/lessons_cost.py $(N)

# Pins already there are kept; `make lock LOCK_ARGS=--upgrade` takes the newest of everything.
lock: $(STAMP)   ## pin requirements.lock anew from pyproject.toml (needs uv)
	@echo "[lock] pinning requirements.lock"
	@uv="$$(command -v uv || echo .venv/bin/uv)"; "$$uv" pip compile --quiet --universal --python-version 3.11 \
	  pyproject.toml --group dev --no-emit-index-url --no-header --no-annotate -o requirements.lock $(LOCK_ARGS)

clean:           ## remove pages, screenshots and caches (.venv and data/ stay)
	@echo "[clean] removing html/, screenshots/ and caches"
	@rm -rf html screenshots build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	@find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
