PYTHON ?= python3
DATASET ?= ml-100k
VENV := .venv/bin/python
# What students, teachers and graders call, without make, too; it makes the environment .venv.
SUITE := $(PYTHON) tests/suite.py

# On a busy machine, threads of torch that wait for each other actively would take each other's processor.
export GOMP_SPINCOUNT ?= 10000

.PHONY: run test test-browser verify reproduce reproduce-arm64 lab notebooks assignment grade gradescope grader-accuracy submissions fuzz mutants bench bench-busy bench-distributed bench-large bench-published search

# Execute the four notebooks, print what came out, and make a site and a playground of them: build/$(DATASET)/index.html.
run:
	$(SUITE) run --dataset $(DATASET)

# Style, types, unit tests, then the notebooks against their stored outputs.
test:
	$(SUITE) test

# The notebooks in JupyterLab, the pages and the playground, in Chromium; says what is missing where it cannot.
test-browser: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-100k
	$(VENV) -m pytest -m browser -rs tests/browser

# The grader's command: execute the notebooks against their stored outputs, a line for each.
verify:
	$(SUITE) verify --dataset $(DATASET)

# The same under all disturbances (threads, vector units, hash seeds, locale, folder, order of the rows, load, a user's
# settings, …), then in environments with other versions; a row that cannot be run says why.
reproduce:
	$(SUITE) reproduce --dataset $(DATASET)

# The same on ARM64, emulated, on MovieLens-100K: Debian, root, and an hour of the processor.
reproduce-arm64: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-100k
	sh tests/notebooks/arm64.sh

# JupyterLab on the notebooks.
lab:
	$(SUITE) lab --dataset $(DATASET)

# Store the outputs anew, on both data sets.
notebooks: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) tests/notebooks/execute.py store ml-1m
	$(VENV) -m mflib.data ml-100k
	$(VENV) tests/notebooks/execute.py store ml-100k

# The student edition, without the answers: build/assignment/ and build/assignment.zip.
assignment:
	$(SUITE) assignment

# Marks for SUBMISSION (zips or folders, or a folder of many) into build/grades/; needs bubblewrap.
# OPTIONS="--soft 2026-01-31 --hard 2026-02-14" sets deadlines, --again grades what has not changed, too,
# --secret 123 repeats a run's hidden inputs, --trust goes without the sandbox; tests/grading/README.md has all.
grade:
	$(SUITE) grade --dataset $(DATASET) $(SUBMISSION) $(OPTIONS)

# An autograder to be uploaded to Gradescope: build/gradescope.zip. OPTIONS="--cap 70" as above.
gradescope: .venv/ready-for-tests
	$(VENV) tests/grading/gradescope.py build $(OPTIONS)

# How often the grader errs: right and wrong answers, forms of packing, into build/grader-accuracy.md.
grader-accuracy: .venv/ready-for-tests
	OMP_NUM_THREADS=1 $(VENV) tests/grading/accuracy.py

# Right and hostile submissions, graded in the sandbox: what each gets and why, into build/submissions.md.
submissions: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-100k
	rm -f build/submissions.md
	$(VENV) -m pytest -m slow tests/grading/test_submissions.py

# What strangers may hand in or leave behind, spoilt at random, for MINUTES of the processor; what fails goes to build/fuzz/.
MINUTES ?= 15
fuzz: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-100k
	$(VENV) tests/grading/fuzz.py --minutes $(MINUTES)

# Quality and speed beside implicit, LightFM and Surprise, into build/bench.md; needs MovieLens-1M.
bench: .venv/ready-for-tests
	$(VENV) -m pip install --disable-pip-version-check -c requirements.txt -r tests/benchmarks/requirements.txt
	$(VENV) -m mflib.data ml-1m
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/quality.py
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/speed.py

# One epoch of each model on a generated set of MovieLens-32M's shape, into build/bench.md; needs MovieLens-1M.
bench-large: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) tests/benchmarks/large.py

# ALS by several processes: speed and memory on that set, hashes on MovieLens, into build/bench.md; OPTIONS=--small tries it.
# Then a generated class of CLASS submissions by 1, 2 and 4 graders that are killed: one hash of all they write.
CLASS ?= 6
bench-distributed: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-100k
	$(VENV) tests/benchmarks/distributed.py $(OPTIONS)
	CLASS=$(CLASS) OMP_NUM_THREADS=1 $(VENV) -m pytest -s -m slow tests/grading/test_class.py -k "graded_alike or parallel"

# Seconds an iteration alone and beside endless loops, into build/bench.md; needs MovieLens-1M.
bench-busy: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) tests/benchmarks/busy.py

# RecBole's protocol beside its published table, and what stands above the models; needs MovieLens-1M.
bench-published: .venv/ready-for-tests
	$(VENV) -m pip install --disable-pip-version-check -c requirements.txt -r tests/benchmarks/requirements.txt
	$(VENV) -m mflib.data ml-1m
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/published.py
	OPENBLAS_NUM_THREADS=1 $(VENV) tests/benchmarks/ceilings.py

# The search behind the defaults, on validation parts of MovieLens-1M's training data, into build/bench.md.
search: .venv/ready-for-tests
	$(VENV) -m mflib.data ml-1m
	$(VENV) tests/benchmarks/search.py

# Mutation testing of mflib by the unit tests (hours; weekly): change lines one at a time, list the changes no test detects.
mutants: .venv/ready-for-tests
	$(VENV) -m pip install --disable-pip-version-check -c requirements.txt mutmut==3.8.1
	mkdir -p mutants
	PYTHONPATH=mutants OMP_NUM_THREADS=1 $(VENV) -m mutmut run
	$(VENV) -m mutmut results

.venv/ready-for-tests: requirements.txt pyproject.toml
	$(SUITE) tools
