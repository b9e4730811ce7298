"""Students' step checks are marked by the kernels that they refuse."""

import re

import numpy as np
import pytest
import torch
from hypothesis import find
from hypothesis.errors import NoSuchExample

from grading import gradebook
from grading.evaluation.fuzz import right_of
from grading.evaluation.mutations import keys
from grading.execution.empty import empty_suite
from grading.execution.inputs import calls
from grading.execution.reference import answers, edited, function, imports, module_of
from grading.execution.remote import ask, pack, serve, unpack
from grading.execution.trial import (
    Try,
    Version,
    check_units,
    exercise,
    imports_of,
    run_checks,
    run_directly,
)
from grading.intake.submission import Submission
from grading.judging.functions import judge_check
from grading.kernels import wrong
from grading.kernels.hidden import batches, hidden_versions
from grading.kernels.variants import RIGHT, VARIANTS, WRONG
from grading.outcomes import Failure, FailureKind
from grading.pipeline import Options
from grading.rubric import CALLED, OUTPUTS

KEYS = [key for key in OUTPUTS if OUTPUTS[key].kernel]
REFUSED = Failure(FailureKind.REFUSED, "differs")


def trial(right, *others):
    """Return tries of a right kernel and of wrong ones with given outcomes."""
    ends = [(True, right), *((False, other) for other in others)]
    return [Try(Version(f"no. {n}", r, ""), end, "") for n, (r, end) in enumerate(ends)]


def test_a_check_earns_points_in_proportion_to_refused_wrong_kernels():
    verdict = judge_check("svd/check_step", trial(None, REFUSED, None, REFUSED, REFUSED))
    assert verdict.fraction == 3 / 4
    assert verdict.sentence == "check_step: accepts 1 of 4 wrong kernels: no. 2"


def test_a_check_that_refuses_a_right_kernel_earns_nothing():
    verdict = judge_check("svd/check_step", trial(REFUSED, REFUSED))
    assert verdict.fraction == 0
    assert "refuses a right kernel (no. 0): differs" in verdict.sentence


def test_a_check_that_calls_a_right_kernel_wrongly_is_told_so():
    raised = Failure(FailureKind.KERNEL_RAISED, "TypeError: missing an argument")
    (sentence,) = judge_check("svd/check_step", trial(raised, REFUSED)).sentences
    assert "calls a right kernel (no. 0) in a way that makes it raise TypeError" in sentence
    assert "refuses" not in sentence
    assert judge_check("svd/check_step", trial(None, raised, None)).fraction == 1 / 2


def test_only_refusals_count_and_crashes_earn_nothing():
    raised, slow = Failure(FailureKind.RAISED, "raises"), Failure(FailureKind.CPU_TIME, "slow")
    assert judge_check("svd/check_step", trial(None, raised, REFUSED)).fraction == 1 / 2
    assert judge_check("svd/check_step", trial(None, slow, REFUSED)).fraction == 0


@pytest.mark.parametrize("key", KEYS)
def test_hidden_and_public_versions_have_no_common_wrong_kernel(key):
    versions = hidden_versions(key)
    names = {version.name for version in versions if not version.is_right}
    assert len(names) >= 15
    assert sum(version.is_right for version in versions) >= 8
    task = key.partition("/")[0]
    assert not names & set(WRONG[task])


@pytest.mark.parametrize("key", KEYS)
def test_batches_with_wrong_kernels_have_one_right_kernel_each(key):
    """Otherwise a check that remembers versions could accept those that agree."""
    *mixed, last = batches(key, 7)
    for batch in mixed:
        assert sum(version.is_right for version in batch) == 1
    assert all(version.is_right for version in last)
    sizes = [len(batch) for batch in mixed]
    assert len(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1, "the wrong ones are divided evenly"
    names = [version.name for batch in (*mixed, last) for version in batch]
    assert sorted(names) == sorted(version.name for version in hidden_versions(key))
    assert batches(key, 7) == batches(key, 7) != batches(key, 8)


def outcome(kernel, arguments):
    returned = kernel(*arguments)
    parts = returned if isinstance(returned, tuple) else [returned]
    tensors = [v for v in (*arguments, *parts) if isinstance(v, torch.Tensor)]
    return [tensor.double().numpy().copy() for tensor in tensors]


@pytest.mark.parametrize("key", KEYS)
def test_public_variants_agree_with_their_names(key):
    """Wrong variants equal the kernel with this name in wrong.py, right ones the reference."""
    task, kernel = key.partition("/")[0], f"{key.partition('/')[0]}/{OUTPUTS[key].kernel}"
    edits = {row[1]: row[2:] for row in wrong.WRONG if row[0] == kernel}
    for name, variant in VARIANTS[task].items():
        source = module_of(task) if name in RIGHT[task] else edited(kernel, *edits[name])
        space = {"__name__": "own"}
        exec(source, space)
        one = outcome(space[OUTPUTS[key].kernel], calls(kernel, 5)[0])
        other = outcome(lambda *a, v=variant: v(function(kernel), *a), calls(kernel, 5)[0])
        for a, b in zip(one, other, strict=name != "without losses"):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-4), name


def test_remote_kernels_receive_their_arguments():
    arguments = calls("svd/svd_step", 3)[0]
    one, other = (
        outcome(function("svd/svd_step"), unpack(pack(arguments))),
        outcome(function("svd/svd_step"), arguments),
    )
    assert all(map(np.array_equal, one, other))


def test_kernels_in_one_process_are_called_by_their_own_connections(tmp_path):
    files = {n: tmp_path / f"{n}.py" for n in (3, 5, 8)}
    for n, file in files.items():
        file.write_text(str(n), encoding="utf-8")

    def kernel(file):
        number = int(file.read_text(encoding="utf-8"))
        return lambda x: x.mul_(number) / 0 if number == 5 else x.mul_(number)

    connections = serve(files, kernel, 20)
    assert not any(file.exists() for file in files.values())
    one, other = torch.ones(2), torch.ones(2)
    connections[5].close()  # as if the process of another check had ended
    ask(connections[8], [one])
    ask(connections[3], [other])
    assert (one[0], other[0]) == (8, 3)
    for n in (3, 8):
        connections[n].close()


def test_imports_of_a_cell_are_those_that_are_named():
    first = "import numpy as np\nfrom mflib import als, plots\nplots.set_up()\nN = np.pi"
    needed = "import numpy as np\nfrom mflib import als\nN = np.pi"
    assert imports_of(first, frozenset({"np", "als", "plot"})) == needed
    for key in KEYS:
        unit = exercise(key, [("exercise", answers()[key])], imports())
        assert not set(re.findall(r"\w+", unit.cells[0][1])) & {"notebook", "plots", "metrics"}


@pytest.mark.parametrize(
    ("body", "kind", "tries"),
    [
        ("import os; os.kill(os.getpid(), 9)", FailureKind.CRASHED, 1),
        ("assert False", FailureKind.REFUSED, 3),
    ],
)
def test_a_check_that_has_ended_its_process_is_not_tried_again(body, kind, tries, tmp_path):
    """A check that never ends would take its limit of CPU time for each version."""
    key, launched = "svd/check_step", []

    def launch(command, folder):
        launched.append(folder)
        return run_directly(command, folder)

    empty_suite(tmp_path / "suite")
    given = Submission(answers={key: [("exercise", f"def check_step(step): {body}")]})
    wrong = [version for version in batches(key, 7)[0] if not version.is_right][:3]
    units = check_units(given, imports(), lambda key: [wrong])
    pairs = run_checks(given, tmp_path / "run", units, tmp_path / "suite", launch)
    assert [result.failure.kind for _, result in pairs] == [kind] * tries
    assert len(launched) == 1


def test_warm_up_needs_no_outputs_of_checks(monkeypatch, tmp_path):
    """Otherwise no class can be graded."""
    asked = []
    monkeypatch.setattr(gradebook, "expected", lambda key, seeds: asked.append(key))
    for name in ("hidden_split", "quality_of_reference"):
        monkeypatch.setattr(gradebook, name, lambda *given: {})
    gradebook.warm_up(Options("ml-100k", 1, tmp_path), tmp_path)
    assert asked == [key for key in OUTPUTS if key not in KEYS]


def test_results_to_fuzz_are_drawn_for_functions_with_outputs():
    """Otherwise fuzzing ends before it begins."""
    drawn = {find(keys(), lambda drawn, key=key: drawn == key) for key in CALLED}
    assert drawn == set(OUTPUTS) - set(KEYS)
    for key in drawn:
        assert right_of(key)
    for key in KEYS:
        with pytest.raises(NoSuchExample):
            find(keys(), lambda drawn, key=key: drawn == key)
