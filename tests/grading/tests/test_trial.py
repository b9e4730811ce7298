"""Students' functions run independently, and their results and failures are reported."""

import json
import os
import zipfile

import nbformat
import numpy as np
import pytest

from grading.execution import harness, trial
from grading.execution.empty import empty_suite
from grading.execution.reference import answers, expected, imports, notebook_of
from grading.execution.trial import (
    Unit,
    exercise,
    plain_file,
    prepare,
    read_arrays,
    read_lines,
    run_directly,
    run_units,
    try_submission,
    write_modules,
)
from grading.intake.collect import File
from grading.intake.submission import FileKind, Problem, read
from grading.judging.functions import verdicts
from grading.outcomes import NOT_ATTEMPTED, FailureKind
from grading.paths import ROOT
from grading.pipeline import known, units_to_try_again, write_helpers
from grading.rubric import OUTPUTS, RUBRIC
from mflib.training import epochs

HARNESS_FILE = "grading/execution/harness.py"
RIGHT = (ROOT / "mflib" / "bpr.py").read_text(encoding="utf-8")
STEP = "    others = likes.with_columns(negatives)\n"
# The first statements of bpr_step, or the file, and the expected message.
BAD = {
    "crash": ("import os; os._exit(0)", "its process ended before there was a result"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "its process ended (killed by signal 9)"),
    "exit": ("raise SystemExit(0)", "ends the program"),
    "memory": ("x = torch.ones(2**45)", "raises RuntimeError"),
    "slow": ("while True: negatives = negatives + 0", "ended after 0.5 s of CPU time"),
    "asleep": ("import time; time.sleep(99)", "ended by the wall-time limit"),
    "raises": ("raise ValueError('mine')", "raises ValueError: mine"),
    "claims": (
        "raise ValueError('ended by the wall-time limit')",
        "raises ValueError: ended by the wall-time limit",
    ),
    "appends": ("raise ValueError('appended')", "raises ValueError: appended"),
    "empty": ("raise NotImplementedError('yours')", "not attempted"),
    "helper": ("hardest()", "raises TypeError"),
    "no numbers": ("return lambda: 1", "in the losses expected numbers"),
    "torch refuses": (
        "torch.ones(2, device='meta').to('cpu')",
        "raises NotImplementedError: Cannot copy out of meta tensor",
    ),
    "another folder": ("import os; os.chdir('/')", ""),
    "odd type": ("torch.set_default_dtype(torch.float16); torch.randn = None", ""),
}
FILES = {
    "syntax": (RIGHT.replace("def bpr_step(", "def bpr_step(("), "'(' was never closed"),
    "import": ("import nothing_of_the_sort\n" + RIGHT, "line 1 raises ModuleNotFoundError"),
    "import that is needed": (
        "import nothing_of_the_sort as n\n" + RIGHT.replace(STEP, f"    n.f()\n{STEP}"),
        "name 'n' is not defined; before that, bpr.py, line 1 raises ModuleNotFoundError",
    ),
    "exit at the end": (RIGHT + "\nimport sys\nsys.exit(1)\n", "ends the program"),
    "question at the end": (RIGHT + "\nname = input('name? ')\n", "raises EOFError"),
    "screen": ("import matplotlib\nmatplotlib.use('nbagg5')\n" + RIGHT, "raises ValueError"),
    "data": ("from mflib.data import *\nload_movielens()\n" + RIGHT, "line 2 raises DataError"),
    "arguments": (
        "import argparse\nargparse.ArgumentParser().parse_args()\n" + RIGHT,
        "",
    ),
    "folder at import": ("import os\nos.chdir('/')\n" + RIGHT, ""),
    "future": ("from __future__ import annotations\n" + RIGHT + "\nx: Undefined = 1\n", ""),
    "missing": (RIGHT.replace("def bpr_step(", "def step("), "expected a function bpr_step"),
    "stub beneath": (
        RIGHT.replace("    if D == 1:", "    raise NotImplementedError\n    if D == 1:").replace(
            STEP, "    hardest(P, Q, b, likes, negatives[:, None])\n" + STEP
        ),
        "needs hardest, which is not attempted",
    ),
    "relative": (RIGHT.replace("from mflib.", "from ."), ""),
    "null": (RIGHT + "\0", "null bytes"),
    "right": (RIGHT, ""),
}


# These are right although a statement of the file fails, which a remark reports.
REMARKS = {"import", "exit at the end", "question at the end", "screen", "data"}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    empty_suite(folder)
    return folder


@pytest.fixture(scope="module")
def results(suite, tmp_path_factory):
    """Run all of BAD and FILES together."""
    folder = tmp_path_factory.mktemp("trial") / "work"
    prepare(folder, suite)
    limits = "CPU_SECONDS, WALL_SECONDS = 0.5, 8 "
    source = (folder / HARNESS_FILE).read_text(encoding="utf-8")
    assert "CPU_SECONDS, WALL_SECONDS = 20, 200 " in source
    changed = source.replace("CPU_SECONDS, WALL_SECONDS = 20, 200 ", limits)
    (folder / HARNESS_FILE).write_text(changed, encoding="utf-8")
    texts = {w: RIGHT.replace(STEP, f"    {first}\n{STEP}") for w, (first, _) in BAD.items()}
    texts |= {what: text for what, (text, _) in FILES.items()}
    units = []
    for what, text in texts.items():
        (folder / what).mkdir()
        (folder / what / "bpr.py").write_text(text, encoding="utf-8")
        units.append(Unit("bpr/bpr_step", file=f"{what}/bpr.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "WALL_SECONDS", 8)
        found = run_units(folder, units, [7], run_directly)
    expect = lambda key: expected(key, (7,))  # noqa: E731
    each = [verdicts([pair], expect, {}) for pair in zip(units, found, strict=True)]
    return {what: verdict["bpr/bpr_step"] for what, verdict in zip(texts, each, strict=True)}


@pytest.mark.parametrize("what", [*BAD, *FILES])
def test_each_bad_answer_has_its_failure(results, what):
    says = (BAD | FILES)[what][1]
    verdict = results[what]
    assert says in verdict.sentence
    assert verdict.is_right == (says == "" or what in REMARKS), verdict.sentence
    line = 1 + RIGHT[: RIGHT.index(STEP)].count("\n")
    if what in ("raises", "slow", "helper"):
        assert verdict.where == f"bpr.py, line {line}"
    if what == "syntax":
        assert verdict.where.startswith("bpr.py, line ")


def test_failures_have_kinds_independent_of_messages(results):
    kinds = {what: verdict.failure.kind for what, verdict in results.items() if verdict.failure}
    assert kinds["asleep"] is FailureKind.WALL_TIME
    assert kinds["slow"] is FailureKind.CPU_TIME
    assert kinds["crash"] is kinds["killed"] is FailureKind.CRASHED
    assert kinds["empty"] is FailureKind.NOT_ATTEMPTED
    assert kinds["torch refuses"] is FailureKind.RAISED, "only an empty function is not attempted"
    assert kinds["claims"] is kinds["appends"] is FailureKind.RAISED


def test_forged_wall_time_limits_are_ignored(tmp_path):
    line = {"unit": 1, "kind": "wall time", "message": "ended by the wall-time limit"}
    (tmp_path / "r").write_text(json.dumps(line), encoding="utf-8")
    assert read_lines(tmp_path / "r", 3, 10.0) == {}
    assert set(read_lines(tmp_path / "r", 3, trial.WALL_SECONDS + 1.0)) == {1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a run as a whole")
def test_a_run_continues_after_a_crashed_unit(tmp_path, suite):
    """This also holds on platforms that cannot fork a process for each unit."""
    folder = tmp_path / "work"
    prepare(folder, suite)
    source = (folder / HARNESS_FILE).read_text(encoding="utf-8")
    (folder / HARNESS_FILE).write_text(source.replace('== "linux"', '== "no"'), encoding="utf-8")
    for what, text in {"bad": "import os\nos._exit(5)", "good": RIGHT}.items():
        (folder / what).mkdir()
        (folder / what / "bpr.py").write_text(text, encoding="utf-8")
    units = [Unit("bpr/bpr_step", file=f"{w}/bpr.py") for w in ("bad", "good")]
    bad, good = run_units(folder, units, [7], run_directly)
    assert "exit code 5" in bad.failure.message
    assert not good.failure
    assert len(good.arrays) == 8, "two calls of four outputs"


def test_exercises_and_loops_run_without_kernel_and_data(suite, tmp_path):
    folder = tmp_path / "work"
    prepare(folder, suite)
    sources = {
        "svd/textbook": "from mflib.sparse import Entries\n\n"
        "def textbook(P, Q, b_u, b_i, mu, u, i, r, lr, reg):\n"
        "    order = u.argsort(stable=True)\n"
        "    entries = Entries.at(u[order], i[order], (len(P), len(Q)))\n"
        "    svd_step(P, Q, b_u, b_i, mu, entries, r[order], lr, reg)",
        "als/smallest_penalty": "print(smallest_penalty(model.predict(1)))\n"
        f"{answers()['als/smallest_penalty']}\nassert data",
        "svd/new_user": "def new_user(Q, b, mu, r, reg):\n    return 0 * b",
        "bpr/chosen": "raise NotImplementedError",
        "warp/average_weight": "average_weight = lambda v, n, most, L: sum(\n"
        "    v / n * (1 - v / n) ** (d - 1) * L[(n - 1) // d] for d in range(1, most + 1))",
    }
    units = [exercise(key, [("answer", source)], imports()) for key, source in sources.items()]
    found = run_units(folder, units, [7], run_directly)
    each = verdicts(
        zip(units, found, strict=True),
        lambda key: expected(key, (7,)),
        {"als": [Problem("als.py: is a pipe", FileKind.MODULE)]},
    )
    assert "calls svd_step of mflib, which is empty here" in each["svd/textbook"].failure.message
    assert each["svd/textbook"].where == "cell answer, line 6"
    assert each["als/smallest_penalty"].fraction == each["warp/average_weight"].fraction == 1
    assert each["svd/new_user"].fraction == 0
    assert each["svd/new_user"].where == "cell answer, lines 1-2", "of a wrong answer, all of it"
    assert each["bpr/chosen"].failure == NOT_ATTEMPTED
    assert each["als/cholesky"].failure.message == "als.py: is a pipe"
    assert set(each) == set(OUTPUTS)


# Searches the loop's working folder for a kernel and calls it.
LOADS_KERNEL = """import importlib.util, pathlib
def textbook(P, Q, b, users, i, j, *rates):
    (file,) = [f for f in pathlib.Path().rglob("*.py") if "keep_u" in f.read_text()]
    spec = importlib.util.spec_from_file_location("own", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    order = users.argsort(stable=True)
    likes = module.Entries.at(users[order], i[order], (len(P), len(Q)))
    module.bpr_step(P, Q, b, likes, j[order], *rates)"""


@pytest.fixture(scope="module")
def tried(suite, tmp_path_factory):
    """Run a submission with additional files, a wrong helper, and a loop that loads a kernel."""
    modules = {name: (ROOT / "mflib" / f"{name}.py").read_text(encoding="utf-8") for name in RUBRIC}
    modules["svd"] = modules["svd"].replace(
        "    return torch.square(error) / 2\n",
        "    from .halves import half\n    return half(torch.square(error)).numpy().tolist()\n",
    )
    modules["halves"] = "import os\nos.chdir('/')\n\ndef half(x):\n    return x / 2\n"
    modules["als"] = modules["als"].replace("    return total\n", "    return -total\n")
    files = {f"mflib/{name}.py": text for name, text in modules.items()}
    files["notebooks/counts.py"] = "def count(Q):\n    return np.shape(Q)[0]\nimport numpy as np"
    files["notebooks/random.py"] = "raise SystemExit('hides a library')"
    new_user = answers()["svd/new_user"].replace("reg * len(Q)", "reg * count(Q)")
    for task, cells in {
        "svd": {"exercise-2": f"from counts import count\n{new_user}"},
        "bpr": {"loop": LOADS_KERNEL},
    }.items():
        notebook = notebook_of(task)
        for cell in notebook.cells:
            cell.source = cells.get(cell.id, cell.source)
        files[f"notebooks/{RUBRIC[task].notebook}.ipynb"] = nbformat.writes(notebook)
    given = read({n: File(lambda t=t: t.encode(), 0.0) for n, t in files.items()}, known())
    folder = tmp_path_factory.mktemp("tried")
    keys = {"svd/svd_step", "svd/new_user", "bpr/textbook"}
    keys |= {"als/over_entries", "als/conjugate_gradient", "als/cholesky"}

    def expect(key):
        return expected(key, (7,))

    pairs = try_submission(given, folder, suite, [7], imports(), run_directly, only=keys)
    found = verdicts(pairs, expect, {})
    again = [unit for unit in units_to_try_again(given, found) if unit.key in keys]
    prepare(folder / "again", suite)
    write_modules(given, folder / "again")
    write_helpers(again, folder / "again")
    results = run_units(folder / "again", again, [7], run_directly)
    return found, verdicts(zip(again, results, strict=True), expect, {})


def test_students_files_are_imported_and_cannot_replace_libraries(tried):
    found, _ = tried
    assert found["svd/new_user"].is_right, found["svd/new_user"].sentence
    assert found["svd/svd_step"].is_right, found["svd/svd_step"].sentence


def test_losses_may_be_a_list_in_a_model(tried):
    """The estimators accept the same losses as the comparison, even in another folder."""
    found, _ = tried
    assert found["svd/svd_step"].makes_right_lists, found["svd/svd_step"].model_message


def test_a_loop_finds_no_kernel(tried):
    found, _ = tried
    assert "not enough values to unpack" in found["bpr/textbook"].failure.message


def test_a_wrong_helper_affects_only_its_function(tried):
    found, again = tried
    for name in ("over_entries", "conjugate_gradient", "cholesky"):
        assert not found[f"als/{name}"].is_right
    for name in ("conjugate_gradient", "cholesky"):
        verdict = again[f"als/{name}"]
        assert verdict.is_right, verdict.sentence
        assert verdict.makes_right_lists, "also the model is trained with the helper"
        assert verdict.sentence == f"{name}: done with the reference's over_entries"
    assert again["als/over_entries"].failure == NOT_ATTEMPTED, "it is not tried again itself"


@pytest.mark.parametrize("losses", [[0.5, 1.5], (0.5, 1.5), np.array([0.5, 1.5])])
def test_an_epoch_takes_losses_in_any_form(losses):
    class Model:
        learning_rate, decay = 0.1, 1.0

        def _step(self, batch, learning_rate):
            return losses

    import torch

    assert next(epochs(Model(), [{}, {}], torch.Generator())) == 1.0


@pytest.mark.parametrize("kind", ["link", "pipe", "large", "folder"])
def test_only_plain_files_are_read(tmp_path, kind):
    file, other = tmp_path / "0.npz", tmp_path / "elsewhere.npz"
    np.savez(other, a=np.ones(3))
    assert read_arrays(other)["a"].sum() == 3
    if kind == "link":
        file.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        with file.open("wb") as stream:
            stream.truncate(2**29)
    with pytest.raises(ValueError, match=r"expected 0\.npz to be a file"):
        plain_file(file)
    file.rename(tmp_path / "results.jsonl")
    assert read_lines(tmp_path / "results.jsonl", 3, 0.0) == {}


def test_pickles_and_bombs_are_refused(tmp_path):
    file = tmp_path / "0.npz"
    np.savez(file, a=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="Object arrays"):
        read_arrays(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"not an array")
    with pytest.raises(ValueError, match="expected arrays, got other bytes called a"):
        read_arrays(file)
    np.savez_compressed(file, bomb=np.zeros(2**24))
    with pytest.raises(ValueError, match="expected at most"):
        read_arrays(file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"unit": ',
        '{"unit": [1]}',
        '{"unit": 9}',
        '{"unit": 2, "kind": "x"}',
        "[" * 9000,
    ],
)
def test_malformed_lines_of_results_are_ignored(tmp_path, content):
    good = json.dumps({"unit": 1, "kind": "raised", "message": "x"})
    (tmp_path / "r").write_text(f"{good}\n{content}", encoding="utf-8")
    assert set(read_lines(tmp_path / "r", 3, 0.0)) <= {1}
    assert read_lines(tmp_path / "nothing", 3, 0.0) == {}


def test_estimators_call_kernels_with_other_argument_names():
    def empty(P, users, learning_rate):
        raise NotImplementedError

    def own(factors, u, lr):
        factors.requires_grad_(True)
        (factors * lr).sum().backward()
        return factors * lr

    import torch

    P, call = torch.ones(2), harness.called_like(own, empty, "svd/svd_step")
    with torch.no_grad():  # as while a model is trained
        returned = call(P=P, learning_rate=3.0, users=None)
    assert returned.tolist() == [0], "losses do not stay in a model"
    assert not P.requires_grad


def test_every_kernel_of_a_task_is_listed():
    for entry in RUBRIC.values():
        assert set(entry.lists) <= set(entry.kernels)
