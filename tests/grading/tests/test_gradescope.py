"""Gradescope: the uploaded zip and the results of a submission."""

import os
import stat
import zipfile
from datetime import datetime

import psutil
import pytest

from grading.autograder import gradescope
from grading.course.course import Course
from grading.course.deadlines import HandedIn
from grading.isolation.sandbox import Limits, UnprotectedError, run
from grading.result import Report, Score
from grading.rubric import POINTS, RUBRIC

METADATA = {
    "created_at": "2026-02-01T14:22:32.365935-08:00",
    "assignment": {"due_date": "2026-01-31T23:00:00.000000-08:00", "late_due_date": None},
    "users": [{"name": "A", "email": "a@x.org"}],
    "previous_submissions": [],
}


def shown(points, metadata):
    time, deadlines = gradescope.handed_in(metadata, 80)
    marks = {task: dict.fromkeys(POINTS, points) for task in RUBRIC}
    score = Score(marks, {task: [f"{task}: no"] for task in RUBRIC}, notes=["a note"])
    score.declarations = {"svd": "an assistant explained index_add_"}
    course = Course(deadlines, {"a": HandedIn(time, "Gradescope")})
    report = Report("a", score, course.decide("a", None))
    return gradescope.results(report, metadata)


def test_results_have_parts_as_tests_and_respect_the_deadline():
    found = shown(20.0, METADATA)
    assert found["score"] == 80
    assert "after 2026-01-31 23:00 UTC-08:00, the soft deadline" in found["output"]
    assert "a note" in found["output"]
    marked = found["tests"][:-2]
    assert len(marked) == len(RUBRIC) * len(POINTS)
    assert sum(test["max_score"] for test in marked) == 100
    first = found["tests"][0]
    assert first == {
        "name": "svd: correctness",
        "score": 5.0,
        "max_score": 10.0,
        "output": "- svd: no",
    }
    own = METADATA | {"users": [{"assignment": {"due_date": "2026-02-02T00:00:00Z"}}]}
    assert shown(20.0, own)["score"] == 100, "the student has more time"
    hard = METADATA | {
        "assignment": {"due_date": "2026-01-01T00:00Z"} | {"late_due_date": "2026-01-02T00:00Z"}
    }
    assert shown(20.0, hard)["score"] == 0


def test_declarations_and_questions_are_for_the_instructor_only():
    hidden = [test for test in shown(20.0, METADATA)["tests"] if test.get("visibility")]
    assert {test["visibility"] for test in hidden} == {"hidden"}
    declared, questions = (test["output"] for test in hidden)
    assert declared == "svd: an assistant explained index_add_"
    assert questions.count("Expected: ") == 3
    public = str([test for test in shown(20.0, METADATA)["tests"] if test not in hidden])
    assert "Expected: " not in public
    assert "index_add_" not in public


def test_questions_stay_the_same_when_a_group_submits_again():
    """Every run has another secret."""
    drawn = []
    for secret in range(5):
        sheet = gradescope.for_instructor(Report("a", Score(secret=secret)), METADATA)
        drawn.append(sheet[1]["output"])
    assert len(set(drawn)) == 1
    others = [METADATA | {"users": [{"name": name}]} for name in "BCDEFGH"]
    assert {gradescope.for_instructor(Report("a"), one)[1]["output"] for one in others} - {*drawn}


def test_results_count_the_best_submission():
    before = METADATA | {"previous_submissions": [{"score": "77.5"}, {"score": None}, {}]}
    assert shown(20.0, before)["score"] == 80
    found = shown(10.0, before)
    assert found["score"] == 77.5
    assert "This submission has 50 points; an earlier one with 77.5 counts." in found["output"]


def test_the_zip_has_the_files_that_gradescope_needs(tmp_path):
    gradescope.build(tmp_path / "build" / "a.zip", 65)
    with zipfile.ZipFile(tmp_path / "build" / "a.zip") as archive:
        names = set(archive.namelist())
        script = archive.read("run_autograder").decode()
        modes = {n: archive.getinfo(n).external_attr >> 16 for n in ("setup.sh", "run_autograder")}
    assert {
        "setup.sh",
        "mflib/svd.py",
        "tests/grading/autograder/gradescope.py",
        "requirements.txt",
    } <= names
    assert "tests/notebooks/ml-100k/01_svd.ipynb" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("data/ml")]
    assert "-m grading.autograder.gradescope run /autograder --cap 65" in script
    assert all(mode & stat.S_IXUSR for mode in modes.values())
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["a.zip"]


SPY = """
test $(id -u) -ne 0 && echo another
cat "$1" 2> /dev/null || echo unread
echo 100 2> /dev/null > "$2" || echo unwritten
setsid sleep 987 > /dev/null &
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, as root does in a container")
def test_in_a_container_students_can_neither_read_the_grader_nor_write_results(tmp_path):
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o711)  # like the grader's folder in the container
    work, private = tmp_path / "work", tmp_path / "private"
    work.mkdir()
    private.mkdir(mode=0o700)
    (private / "answers").write_text("42", encoding="utf-8")
    (work / "spy.sh").write_text(SPY, encoding="utf-8")
    places = [str(private / "answers"), str(private / "results.json")]
    finished = run(["sh", "spy.sh", *places], work, [], Limits(seconds=60), container=True)
    assert finished.output.split() == ["another", "unread", "unwritten"]
    assert (work / "spy.sh").owner() == "root"
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"])]
    assert ["sleep", "987"] not in left, "what is left behind is ended"


def test_a_container_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnprotectedError, match="expected root in the container"):
        run(["true"], tmp_path, [], container=True)


def test_times_come_from_gradescopes_metadata():
    time, deadlines = gradescope.handed_in(METADATA, 80)
    assert time == datetime.fromisoformat(METADATA["created_at"])
    assert deadlines.hard is None


@pytest.mark.parametrize("order", [1, -1])
def test_an_extension_of_a_member_applies_to_the_group_in_any_order(order):
    more = {"assignment": {"due_date": "2026-02-02T00:00:00Z"}}
    users = [{"name": "A"}, more, {"name": "B", "assignment": {}}][::order]
    assert shown(20.0, METADATA | {"users": users})["score"] == 100
    nobody = METADATA | {"users": [{"name": "A"}, {"name": "B"}]}
    assert shown(20.0, nobody)["score"] == 80
