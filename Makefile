# tests/README.md lists the commands. SUITE creates the environment .venv; without make, call it directly.
PYTHON ?= python3
DATASET ?= ml-100k
MINUTES ?= 5
CLASS ?= 6
VENV := .venv/bin/python
SUITE := $(PYTHON) tests/suite.py
PEERS := $(VENV) -m pip install --disable-pip-version-check -c requirements.txt -r tests/benchmarks/requirements.txt

# On a busy machine, torch's threads would wait actively and take each other's CPU time.
export GOMP_SPINCOUNT ?= 10000

.PHONY: run lab test verify reproduce notebooks assignment grade gradescope grader-accuracy submissions test-browser mutants bench bench-published bench-large search

# Execute the notebooks, print results, build pages and a playground: build/$(DATASET)/index.html.
run:
	$(SUITE) run --dataset $(DATASET)

# JupyterLab on the notebooks.
lab:
	$(SUITE) lab --dataset $(DATASET)

# Style, types, unit tests, then the notebooks against their stored outputs.
test:
	$(SUITE) test

# Execute the notebooks against their stored outputs; build/verify.html shows what differs.
verify:
	$(SUITE) verify --dataset $(DATASET)

# The same under all disturbances (threads, vector units, locale, load, …) and with other versions.
reproduce:
	$(SUITE) reproduce --dataset $(DATASET)

# Execute the notebooks on both data sets and store their outputs.
notebooks: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) tests/notebooks/execute.py store ml-1m
	$(VENV) -m mflib.data ml-100k
	$(VENV) tests/notebooks/execute.py store ml-100k

# The student edition, without the answers: build/assignment/ and build/assignment.zip.
assignment:
	$(SUITE) assignment

# Marks for SUBMISSION (zips or folders, or a folder of many) into build/grades/; needs bubblewrap.
# For example OPTIONS="--soft 2026-01-31 --hard 2026-02-14"; tests/grading/README.md lists all options.
grade:
	$(SUITE) grade --dataset $(DATASET) $(SUBMISSION) $(OPTIONS)

# An autograder to upload to Gradescope: build/gradescope.zip. For example OPTIONS="--cap 70".
gradescope:
	$(SUITE) gradescope $(OPTIONS)

# How often the grader errs on right and wrong answers, into build/grader-accuracy.md.
grader-accuracy:
	OMP_NUM_THREADS=1 $(SUITE) grader-accuracy

# Grade right, wrong and hostile submissions, into build/submissions.md; then fuzz-test the parsing of
# untrusted files for MINUTES of CPU time, failures into build/fuzz/.
submissions:
	rm -f build/submissions.md
	$(SUITE) submissions
	$(SUITE) fuzz --minutes $(MINUTES)

# JupyterLab, the pages and the playground in Chromium; reports missing dependencies.
test-browser: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-100k
	$(VENV) -m pytest -m browser -rs tests/browser

# Mutation testing of mflib by the unit tests (hours): list the changed lines that no test detects.
mutants: .venv/ready-for-tests
	$(VENV) -m pip install --disable-pip-version-check -c requirements.txt mutmut==3.8.1
	mkdir -p mutants
	PYTHONPATH=mutants OMP_NUM_THREADS=1 $(VENV) -m mutmut run
	$(VENV) -m mutmut results

# Search with equal budgets, quality and speed compared with other libraries, into build/bench.md and the
# README; needs MovieLens-1M and, for the times, an idle machine.
bench: .venv/ready-for-tests
	$(PEERS)
	$(VENV) -m mflib.data ml-1m
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/trials.py
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/quality.py
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/speed.py
	$(VENV) tests/benchmarks/report.py

# RecBole's protocol compared with its published table, and the ceilings; needs MovieLens-1M.
bench-published: .venv/ready-for-tests
	$(PEERS)
	$(VENV) -m mflib.data ml-1m
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/published.py
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/ceilings.py
	$(VENV) tests/benchmarks/report.py

# Cost on a generated set of MovieLens-32M's shape: each model in one process, ALS in several, with equal
# factors; then a class of CLASS submissions graded by 1, 2 and 4 processes. OPTIONS=--small tries it.
bench-large: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) -m mflib.data ml-100k
	$(VENV) tests/benchmarks/large.py
	$(VENV) tests/benchmarks/distributed.py $(OPTIONS)
	CLASS=$(CLASS) OMP_NUM_THREADS=1 $(VENV) -m pytest -s -m slow tests/grading/tests/test_determinism.py -k "graded_alike or parallel"

# The search that found the defaults, on validation parts of MovieLens-1M's training data, into build/bench.md.
search: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) tests/benchmarks/search.py

.venv/ready-for-tests: requirements.txt pyproject.toml
	$(SUITE) tools
