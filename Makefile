# The book and its library. `make help` lists what can be made.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
NEWEST ?= 3.13
READY := $(VENV)/.ready
export PYTHONPATH := $(CURDIR)
export PYTHONUNBUFFERED := 1
# Text is UTF-8 whatever the locale says; and modules are compiled once, not by every kernel.
export PYTHONUTF8 := 1
unexport PYTHONDONTWRITEBYTECODE

# One thread in each of the two workers of the tests, so that their results and their times do not depend on the load.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
NBVAL := -p tests.nbval_settings --nbval --nbval-current-env --nbval-cell-timeout 300 --nbval-sanitize-with tests/nbval_sanitize.cfg
PYTEST := $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
COVERAGE := --cov=spurlib --cov-report=term-missing:skip-covered
BUILD := $(PY) -m tools.build

NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Name another one: make PYTHON=python3.12 ..."; exit 1; }

.PHONY: help renew lock oldest newest book html pdf problems print slides assignments grade test versions lint notebooks notebooks-text check-notebooks notebooks-elsewhere perturbed lab bench serve clean
.DEFAULT_GOAL := help

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An environment that was moved, or whose interpreter is gone, is made anew.
SOUND := $(shell $(PY) -S -c '' >/dev/null 2>&1 && \
  { grep '^command = ' $(VENV)/pyvenv.cfg 2>/dev/null | grep -vqF " $(CURDIR)/$(VENV)" || echo yes; })

$(READY): requirements.txt requirements.lock pyproject.toml tools/environment.py $(if $(SOUND),,renew)
	@$(NEW_ENOUGH)
	@$(PYTHON) -m tools.environment $(VENV)
	@touch $@

lock: ## derive requirements.lock, with hashes, from requirements.txt
	@$(NEW_ENOUGH)
	@$(PYTHON) -m tools.environment --lock $(VENV)

book: $(READY) ## execute every chapter, then build the pages; warnings are errors
	@$(BUILD) --fresh

html: $(READY) ## build the pages, executing only what changed
	@$(BUILD)

pdf: $(READY) ## print the book as _build/book.pdf; needs Chromium
	@$(PY) -m tools.pdf

print: pdf problems ## print the book, the exercises and the solutions, with Chromium

problems: $(READY) ## print the exercises as _build/problems.pdf and the solutions as _build/solutions.pdf, with Chromium
	@$(PY) -m tools.problems

slides: $(READY) ## build the slides with the pages (PDF=1: and print them, with Chromium)
	@$(PY) -m tools.slides $(if $(PDF),--pdf)

assignments: $(READY) ## make the weekly assignments from the exercises (WEEKS="3 4": only these)
	@$(PY) -m tools.assignments make $(WEEKS)

grade: $(READY) ## grade the notebooks of a week (WEEK=3 FROM=FOLDER; SOLUTIONS=1: with solutions in the feedback)
	@$(PY) -m tools.assignments grade $(if $(SOLUTIONS),--solutions) $(WEEK) '$(FROM)'

test: $(READY) ## run all tests: style, types, library, book, notebooks, browser
	@trap 'exit 130' INT; failed=0; \
	echo "1 of 2: the notebooks, executed and compared"; \
	$(ONE_THREAD) $(PYTEST) $(NBVAL) --keep chapters || failed=1; \
	echo "2 of 2: everything else, with pages made from what was just executed"; \
	$(ONE_THREAD) $(PYTEST) $(COVERAGE) tests/book/test_site.py tests || failed=1; \
	exit $$failed

versions: $(READY) ## print the versions to name when an error is reported
	@$(PY) -c "import platform, numpy, scipy, torch; print('Python', platform.python_version(), platform.machine(), platform.system()); print('numpy', numpy.__version__, 'scipy', scipy.__version__, 'torch', torch.__version__)"
	@git describe --always --dirty 2>/dev/null || true

lint: $(READY) ## check style and types only
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

notebooks: $(READY) ## execute every chapter and store chapters/*.ipynb
	@$(PY) -m tools.notebooks $(NAMES)

notebooks-text: $(READY) ## store changed text in chapters/*.ipynb; execute only changed code
	@$(PY) -m tools.notebooks --text $(NAMES)

check-notebooks: $(READY) ## compare the stored notebooks with a fresh execution
	$(ONE_THREAD) $(PYTEST) $(NBVAL) chapters

perturbed: $(READY) ## compare them with kernels wrong in the twelfth digit (NAMES=...: of these chapters only)
	$(ONE_THREAD) $(PY) -m tests.perturbed $(NAMES)

notebooks-elsewhere: $(READY) ## compare them as if on an older processor, with one thread
	OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(MAKE) check-notebooks

oldest: $(READY) ## run the tests of the library on the oldest versions that pyproject.toml allows
	@$(PY) -m tools.environment --oldest 3.11 _build/oldest
	$(ONE_THREAD) _build/oldest/bin/python -m pytest -n 2 tests --ignore tests/book

newest: $(READY) ## run them on the newest versions, with Python $(NEWEST)
	@$(PY) -m tools.environment --newest $(NEWEST) _build/newest
	$(ONE_THREAD) _build/newest/bin/python -m pytest -n 2 tests --ignore tests/book

lab: $(READY) ## open the chapters in JupyterLab
	$(PY) -m jupyter lab chapters

bench: $(READY) ## measure the last commit against peers (BASE=COMMIT: and that commit; ONLY=...: these cases)
	$(PY) bench/run.py $(if $(BASE),--base '$(BASE)') $(if $(ONLY),--only '$(ONLY)')

serve: html ## show the built pages on a local address
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html 8000

clean: ## remove all that was built, but not the environment
	rm -rf _build .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
