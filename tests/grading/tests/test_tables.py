"""Instructors' tables: reading every program's format, and writing without formulas."""

import csv
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from grading.course import pseudonyms
from grading.course.deadlines import Deadlines, deadline, moment, read_times, timezone
from grading.course.lms import Mark, read_sheet
from grading.course.overrides import by_name, read_overrides
from grading.csv_tables import harmless, number, read_table, write_table
from grading.intake.layouts import Owner
from grading.result import Missed

BERLIN = ZoneInfo("Europe/Berlin")


def file(folder, text, name="given.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_tables_are_read_as_spreadsheets_save_them(tmp_path, encoding, mark):
    text = f'name{mark}note\r\n\r\nÅsa{mark}"two\nlines, {mark}"\r\n Bo{mark}\r\n'
    table = read_table(file(tmp_path, text, encoding=encoding), ("name",))
    assert table.columns == ["name", "note"]
    assert [(row.line, row.cells["name"]) for row in table.rows] == [(3, "Åsa"), (5, "Bo")]
    assert table.rows[0].cells["note"].startswith("two\nlines")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a table with a header, got an empty file"),
        (b"name\nM\xfcller\n", "line 2: expected UTF-8, got other bytes; save it as CSV UTF-8"),
        (b"who\nx\n", "line 1: expected the columns name; name is missing"),
        (b"name,name\n", "line 1: the column name occurs twice"),
        (b"name,x\na,1\nDoe, Jane,3\n", "line 3: expected 2 cells, got 3; put quotes"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, content, said):
    path = tmp_path / "given.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_table(path, ("name",))
    with pytest.raises(ValueError, match="No such file"):
        read_table(tmp_path / "none.csv")


def test_written_tables_contain_no_formulas(tmp_path):
    bad = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", " =1", "\t=1", "\r=1", "＝1", "－1+1"]
    good = ["", "-", "-5", "+4.5", "1e-3", "a=b", "Jane", "x@y.z"]
    assert [harmless(cell) for cell in bad] == [f"'{cell}" for cell in bad]
    assert [harmless(cell) for cell in (*good, 5, -5.0)] == [*good, 5, -5.0]
    write_table(tmp_path / "out.csv", [["näme"], ["=1"]])
    content = (tmp_path / "out.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfn\xc3\xa4me\n")
    assert b"'=1" in content


def test_moment_returns_times_with_zones():
    utc = datetime(2026, 6, 10, 12, 14, tzinfo=UTC)
    for text in (
        "2026-06-10T14:14",
        "2026-06-10 14:14:00",
        "2026-06-10T12:14Z",
        "2026-06-10T08:14-04:00",
        "2026-06-10 08:14 America/New_York",
        "2026-06-10 12:14 UTC",
        "Wednesday, 10 June 2026, 2:14 PM",
        "Wednesday, June 10, 2026, 2:14 PM",
        "10 June 2026, 14:14",
    ):
        assert moment(text, BERLIN) == utc, text
    assert moment("2026-06-10T12:14").tzinfo is not None, "the zone of the machine"
    with pytest.raises(ValueError, match=r"expected a time such as .*, got 'Mittwoch, 10. Juni'"):
        moment("Mittwoch, 10. Juni", BERLIN)
    for wrong in ("Europe/Atlantis", "..", ""):
        with pytest.raises(ValueError, match="expected a time zone"):
            timezone(wrong)


def test_deadline_of_a_day_is_its_local_end():
    end = deadline("2026-01-31", BERLIN)
    assert moment("2026-01-31T22:59:59Z") < end < moment("2026-01-31T23:00Z")
    assert deadline("2026-03-29", BERLIN) < moment("2026-03-29T22:00Z"), "summer time has begun"
    assert deadline("2026-01-31T18:00", BERLIN) == moment("2026-01-31T17:00Z")


def test_deadlines_across_zones_and_the_change_of_clocks():
    both = Deadlines(deadline("2026-01-31", BERLIN), deadline("2026-02-14", BERLIN), 70, BERLIN)
    said = {
        "2026-01-31T17:59-05:00": "",
        "2026-01-31T18:00-05:00": "soft",
        "2026-02-14T22:59Z": "soft",
        "2026-02-14T23:00Z": "hard",
    }
    assert {text: both.missed(moment(text)) or "" for text in said} == said
    assert [both.most(name) for name in (None, *Missed)] == [100, 70, 0]
    assert both.shown(moment("2026-02-14T23:00Z")) == "2026-02-15 00:00 CET"
    assert Deadlines().missed(moment("2026-02-14T23:00Z")) is None
    # the hour that occurs twice: 02:30 in winter time comes after 02:45 in summer time
    limit = datetime(2026, 10, 25, 2, 45, tzinfo=BERLIN)
    again = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)
    assert Deadlines(limit).missed(again) == "soft"
    with pytest.raises(ValueError, match=r"expected the soft deadline .* before the hard one"):
        Deadlines(both.hard, both.soft)
    with pytest.raises(ValueError, match="expected a cap from 0 to 100 points, got 800"):
        Deadlines(cap=800)


def test_read_times_returns_times_by_name(tmp_path):
    found = read_times(file(tmp_path, "name,time\nA,2026-01-31T18:00\nA,2026-01-31T19:00Z\n"), UTC)
    assert [(at, name) for at, name, _ in found] == [
        ("given.csv, line 2", "A"),
        ("given.csv, line 3", "A"),
    ]
    assert found[1][2] == moment("2026-01-31T19:00Z")
    with pytest.raises(ValueError, match=r"given.csv, line 3: expected a time"):
        read_times(file(tmp_path, "name,time\nA,2026-01-31T18:00\nB,soon\n"), UTC)


MOODLE = """\ufeffIdentifier,"Full name","ID number","Email address",Status,Grade,"Maximum Grade",\
"Grade can be changed","Last modified (submission)","Last modified (grade)","Feedback comments"
"Participant 11","Jane Doe",s11,jane@x.org,"Submitted for grading",,50.00,Yes,\
"Wednesday, 10 June 2026, 2:14 PM",-,
"Participant 12","Jane Doe",s12,doe@x.org,"No submission",,50.00,Yes,-,-,old
"Participant 13","=Bo",s13,bo@x.org,"Submitted for grading",,50.00,Yes,-,-,
"""


def test_moodles_worksheet_is_filled_in(tmp_path):
    sheet = read_sheet(file(tmp_path, MOODLE))
    lines = [person.row.line for person in sheet.people]
    asked = {
        ("Jane Doe", "12"): 1,
        ("s11", ""): 0,
        ("JANE@x.org", ""): 0,
        ("bo", ""): 2,
        ("=Bo", ""): 2,
        ("nobody", ""): None,
    }
    for (name, own), n in asked.items():
        found = sheet.find(name, own)
        assert (found and found.row.line) == (None if n is None else lines[n]), name
    with pytest.raises(ValueError, match="'Jane Doe' may belong to the lines 2 and 3"):
        sheet.find("Jane Doe")
    assert sheet.times(BERLIN) == {lines[0]: moment("2026-06-10T12:14Z")}
    marks = {lines[0]: Mark(80.5, "=good"), lines[2]: Mark(100)}
    write_table(tmp_path / "out.csv", sheet.filled(marks))
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as out:
        rows = list(csv.reader(out))
    assert rows[0] == sheet.table.columns
    assert [row[5] for row in rows[1:]] == ["40.25", "", "50.00"]
    assert [row[-1] for row in rows[1:]] == ["'=good", "old", ""]
    assert rows[3][1] == "'=Bo"


CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Essay (7),Factors (88),Current Score
,,,,,Manual Posting,,
    Points Possible,,,,,10,20,(read only)
"Doe, Jane",101,S1,jdoe,A,9,,90
"Roe, Bo",102,S2,broe@x.org,A,8,5,80
"Student, Test",103,,0a1b,A,,,
"""


def test_canvas_export_is_filled_in_with_one_assignment(tmp_path):
    sheet = read_sheet(file(tmp_path, CANVAS))
    assert [p.number for p in sheet.people] == ["101", "102", "103"]
    assert sheet.find("doejane").number == "101"
    assert sheet.find("Jane Doe").number == "101"
    assert sheet.find("whoever", "102").number == "102"
    assert sheet.find("broe@x.org").number == "102"
    assert sheet.times(UTC) == {}
    line = sheet.find("doejane").row.line
    rows = sheet.filled({line: Mark(90)}, "Factors")
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Factors (88)"]
    assert [row[-1] for row in rows[1:]] == ["", "20", "18.00", "5", ""]
    assert rows == [*sheet.filled({line: Mark(90)}, "Factors (88)")]
    with pytest.raises(ValueError, match=r"expected one assignment, found Essay \(7\), Factors"):
        sheet.filled({})
    with pytest.raises(ValueError, match=r"expected Moodle's grading worksheet .* found name"):
        read_sheet(file(tmp_path, "name,x\n"))


def test_malformed_overrides_are_refused_with_their_line(tmp_path):
    head = "name,task,part,points,comment\n"
    good = 'A,svd,correctness,38,a typing error\nA,,total,"61,5",\nB,als,similar movies,,look\n'
    found = read_overrides(file(tmp_path, head + good))
    assert [(o.line, o.override.task, o.override.part, o.override.points) for o in found] == [
        (2, "svd", "correctness", 38),
        (3, "", "total", 61.5),
        (4, "als", "similar movies", None),
    ]
    named = by_name("o.csv", found, ["C", "B", "A"])
    assert [len(named[name]) for name in "ABC"] == [2, 1, 0]
    with pytest.raises(ValueError, match=r"o.csv, line 4: there is no submission 'B'; there are A"):
        by_name("o.csv", found, ["A"])
    for row, said in {
        ",svd,correctness,3,": "expected the name of a submission",
        "A,knn,correctness,3,": "expected one of the tasks svd, als, bpr, warp .*, got 'knn'",
        "A,svd,style,3,": "expected a part of correctness, .*, got 'style'",
        "A,svd,correctness,41,": "expected 0 to 40 points, got '41'",
        "A,svd,correctness,nan,": "expected 0 to 40 points, got 'nan'",
        "A,svd,correctness,much,": "expected 0 to 40 points, got 'much'",
        "A,svd,correctness,,": "expected points or a comment, got neither",
        "A,,,101,": "expected 0 to 100 points",
        "A,svd,correctness,3,x": "the points of A, svd correctness, are in line 2 already",
    }.items():
        text = f"{head}A,svd,correctness,38,\n{row}\n"
        with pytest.raises(ValueError, match=f"^given.csv, line 3: {said}"):
            read_overrides(file(tmp_path, text))


def test_pseudonyms_are_stable_and_random(tmp_path):
    key = tmp_path / "private" / "key.csv"
    first = pseudonyms.pseudonyms(["Jane", "Åsa"], key)
    again = pseudonyms.pseudonyms(["Bo", "Jane"], key)
    assert again["Jane"] == first["Jane"]
    assert len({*first.values(), *again.values()}) == 3
    assert pseudonyms.pseudonyms(["Åsa"], key, new=False) == again, "nobody is forgotten"
    with pytest.raises(ValueError, match=r"key.csv: expected all names of the class, 'Di'"):
        pseudonyms.pseudonyms(["Åsa", "Di"], key, new=False)
    file(tmp_path, "name,pseudonym\nA,x\nB,x\n", "key.csv")
    with pytest.raises(ValueError, match=r"key.csv, line 3: expected a unique name"):
        pseudonyms.pseudonyms(["A"], tmp_path / "key.csv")
    assert pseudonyms.pseudonyms(["A"], tmp_path / "new.csv") != {"A": "x"}


@pytest.mark.parametrize("name", ["", "-", "…", "?? ??", "\ufffd"])
def test_a_time_without_a_name_is_refused(tmp_path, name):
    """An empty name would match every submission."""
    text = f"name,time\nA,2026-01-31T18:00\n{name},2026-03-01T18:00\n"
    with pytest.raises(ValueError, match=r"given.csv, line 3: expected a name with letters"):
        read_times(file(tmp_path, text), UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000", 1000),
        ("61,5", 61.5),
        ("0.125", 0.125),
        ("1,000.00", 1000),
        ("1.000,5", 1000.5),
        ("1,000,000", 1_000_000),
        ("1,5000", 1.5),
    ],
)
def test_number_parses_every_notation(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["1,000", "1.000", "12,500", "1,00,0", "1e3", "nan", "-1", "", "²"]
)
def test_number_refuses_ambiguous_texts(text):
    with pytest.raises(ValueError, match=r"^expected "):
        number(text)


def test_an_ambiguous_maximum_mark_is_refused(tmp_path):
    what = "the maximum mark: expected 1000 or 1, got '1,000', which may be either"
    canvas = read_sheet(file(tmp_path, CANVAS.replace("10,20,", '10,"1,000",')))
    with pytest.raises(ValueError, match=f"line 3: {what}"):
        canvas.filled({}, "Factors")
    moodle = read_sheet(file(tmp_path, MOODLE.replace("50.00", '"1,000"')))
    with pytest.raises(ValueError, match=f"line 2: {what}"):
        moodle.filled({})
    plain = read_sheet(file(tmp_path, CANVAS.replace("10,20,", '10,"1,000.00",')))
    line = plain.people[0].row.line
    assert plain.filled({line: Mark(90)}, "Factors")[3][-1] == "900.00"


def test_rows_of_a_worksheet_without_a_submission_are_listed(tmp_path):
    sheet = read_sheet(file(tmp_path, MOODLE))
    found, messages = sheet.match({"one": [Owner("Jane Doe", "11")], "two": [Owner("doe@x.org")]})
    assert [[p.number for p in people] for people in found.values()] == [["11"], ["12"]]
    assert messages == []
    said = "given.csv: 1 rows without a submission: =Bo (Submitted for grading)"
    assert sheet.without(found) == said
    assert sheet.without({"all": sheet.people}) == ""


def test_a_name_does_not_match_the_row_of_another_number(tmp_path):
    sheet = read_sheet(file(tmp_path, MOODLE))
    found, messages = sheet.match({" =bo": [Owner(" =bo", "99")], "Bo": [Owner("Bo", "13")]})
    assert [[p.number for p in people] for people in found.values()] == [[], ["13"]]
    assert messages == ["given.csv, line 4:  =bo has the name of Bo but another number"]
