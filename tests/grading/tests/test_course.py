"""Decisions of instructors, and class-wide results: marks, pages, students who have left."""

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from grading.course.course import Course, add_options, feedback, read_course
from grading.course.deadlines import Deadlines, deadline
from grading.csv_tables import read_table
from grading.intake.collect import File, Package, packages
from grading.intake.layouts import Owner, Platform
from grading.judging.verdict import Verdict
from grading.outcomes import NOT_ATTEMPTED
from grading.reporting.render import (
    Difficulty,
    class_page,
    hardest,
    histogram,
    report_page,
    write_class_tables,
    write_report,
)
from grading.reporting.retention import GONE, restore, retire
from grading.result import Decision, Earlier, Missed, Override, Report, Score, load
from grading.rubric import OUTPUTS, POINTS, RUBRIC

BERLIN = ZoneInfo("Europe/Berlin")


def report_of(name="a", points=20.0, **decision):
    """Return a report with ``points`` / 20 of the points of each part."""
    marks = {task: {part: most * points / 20 for part, most in POINTS.items()} for task in RUBRIC}
    score = Score(marks, {task: [] for task in RUBRIC}, complete=True)
    return Report(name, score, Decision(**decision))


def package_of(name="a", time="2026-01-31T12:00", number=""):
    seconds = datetime.fromisoformat(time).replace(tzinfo=BERLIN).timestamp()
    return Package(name, {"svd.py": File(lambda: b"", seconds)}, owners=[Owner(name, number)])


def options(*given):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return SimpleNamespace(shard=None, **vars(parser.parse_args([*map(str, given)])))


SOFT = ("--soft", "2026-01-31", "--hard", "2026-02-14", "--timezone", "Europe/Berlin")


def decided(folder, package, *given, points=20.0):
    course = read_course(options(*SOFT, *given), [package], folder)
    report = report_of(package.name, points)
    report.decision = course.decide(package.name, package.handed_in)
    return report


def test_late_submissions_get_at_most_the_cap(tmp_path):
    found = {}
    for time in ("2026-01-31T23:59", "2026-02-01T00:01", "2026-02-14T23:59", "2026-02-15T00:01"):
        report = decided(tmp_path, package_of(time=time), "--cap", 70)
        found[time] = report.total
        text = report_page(report)
        assert ("That is after" in text) == bool(report.decision.missed)
        assert "the dates of files, which can be forged" in text
    assert list(found.values()) == [100, 70, 70, 0]
    for points, says in ((20.0, "80 of 100.0 points count"), (0.0, "at most 80 points count")):
        report = decided(tmp_path, package_of(time="2026-02-10T20:00"), points=points)
        page = report_page(report)
        assert f"after 2026-01-31 23:59 CET, the soft deadline: {says}." in page


def test_times_come_from_the_table_and_missing_ones_are_reported(tmp_path, capsys):
    (tmp_path / "t.csv").write_text(
        "name,time\nA,2026-02-01T00:30+02:00\nB,2026-02-01T00:30Z\n", encoding="utf-8"
    )
    found = [package_of(name, "2026-03-01T00:00") for name in "ABC"]
    course = read_course(options(*SOFT, "--times", tmp_path / "t.csv"), found, tmp_path)
    decisions = [course.decide(package.name, package.handed_in) for package in found]
    assert [one.missed for one in decisions] == [None, Missed.SOFT, Missed.HARD]
    assert decisions[0].handed_in == "2026-01-31 23:30 CET"
    assert [one.time_from[:9] for one in decisions] == ["t.csv", "t.csv", "the dates"]
    assert "no time for 1 submissions (C): the dates of files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("points", "time", "counts", "said"),
    [
        (20.0, "2026-02-10T00:00", 80.0, "this one counts"),
        (20.0, "2026-02-20T00:00", 60.0, "that one counts"),
        (14.0, "2026-02-10T00:00", 70.0, "this one counts"),
        (10.0, "2026-02-10T00:00", 60.0, "that one counts"),
    ],
)
def test_the_better_of_two_submissions_counts(tmp_path, points, time, counts, said):
    before = decided(tmp_path, package_of(), points=12.0)
    write_report(before, tmp_path / "soft")
    report = decided(tmp_path, package_of(time=time), "--earlier", tmp_path / "soft", points=points)
    assert report.total == counts
    assert f"The earlier submission (2026-01-31 12:00 CET) has 60; {said}." in report_page(report)
    assert report.earlier_counts == (said == "that one counts")


def test_students_with_only_an_earlier_submission_stay_in_the_class(tmp_path):
    write_report(decided(tmp_path, package_of("A"), points=12.0), tmp_path / "soft")
    course = read_course(
        options("--earlier", tmp_path / "soft"), [package_of("B")], tmp_path / "hard"
    )
    assert [(r.name, r.total) for r in course.only_earlier(["B"])] == [("A", 60)]
    assert course.only_earlier(["A", "B"]) == []
    with pytest.raises(ValueError, match=r"expected the reports of an earlier run in .*none"):
        read_course(options("--earlier", tmp_path / "none"), [package_of()], tmp_path)


def test_overrides_count_are_shown_and_can_be_withdrawn(tmp_path):
    file = tmp_path / "o.csv"
    file.write_text(
        'name,task,part,points,comment\na,svd,correctness,38.5,"a <typo>"\na,,total,,well done\n',
        encoding="utf-8",
    )
    report = decided(tmp_path, package_of(), "--overrides", file, points=5.0)
    assert report.score.marks["svd"]["correctness"] == 10, "what the grader found stays"
    assert report.counted["svd"]["correctness"] == 38.5
    assert report.total == round(25 + 28.5 / 4, 1)
    text = report_page(report)
    assert "svd, correctness: 38.5 points instead of 10.0, a &lt;typo&gt;</li>" in text
    assert "<li>the whole: well done</li>" in text
    assert "<td>38.5 of 40</td>" in text
    write_report(report, tmp_path)
    assert load(tmp_path / "submissions" / "a.json") == report
    file.write_text("name,task,part,points,comment\na,,total,99,", encoding="utf-8")
    assert decided(tmp_path, package_of(time="2026-02-20T00:00"), "--overrides", file).total == 99
    course = read_course(options(), [package_of()], tmp_path)
    report.decision = course.decide("a", package_of().handed_in)
    assert (report.total, report.decision.overrides) == (25, [])
    file.write_text("name,task,part,points,comment\nnobody,,total,99,", encoding="utf-8")
    with pytest.raises(ValueError, match=r"o.csv, line 2: there is no submission 'nobody'"):
        decided(tmp_path, package_of(), "--overrides", file)


MOODLE = "Identifier,Full name,Email address,Status,Grade,Maximum grade,Feedback comments\n"


def test_pages_have_pseudonyms_and_exports_have_names(tmp_path):
    key, sheet, target = tmp_path / "private" / "key.csv", tmp_path / "m.csv", tmp_path / "out"
    sheet.write_text(
        f"{MOODLE}Participant 7,Jane Doe,j@x.org,,,100,\nParticipant 8,Bo,b@x.org,,,100,",
        encoding="utf-8",
    )
    (tmp_path / "o.csv").write_text(
        "name,task,part,points,comment\nJane Doe,,total,77,", encoding="utf-8"
    )
    found = [package_of("Jane Doe", number="7"), package_of("bo"), package_of("Mal")]
    given = ("--anonymous", key, "--moodle", sheet, "--overrides", tmp_path / "o.csv")
    course = read_course(options(*given), found, target)
    names = [package.name for package in found]
    assert all(name.startswith("student-") for name in names)
    assert {row.cells["name"] for row in read_table(key).rows} == {"Jane Doe", "bo", "Mal"}
    reports = [report_of(name) for name in names]
    for report, package in zip(reports, found, strict=True):
        report.decision = course.decide(package.name, package.handed_in)
    said = course.export(reports)
    assert "m.csv: no row matches the submission 'Mal'" in said
    assert "moodle.csv: 2 of 2 rows are filled in" in said
    rows = read_table(key.parent / "moodle.csv").rows
    assert [row.cells["Grade"] for row in rows] == ["77.00", "100.00"]
    assert not target.exists(), "nothing with names is written there"
    with pytest.raises(ValueError, match="expected the key file outside of"):
        read_course(options("--anonymous", target / "key.csv"), found, target)


def test_two_submissions_of_one_person_are_not_filled_in(tmp_path):
    sheet = tmp_path / "m.csv"
    sheet.write_text(f"{MOODLE}Participant 7,Jane Doe,j@x.org,,,100,\n", encoding="utf-8")
    found = [package_of("Jane Doe", number="7"), package_of("Mal", number="7")]
    course = read_course(options("--moodle", sheet), found, tmp_path)
    said = course.export([report_of(package.name) for package in found])
    assert said[0].endswith("Jane Doe and Mal match the same person: fill it in by hand")
    assert said[1] == "moodle.csv: 0 of 1 rows are filled in"
    assert read_table(tmp_path / "moodle.csv").rows[0].cells["Grade"] == ""


@pytest.mark.parametrize("why", ["review", "not graded"])
def test_undecided_marks_are_not_filled_in(tmp_path, why):
    sheet = tmp_path / "m.csv"
    sheet.write_text(f"{MOODLE}Participant 7,Jane Doe,j@x.org,,,100,\n", encoding="utf-8")
    course = read_course(options("--moodle", sheet), [package_of("Jane Doe")], tmp_path)
    report = report_of("Jane Doe")
    report.score.review = ["a newer Python"] if why == "review" else []
    report.score.complete = why == "review"
    grades = []
    for override in ([], [Override("", "talk", 5.0)], [Override("", "total", 60.0)]):
        report.decision.overrides = override
        said = course.export([report])
        grades.append(read_table(tmp_path / "moodle.csv").rows[0].cells["Grade"])
        assert ("Jane Doe: not filled in" in said[0]) == (not grades[-1])
    assert grades == ["", "", "60.00"], "the points of the talk decide nothing"


def test_feedback_is_one_line():
    report = report_of(points=5.0, missed=Missed.SOFT, most=20.0, earlier=Earlier(24.0, ""))
    report.decision.overrides = [Override("", "total", None, "=1")]
    said = feedback(report)
    assert said.startswith("svd 25.0, als 25.0, bpr 25.0, warp 25.0 of 100 each; after the soft")
    assert said.endswith("at most 20 points; the earlier submission counts; =1")


def test_numbers_of_platforms_distinguish_namesakes(tmp_path):
    for folder in (
        "Jane Doe_11_assignsubmission_file_",
        "Jane Doe_12_assignsubmission_file_",
        "Participant_13_assignsubmission_file_",
        "Bo_14_assignsubmission_file_",
    ):
        (tmp_path / "moodle" / folder).mkdir(parents=True)
        (tmp_path / "moodle" / folder / "svd.py").write_text("x = 1", encoding="utf-8")
    found = {p.name: p.number for p in packages([tmp_path / "moodle"])}
    assert found == {"Jane Doe 11": "11", "Jane Doe 12": "12", "Participant 13": "13", "Bo": "14"}
    (tmp_path / "canvas").mkdir()
    for file in ("doejane_LATE_21_5_svd.py", "anon_x7_6_svd.py", "index_22_7_svd.py"):
        (tmp_path / "canvas" / file).write_text("x = 1", encoding="utf-8")
    several = {p.name: p for p in packages([tmp_path / "canvas"])}
    assert {name: p.number for name, p in several.items()} == {
        "doejane": "21",
        "anon x7": "x7",
        "index (student)": "22",
    }
    assert several["doejane"].notes == ["marked as late by Canvas"]
    assert set(several["anon x7"].files) == {"svd.py"}


def class_of_three():
    right = {key: Verdict(key) for key in OUTPUTS}
    bad = right | {"svd/check_step": Verdict("svd/check_step", failure=NOT_ATTEMPTED)}
    reports = [report_of("A & <b>", 20.0), report_of("B", 11.0), report_of("C", 0.0)]
    for report, functions in zip(reports, (right, bad, bad), strict=True):
        report.score.functions = functions
    reports[2].score.notes = ["none of the expected files"]
    return reports


def test_class_page_shows_marks_and_difficulties():
    reports = class_of_three()
    assert histogram([0, 9.9, 10, 55, 99.9, 100]) == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    assert hardest(reports)[0] == Difficulty("svd/check_step", pytest.approx(1 / 3), 1, 2)
    assert hardest([]) == []
    text = class_page(reports)
    assert "3 submissions, mean 51.7, median 55.0, from 0 to 100 points" in text
    assert '<a href="A%20%26%20%3Cb%3E.html">A &amp; &lt;b&gt;</a>' in text
    assert 'aria-label="Marks: 1 of 0 to 10 points, 1 of 50 to 60 points' in text
    assert text.count("<rect") == 10
    assert "<b>A" not in text
    assert "<script" not in text
    assert "0 submissions" in class_page([])
    assert class_page([]).count("height=0") == 10


def test_pages_of_students_who_left_are_retired(tmp_path):
    for report in class_of_three():
        report.name = report.name[0]
        write_report(report, tmp_path)
    (tmp_path / "index.html").write_text("the class", encoding="utf-8")
    (tmp_path / "submissions" / "mine.json").write_text("{}", encoding="utf-8")
    (tmp_path / "submissions" / "D.json").write_text(
        (tmp_path / "submissions" / "A.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    assert retire(tmp_path, {"A"}) == ["B", "C"]
    here = {path.name for path in tmp_path.glob("*.html")}
    assert here == {"index.html", "A.html"}
    stored = {path.stem for path in (tmp_path / "submissions").iterdir()}
    assert stored == {"A", "D", "mine"}, "what the grader has not written stays"
    restore(tmp_path, "B")
    restore(tmp_path, "nobody")
    assert load(tmp_path / "submissions" / "B.json").name == "B"
    assert (tmp_path / "B.html").exists()
    assert not (tmp_path / GONE / "B.html").exists()


def test_published_answers_are_marked_and_a_task_repeats_no_sentence():
    report = report_of()
    report.score.published = {"svd/svd.py": ["svd_step"], "svd/check_step": [], "als/x": ["<i>"]}
    report.score.reasons = {"svd": ["twice", "twice"], "als": ["twice", "once", "a note"]}
    report.score.notes = ["a note", "a note"]
    text = report_page(report)
    assert "<li>svd: svd_step</li>" in text
    assert "<li>als: &lt;i&gt;</li>" in text
    assert [text.count(said) for said in (">twice<", ">once<", ">a note<")] == [2, 1, 1]
    report.score.published = {"svd/svd.py": []}
    assert "Published" not in report_page(report)


def test_deadlines_without_a_zone_use_the_machines_zone():
    course = Course(Deadlines(deadline("2026-01-31")))
    assert course.decide("a", datetime(2026, 1, 31, 12)).missed is None
    assert course.decide("a", datetime(2026, 2, 2, 12, tzinfo=UTC)).missed is Missed.SOFT


@pytest.mark.parametrize("order", [1, -1])
def test_an_extension_of_a_member_applies_to_the_group(tmp_path, order):
    """An extension is an earlier time, in any order of members and rows."""
    members = [Owner("Ann", "1"), Owner("Bo", "2")][::order]
    rows = ["Ann,2026-02-03T12:00", "bo,2026-01-30T12:00"][::-order]
    (tmp_path / "t.csv").write_text("\n".join(["name,time", *rows]), encoding="utf-8")
    package = Package("Ann and Bo", owners=members)
    course = read_course(options(*SOFT, "--times", tmp_path / "t.csv"), [package], tmp_path)
    assert course.decide("Ann and Bo", None).handed_in == "2026-01-30 12:00 CET"
    more = [*rows, "Ann and Bo,2026-02-04T12:00"][::order]  # of the whole group
    (tmp_path / "t.csv").write_text("\n".join(["name,time", *more]), encoding="utf-8")
    course = read_course(options(*SOFT, "--times", tmp_path / "t.csv"), [package], tmp_path)
    assert course.decide("Ann and Bo", None).missed == Missed.SOFT


def test_times_of_the_platform_precede_dates_of_files(tmp_path):
    package = package_of(time="2026-03-01T00:00")
    package.time, package.platform = datetime(2026, 1, 31, 23, 30), Platform.BLACKBOARD
    decision = decided(tmp_path, package).decision
    assert (decision.handed_in, decision.time_from) == ("2026-01-31 23:30 CET", "Blackboard")
    assert decision.missed is None


def test_feedback_for_zero_has_the_reason_once():
    score = Score(
        {task: dict.fromkeys(POINTS, 0.0) for task in RUBRIC},
        {task: [f"{task}_step: {task}.py: is empty"] for task in RUBRIC},
        notes=["svd.py: is empty"],
    )
    said = feedback(Report("a", score, Decision()))
    assert said.endswith("of 100 each; svd.py: is empty; als_step: als.py: is empty")
    assert "is empty" not in feedback(replace_points(score, 1.0))


def replace_points(score, points):
    marks = {task: dict.fromkeys(POINTS, points) for task in RUBRIC}
    return Report("a", replace(score, marks=marks), Decision())


def test_class_table_shows_times_and_their_sources(tmp_path):
    report = decided(tmp_path, package_of(time="2026-02-10T20:00"))
    write_class_tables([report], tmp_path)
    (row,) = read_table(tmp_path / "class.csv").rows
    shown = {name: row.cells[name] for name in ("name", "handed in", "late", "total")}
    assert shown == {
        "name": "a",
        "handed in": "2026-02-10 20:00 CET",
        "late": "soft",
        "total": "80.0",
    }
    assert row.cells["source of the time"] == "the dates of files", (
        "the page has the whole sentence"
    )
    report.score.notes = ["x" * 300]
    write_class_tables([report], tmp_path)
    (row,) = read_table(tmp_path / "class.csv").rows
    assert row.cells["notes"] == f"{'x' * 99}…", "the page has the whole note"
