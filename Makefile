# Without Backprop. Two commands matter: `make lab` to learn, `make test` to check everything.
# Every target is a thin line over one tool, run by the course's own Python in .venv.

PY    := .venv/bin/python
STAMP := .venv/.installed
CODE  := course_utils tools tests lessons

# For programs that load torch before course_utils can say so; course_utils/__init__.py has the reason.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 2000
# A sign that a terminal does not have becomes a ?, where it would end the program.
export PYTHONIOENCODING ?= :replace
# What Python has compiled it keeps, also where the surroundings forbid it, as containers do: without, every process that
# makes an optimiser compiles half of torch again, which takes 3 s.
export PYTHONDONTWRITEBYTECODE :=

# Two files at once, one thread each: on two cores quicker than one file on two threads.
TWO_AT_ONCE := -n 2 --dist loadfile
# One lesson or some of them: N=06, N="06 22". Without N, all.
NOTEBOOKS    = $(if $(N),$(N:%=notebooks/%_*.ipynb),notebooks/*.ipynb)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help .venv data lab test beside check lint types spelling build-check clock units notebooks-test offline browser \
        build lesson results figures bench cost soak lock audit clean

# An environment made in another folder (the clone was moved), or whose Python has gone, counts as missing.
$(shell { [ "$$(cat $(STAMP))" = "$$(pwd -P)" ] && $(PY) -c ''; } >/dev/null 2>&1 || rm -f $(STAMP))

help:            ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

.venv: $(STAMP)  ## create or update the environment
$(STAMP): requirements.lock pyproject.toml
	@sh tools/make_env.sh

data: $(STAMP)   ## find MNIST, or download it
	@echo "[data] looking for MNIST"
	@$(PY) -c "from course_utils.files import main; raise SystemExit(main('mnist'))"

lab: data        ## open JupyterLab at the first lesson
	@set -- notebooks/[0-9]*.ipynb; echo "[lab] JupyterLab at $$1 (Ctrl-C twice ends it)"; \
	 root=; if [ "$$(id -u)" = 0 ]; then root=--allow-root; echo "[lab] better not as root: what a notebook runs is root, too"; fi; \
	 exec $(PY) -m jupyter lab $$root --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url="/lab/tree/$$1" $(LAB_ARGS)

# A page waits more than it works, so the browser's part runs beside the rest, which takes what it leaves (nice) of the
# cores: a page has to answer at once, a lesson under nbval has time. What the browser's part says is shown at the end.
test: lint spelling build-check data clock beside  ## everything a reviewer needs
	@echo "[test] all passed"

beside: $(STAMP)  ## part of test: browser beside types, units and notebooks-test
	@trap 'kill 0' INT TERM; log=$$(mktemp); $(MAKE) --no-print-directory browser >"$$log" 2>&1 & pages=$$!; \
	 nice $(MAKE) --no-print-directory types units notebooks-test; rest=$$?; \
	 wait $$pages; pages=$$?; cat "$$log"; rm "$$log"; exit $$((rest + pages))

check: lint types spelling build-check data clock units  ## before a commit: test without browser; of the lessons, those changed since main
	@changed=$$($(PY) -m tools.changed) && echo "[check] lessons changed since main: $${changed:-none}" && \
	 if [ -n "$$changed" ]; then $(MAKE) --no-print-directory notebooks-test N="$$changed"; fi

lint: $(STAMP)   ## part of test: ruff on code and notebooks
	@echo "[lint] ruff: rules and layout"
	@$(PY) -m ruff check --quiet $(CODE) notebooks
	@$(PY) -m ruff format --quiet --check $(CODE)

types: $(STAMP)  ## part of test: mypy on the package and the tools
	@echo "[types] mypy (about 15 s the first time)"
	@$(PY) -m mypy --no-error-summary

spelling: $(STAMP)  ## part of test: codespell on prose and code
	@echo "[spelling] codespell"
	@$(PY) -m codespell_lib

build-check: $(STAMP)  ## part of test: notebooks and exported code agree with the lessons
	@echo "[build-check] is what the build writes in step with lessons/?"
	@$(PY) -m tools.build --check

clock: $(STAMP)  ## part of test: what has a limit in seconds, with nothing beside it
	@echo "[clock] pytest: limits in seconds"
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests/package -m clock

units: $(STAMP)  ## part of test: the package, the science, the tools
	@echo "[units] pytest: the package, the science, the tools"
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests lessons -m "not browser and not clock" $(TWO_AT_ONCE)

# CI=true makes a failed check in a lesson an error; IPYTHONDIR brings in the hook that surfaces swallowed ones.
notebooks-test: $(STAMP)  ## part of test: nbval runs every lesson from top to bottom (one: N=06)
	@echo "[notebooks-test] nbval: lessons from top to bottom"
	@CI=true OMP_NUM_THREADS=1 IPYTHONDIR="$(CURDIR)/tests/ipython" $(PY) -m pytest $(NOTEBOOKS) \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout 180 --durations=5 $(TWO_AT_ONCE)

# In a clone, where no data/ is found, and with a proxy that nobody answers: the lessons as they run on a train.
offline: $(STAMP)  ## every lesson of the last commit on the small digits, without MNIST and without a network (one: N=06)
	@echo "[offline] nbval: lessons on the stand-in digits"
	@clone=$$(mktemp -d); trap 'rm -rf "$$clone"' EXIT; git clone --quiet . "$$clone/course" && cd "$$clone/course" && \
	 export CI=true OMP_NUM_THREADS=1 PYTHONPATH="$$PWD" IPYTHONDIR="$$PWD/tests/ipython" COURSE_DATA= https_proxy=http://127.0.0.1:9 && \
	 "$(CURDIR)/$(PY)" -m pytest $(NOTEBOOKS) --nbval-lax --nbval-current-env --nbval-cell-timeout 180 $(TWO_AT_ONCE)

browser: $(STAMP)  ## part of test: every lesson's widgets in headless Chromium (one: N=06; PAGES=1 keeps pictures of whole pages)
	@echo "[browser] lessons in JupyterLab and Notebook 7, in headless Chromium"
	@OMP_NUM_THREADS=1 N="$(N)" PAGES="$(PAGES)" $(PY) -m pytest tests/browser -m browser -rs --durations=5 -n 2 --maxschedchunk=1

build: $(STAMP)  ## lessons/ to notebooks/, exported code and maps
	@echo "[build] notebooks and exported code from lessons"
	@$(PY) -m tools.build

lesson: $(STAMP)  ## run one lesson, write an HTML page: make lesson N=06
	@test -n "$(N)" || { echo "Which lesson? For example: make lesson N=06"; exit 2; }
	@set -- $(NOTEBOOKS); test -f "$$1" || { echo "There is no notebook $$1"; exit 2; }; \
	 echo "[lesson] running $$1"; \
	 $(PY) -m nbconvert --log-level=ERROR --to html --execute --ExecutePreprocessor.timeout=600 --output-dir html "$$1" && \
	 echo "html/$$(basename "$$1" .ipynb).html"

# An interrupted run goes on where it was; `make results ARGS=--fresh` begins from nothing.
results: $(STAMP)  ## measure all stored tables anew, or one lesson's: make results N=06
	@echo "[results] measuring what lessons/*/study.yaml asks for"
	@$(PY) -m tools.results $(N) $(ARGS)

figures: $(STAMP)  ## draw lessons/*/made/*.svg (one lesson's: make figures N=06)
	@echo "[figures] drawing lessons/*/made"
	@$(PY) -m tools.figures $(N)

bench: $(STAMP)  ## measure speed, print one table (on a GPU alone: ARGS=--gpu)
	@echo "[bench] timing; keep the machine quiet"
	@$(PY) -m tools.bench $(ARGS)

cost: $(STAMP)   ## measure every lesson's time and memory (one: make cost N=06)
	@echo "[cost] running the lessons; keep the machine quiet"
	@$(PY) -m tools.cost $(N)

soak: $(STAMP)   ## does memory stay? 200 runs of a playground, 10,000 draws of the statistics (minutes)
	@echo "[soak] memory"
	@$(PY) -m tools.soak memory

# Pins already there are kept; `make lock LOCK_ARGS=--upgrade` takes the newest of everything.
lock: $(STAMP)   ## pin requirements.lock anew from pyproject.toml (needs uv)
	@echo "[lock] pinning requirements.lock"
	@uv="$$(command -v uv || echo .venv/bin/uv)"; "$$uv" pip compile --quiet --universal --python-version 3.11 pyproject.toml \
	  --extra lab --group dev --no-emit-index-url --no-header --no-annotate -o requirements.lock $(LOCK_ARGS)

# pip-audit is no package of the course: pipx fetches it, which the runners of the weekly job have.
audit:           ## hold the pins of requirements.lock against known vulnerabilities (needs pipx and a network)
	@echo "[audit] pip-audit on requirements.lock"
	@pipx run pip-audit --disable-pip --no-deps -r requirements.lock

clean:           ## remove pages, screenshots and caches (.venv and data/ stay)
	@echo "[clean] removing html/, screenshots/ and caches"
	@rm -rf html screenshots build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	@find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
