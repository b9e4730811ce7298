"""Sheets for talks: finding lines under any names, and questions that fit the submission."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from grading.course.course import feedback
from grading.course.overrides import by_name, read_overrides
from grading.intake.cells import handed_out
from grading.intake.collect import File
from grading.intake.submission import read
from grading.judging.verdict import Verdict
from grading.outcomes import NOT_ATTEMPTED
from grading.paths import NOTEBOOK_TOOLS, ROOT
from grading.reporting.render import (
    class_page,
    report_page,
    talk_page,
    write_class_tables,
    write_talk_sheets,
)
from grading.result import TALK, Override, Quote, Report, Score, read_report
from grading.rubric import OUTPUTS, POINTS, RUBRIC
from grading.scoring import empty_score
from grading.talk import outputs, sheet
from grading.talk.bank import BANK, Finder
from grading.talk.outputs import recommended
from grading.talk.quotes import _parameters, quotes, quotes_of
from grading.talk.sheet import Example, sheet_of
from mflib.data import MovieLens

SVD_STEP = '''
def svd_step(P, Q, bu, bi, mean, batch, r, lr=0.01, lam=0.1):
    """Take lam and mean from here."""
    rate, penalty = lr, lam
    i, u = batch.columns, batch.rows
    e = r - mean - bu[u] - bi[i] - (P[u] * Q[i]).sum(1)
    for n in range(2):
        j = n + 1
        P[j] += 0 * Q[j]
    P[u] += rate * (e[:, None] * Q[i] - penalty * P[u])
    np.add.at(Q, i, lr * e[:, None] * P[u])
'''


def reference():
    """Return the reference as a submission, with its outputs."""
    files = {}
    for entry in RUBRIC.values():
        module, notebook = f"{entry.module}.py", f"{entry.notebook}.ipynb"
        files[module] = File((ROOT / "mflib" / module).read_bytes, 0.0)
        files[notebook] = File((NOTEBOOK_TOOLS / "ml-100k" / notebook).read_bytes, 0.0)
    return read(files, handed_out(ROOT / "notebooks"))


def test_the_bank_refers_to_existing_functions_and_parameters():
    for name, entry in BANK.lines.items():
        named = entry.find not in (Finder.CALLS, Finder.DIVIDES, Finder.LOOPS)
        for key, names in entry.functions.items():
            assert key in OUTPUTS, name
            assert bool(names) == (named or entry.find is Finder.CALLS), name
            assert not named or set(names) <= set(_parameters(key)), name
    assert set(BANK.outputs) == {*RUBRIC, sheet.OUTPUT_OF_NOBODY}
    assert {variation.task for variation in BANK.variations} == set(RUBRIC)
    assert {f"{task}-penalty" for task in RUBRIC} <= set(BANK.lines)


def test_every_question_finds_its_line_in_the_reference_unless_it_is_a_mistake():
    found = quotes_of(reference())
    for name, entry in BANK.lines.items():
        for key in entry.functions:
            missing = entry.mistake or entry.find is Finder.LOOPS
            assert (name in found[key]) != missing, f"{key}, {name}"
    assert found["bpr/bpr_step"]["bpr-force"].text.startswith("g = torch.sigmoid(-x)")
    assert found["bpr/textbook"]["bpr-force"].place.startswith("cell loop, line ")
    assert found["warp/textbook"]["warp-margin"].text.startswith("if p @ qj > p @ qi - margin")


def test_quotes_follow_the_students_names():
    found = quotes("svd/svd_step", [("svd.py", SVD_STEP)])
    assert found["svd-mean"] == Quote(
        "svd.py, line 6", "e = r - mean - bu[u] - bi[i] - (P[u] * Q[i]).sum(1)"
    )
    moves = Quote("svd.py, line 10", "P[u] += rate * (e[:, None] * Q[i] - penalty * P[u])")
    assert found["svd-penalty"] == found["svd-rate"] == found["svd-repeats"] == moves
    assert found["svd-user"].text == "P[j] += 0 * Q[j]", "a step in a loop is no repeated index"
    assert found["svd-loops"] == Quote("svd.py, line 7", "for n in range(2):")
    other = SVD_STEP.replace("P[u] +=", "P[[0, 1]] +=").replace("svd_step", "als_step", 1)
    assert quotes("svd/svd_step", [("svd.py", other)]) == {}


@pytest.mark.parametrize(
    "source", ["def svd_step((", "svd_step = 1", "", "\0", "(" * 5_000, "-" * 50_000 + "1"]
)
def test_quotes_of_unreadable_source_are_empty(source):
    assert quotes("svd/svd_step", [("svd.py", source)]) == {}


def test_quotes_of_huge_functions_are_empty():
    """In a chain of products, the search visits the rest of the chain at each node."""
    body = "    P += " + " @ ".join(["Y"] * 1_500)
    assert quotes("svd/svd_step", [("svd.py", f"def svd_step(P, *_):\n{body}\n")]) == {}
    body = "    P += " + " @ ".join(["Y"] * 20)
    assert quotes("svd/svd_step", [("svd.py", f"def svd_step(P, *_):\n{body}\n")])


def test_a_quoted_line_is_short():
    long = SVD_STEP.replace("0 * Q[j]", " + ".join(["1"] * 500))
    many = SVD_STEP.replace("0 * Q[j]", "(" + "\n+ 1" * 50 + ")")
    assert len(quotes("svd/svd_step", [("svd.py", long)])["svd-user"].text) == 600
    assert quotes("svd/svd_step", [("svd.py", many)])["svd-user"].text.count("\n") == 7


TITLES = ["Alien (1979)", "Tom & Huck (1995)", "Speed (1994)", "Never seen (1999)"]
LIKES = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0]])


@pytest.fixture
def data(monkeypatch):
    """Replace the data with five users and four movies; user 2 is the notebooks' user."""
    likes = sp.csr_matrix(LIKES, dtype=float)
    movies = pd.DataFrame({"title": TITLES, "genres": ["Action"] * 4})
    ids = np.arange(5)
    tiny = MovieLens("ml-100k", likes * 4, movies, ids, ids[:4], likes)
    monkeypatch.setattr(sheet, "example", lambda dataset: Example(tiny, 2, likes, likes * 4))
    monkeypatch.setattr(outputs, "load_movielens", lambda dataset: tiny)
    outputs._ids_of_titles.cache_clear()
    sheet._reasons.cache_clear()
    sheet._als.cache_clear()
    yield tiny
    outputs._ids_of_titles.cache_clear()
    sheet._reasons.cache_clear()
    sheet._als.cache_clear()


def table(*titles):
    rows = "".join(f"<tr>\n<td>{title}</td>\n<td>0.5</td></tr>" for title in titles)
    output = {"output_type": "execute_result", "data": {"text/html": [rows[:9], rows[9:]]}}
    return {"execution_count": 3, "outputs": [output]}


@pytest.mark.parametrize(
    ("cell", "ids"),
    [
        (table("Speed (1994)", "Tom &amp; Huck (1995)", "Unknown (1900)", "Speed (1994)"), [2, 1]),
        (table("Speed (1994)") | {"execution_count": None}, []),
        ({"execution_count": 1, "outputs": 5}, []),
        ({"execution_count": 1, "outputs": [5, {"data": 5}, {"data": {"text/html": 5}}]}, []),
        ({}, []),
    ],
)
def test_recommended_reads_the_movies_of_the_notebook(data, cell, ids):
    """Outputs of the edition that were never replaced do not count."""
    assert recommended({"recommendations": cell}, "ml-100k") == ids


def test_reasons_agree_with_a_hand_calculation(data):
    assert sheet._reasons("bpr", "ml-100k", 2) == (
        "3 users have a training like for it; the most similar of this user's likes: "
        "Alien (1979) (3 of them); Tom & Huck (1995) (1 of them)."
    )
    assert sheet._reasons("svd", "ml-100k", 1).startswith("The mean of its 3 training ratings is 4")
    assert sheet._reasons("svd", "ml-100k", 3).startswith("It has no training rating")
    assert "0 users" in sheet._reasons("warp", "ml-100k", 3)


@pytest.mark.slow
def test_shares_equal_the_output_of_the_notebook():
    """Compare with cell "reasons" of 02_als on MovieLens-100K, for its first recommendation."""
    titles = sheet.example("ml-100k").data.movies["title"]
    (movie,) = titles.index[titles == "Independence Day (ID4) (1996)"]
    assert sheet._reasons("als", "ml-100k", int(movie)) == (
        "The largest shares with the reference's factors: Rock, The (1996) 0.076; "
        "Men in Black (1997) 0.056; Star Wars (1977) 0.055; the score is 0.486."
    )


def submitted(**fields):
    """Return the reference's score on the tiny data, with changed ``fields``."""
    score = empty_score()
    score.dataset, score.secret = "ml-100k", 7
    score.functions = {key: Verdict(key) for key in OUTPUTS}
    score.quotes = quotes_of(reference())
    score.recommended = {task: [2, 3] for task in RUBRIC}
    for name, value in fields.items():
        setattr(score, name, value)
    return score


def test_a_sheet_has_three_questions_about_three_tasks(data):
    score, seen = submitted(), set()
    kernels = {key: found for key, found in score.quotes.items() if not key.endswith("/textbook")}
    for name in "ABCDEFGHIJ":
        found = sheet_of(Report(name, score))
        assert found == sheet_of(Report(name, score)), "it stays the same"
        assert [q.kind for q in found.questions] == ["a line", "an output", "a variation"]
        line, output, variation = found.questions
        assert len({q.task for q in found.questions}) == 3
        quotes = [q for key in kernels if key.startswith(line.task) for q in kernels[key].values()]
        assert Quote(line.place, line.quote) in quotes, "kernels come before loops"
        assert output.text.count("Speed (1994)") + output.text.count("Never seen (1999)") == 1
        assert "{" not in output.text + output.answer
        seen.add((line.text, output.text, variation.text))
    assert len(seen) == 10
    other = [sheet_of(Report(name, submitted(secret=8))) for name in "ABCDEFGHIJ"]
    assert other != [sheet_of(Report(name, score)) for name in "ABCDEFGHIJ"]


def test_questions_concern_the_submitted_parts(data):
    """If only BPR is done, all three questions are about BPR."""
    score = submitted()
    score.functions = {
        key: verdict if key.startswith("bpr/") else Verdict(key, failure=NOT_ATTEMPTED)
        for key, verdict in score.functions.items()
    }
    score.quotes = {"bpr/textbook": score.quotes["bpr/textbook"]}
    score.recommended = {"bpr": [2]}
    for name in "ABC":
        assert [q.task for q in sheet_of(Report(name, score)).questions] == ["bpr"] * 3


def test_a_mistake_comes_first_with_the_graders_verdict(data):
    score = submitted()
    score.quotes["svd/svd_step"] = quotes("svd/svd_step", [("svd.py", SVD_STEP)])
    wrong = Verdict("svd/svd_step", wrong={"P": "in P expected 1, got 2"}, where="svd.py, line 2")
    score.functions["svd/svd_step"] = wrong
    for name in "ABC":
        line = sheet_of(Report(name, score)).questions[0]
        assert (line.place, line.verdict) == ("svd.py, line 10", wrong.sentence)


def test_an_empty_submission_has_questions():
    score = Score(dataset="ml-100k", secret=7)
    line, output, variation = sheet_of(Report("A", score)).questions
    assert line.text.startswith("No line of your functions could be found. Write down the")
    assert output.text.startswith("Your notebooks show no recommendations.")
    assert variation.task in RUBRIC


def test_sheets_are_only_for_the_instructor_and_run_nothing(data, tmp_path):
    score = submitted()
    for key, found in score.quotes.items():
        score.quotes[key] = {name: Quote("svd.py, line 1", "<script>") for name in found}
    reports = [Report("A", score), Report("<b>", score)]
    assert "<script" not in talk_page([sheet_of(report) for report in reports])
    assert "&lt;script&gt;" in talk_page([sheet_of(reports[1])])
    write_talk_sheets([reports[0]], tmp_path)
    assert sorted(path.name for path in (tmp_path / "talks").iterdir()) == ["A.html", "index.html"]
    question = sheet_of(reports[0]).questions[2]
    assert question.answer.partition("(")[0] in (tmp_path / "talks" / "A.html").read_text("utf-8")
    assert question.text not in report_page(reports[0]), "students do not see the sheet"
    write_class_tables([reports[0]], tmp_path)
    assert "line 1" not in (tmp_path / "report.json").read_text("utf-8")
    assert "href=talks/index.html" in class_page([reports[0]])
    again = read_report(reports[0].as_json())
    assert (again.score.quotes, again.score.recommended) == (score.quotes, score.recommended)


def test_the_column_talk_takes_a_mark_that_is_shown_and_not_added(tmp_path):
    path = tmp_path / "given.csv"
    head = "name,task,part,points,comment,talk\n"
    path.write_text(
        f'{head}A,,,,fluent,"4,5"\nB,svd,correctness,38,,6\nC,svd,correctness,38,,\n', "utf-8"
    )
    found = by_name("given.csv", read_overrides(path), "ABC")
    assert found["A"] == [Override("", TALK, 4.5, "fluent")]
    assert found["B"] == [Override("", TALK, 6.0), Override("svd", "correctness", 38.0)]
    assert found["C"] == [Override("svd", "correctness", 38.0)]
    report = Report("A", Score({task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC}))
    assert report.talk is None
    report.decision.overrides = found["A"]
    assert (report.talk, report.total) == (4.5, 25.0)
    assert "the talk about your submission: 4.5 points of 6, fluent" in report_page(report)
    assert "the talk 4.5 of 6" in feedback(report)
    write_class_tables([report], tmp_path)
    first, row = (tmp_path / "class.csv").read_text("utf-8-sig").splitlines()
    assert dict(zip(first.split(","), row.split(","), strict=True))["talk"] == "4.5"
    for row, said in {
        "A,,,,,7": "expected 0 to 6 points, got '7'",
        "A,,,,,good": "expected 0 to 6 points, got 'good'",
        "A,svd,correctness,,x,3": "expected points of 'svd correctness', got only points of a talk",
        "A,,,,,": "expected points or a comment, got neither",
    }.items():
        path.write_text(f"{head}{row}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=f"^given.csv, line 2: {said}"):
            read_overrides(path)
    path.write_text(f"{head}A,,,,,3\nA,,,,,4\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: the points of A, talk, are in line 2 already"):
        read_overrides(path)
