"""What results are worth, what does not count in outputs, deadlines, pages, what is graded anew."""

import json
import struct
from base64 import b64encode
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from grading import cli, scoring
from grading.checks import recommendations, reproducibility
from grading.checks.compare import NOT_ATTEMPTED, Verdict
from grading.checks.recommendations import ndcg, share
from grading.execution.inputs import OUTPUTS
from grading.execution.reference import notebook_of
from grading.intake.collect import File, Package
from grading.intake.submission import Submission
from grading.isolation.bounded_process import Bounds
from grading.paths import ROOT
from grading.pipeline import number_of
from grading.reporting.render import page, write, write_class
from grading.result import SIZE, Report, load, read_report
from grading.rubric import POINTS, RUBRIC
from grading.scoring import known

OPTIONS = scoring.Options("ml-100k", 7, ROOT)


def test_ndcg_and_shares_by_hand():
    wanted = sp.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 0, 0]]))
    ids = np.array([[1, 0, 2], [0, 1, 2]])
    assert ndcg(ids, wanted) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    repeated = np.array([[1, 1, 1], [0, 1, 2]])
    once = pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert ndcg(repeated, wanted) == once, "no item counts twice"
    assert [share(value, 0.1, 0.3) for value in (0.05, 0.1, 0.3, 0.4)] == [0, 0, 1, 1]
    assert 0 < share(1.0, 1.04, 0.92) < 1, "smaller may be better"


def test_lists_are_judged_where_no_estimates_come(monkeypatch):
    movies = pd.DataFrame({"genres": ["A", "A|B", "B", "C"]})
    test, arrays = sp.csr_matrix([[0, 5.0, 0, 0], [4.0, 0, 0, 1]]), {"shape": np.array([2, 4])}
    count = np.array([20, 20, 20, 20])
    monkeypatch.setattr(
        recommendations, "hidden", lambda dataset, secret: (arrays, test, movies, count)
    )
    ids, similar = np.tile(np.arange(10) % 4, (2, 1)), np.tile(np.arange(11) % 4, (4, 1))
    found = recommendations.figures("bpr", "any", 0, ids, similar, np.empty(0))
    assert found["recommendations"] == pytest.approx((1 / np.log2(3) + 1) / 2)
    assert 0 < found["similar movies"] < 1
    estimates = test.tocoo().data + 1
    found = recommendations.figures("svd", "any", 0, ids, similar, estimates)
    assert found["recommendations"] == pytest.approx(1)
    with pytest.raises(ValueError, match="expected lists"):
        recommendations.figures("bpr", "any", 0, ids[:1], similar, np.empty(0))


def verdicts(**wrong):
    """All right but for some: by function, its wrong outputs or an error."""
    found = {key: Verdict(key) for key in OUTPUTS}
    for name, what in wrong.items():
        for verdict in found.values():
            if verdict.name == name and isinstance(what, str):
                verdict.error = what
            elif verdict.name == name:
                verdict.wrong = dict.fromkeys(what, "in it something is wrong")
    return found


def marked(**wrong):
    report = Report("a")
    scoring.mark_functions(
        Submission(trouble={task: [] for task in RUBRIC}), verdicts(**wrong), report
    )
    return report


def test_each_output_of_each_function_counts():
    points = marked(svd_step=["P"], objective="raises ValueError", cholesky=NOT_ATTEMPTED).marks
    assert points["svd"]["correctness"] == 40 * 4 / 5
    assert points["warp"]["correctness"] == 40
    assert points["warp"]["loop and exercises"] == 15 * 3 / 4
    assert points["als"]["correctness"] == pytest.approx(40 * 2 / 3)
    assert points["bpr"] == dict.fromkeys(POINTS, 0.0) | {
        "correctness": 40,
        "loop and exercises": 15,
    }


def test_what_is_wrong_comes_before_what_is_not_there():
    report = marked(over_entries=NOT_ATTEMPTED, cholesky=["X"], textbook="ends the program")
    said = [reason.partition(":")[0] for reason in report.reasons["als"]]
    assert said == ["cholesky", "textbook", "over_entries"]
    assert report.functions["als/cholesky"]["share"] == 0


def test_lists_are_made_around_the_better_kernel():
    assert scoring.kernel_of_lists("als", verdicts(conjugate_gradient=["X"])) == "cholesky"
    assert scoring.kernel_of_lists("als", verdicts()) == "conjugate_gradient"
    assert scoring.list_unit("als", "cholesky").options == (("use_cg", False),)
    for entry in RUBRIC.values():
        assert set(entry["lists"]) <= set(entry["functions"])


def test_lists_count_in_proportion_to_the_kernel(tmp_path, monkeypatch):
    def judged(task, *_):
        return {"recommendations": 1.0, "similar movies": 0.5}, []

    monkeypatch.setattr(scoring, "judge_lists", judged)
    monkeypatch.setattr(scoring, "reference_figures", lambda *_: {})  # which need the data
    monkeypatch.setattr(scoring, "attempt", lambda _, units, *__: [grade_result] * len(units))
    monkeypatch.setattr(scoring, "prepare", lambda place, _: place.mkdir(parents=True))
    monkeypatch.setattr(scoring, "hidden", lambda *_: ({"users": [], "items": []},))
    from grading.execution.trial import Result

    grade_result = Result({})
    wrong = {"svd_step": ["P"], "bpr_step": "raises", "warp_step": ["P", "the losses"]}
    report, found = marked(**wrong), verdicts(**wrong)
    scoring.mark_lists(Submission(), found, tmp_path, OPTIONS, report)
    earned = {task: report.marks[task]["recommendations"] for task in RUBRIC}
    assert earned == {"svd": 15, "als": 20, "bpr": 0, "warp": 10}, "losses make no lists"
    assert report.marks["svd"]["similar movies"] == 15 * 0.5 * 0.75
    assert "count 75%" in report.reasons["svd"][-1]


def stored_cells(task):
    cells = [c for c in notebook_of(task).cells if c.cell_type == "code"]
    stored = {c.id: nbformat.v4.new_code_cell(c.source, id=c.id) for c in cells}
    for cell in stored.values():
        cell.execution_count = 1
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="shown")]
    return stored


def failing(what="NotImplementedError"):
    error = nbformat.v4.new_output("error", ename=what, evalue="", traceback=[])
    return nbformat.v4.new_code_cell("x", outputs=[error], execution_count=1)


def test_a_gap_elsewhere_costs_no_reproducibility():
    stored, executed = stored_cells("als"), stored_cells("als")
    whole = reproducibility.changes("als", stored, executed, set())
    assert whole == ({}, len([c for c in stored if c not in ("explorer", "be-the-user")]))
    executed["judged"], stored["judged"] = failing(), failing()
    executed["similarity"] = failing("NameError")
    stored["similarity"] = {"execution_count": None, "outputs": []}
    assert reproducibility.changes("als", stored, executed, {"svd"}) == ({}, whole[1] - 2)
    # no cell of this notebook needs it
    assert list(reproducibility.changes("als", stored, executed, {"warp"})[0]) == ["similarity"]
    alone, counted = reproducibility.changes("als", stored, executed, set())
    assert (list(alone), counted) == (["similarity"], whole[1])
    assert reproducibility.changes("als", stored, {}, {"svd"})[0]["imports"] == "not executed here"


def test_cells_that_show_nothing_are_not_reproduced():
    """As where a notebook was switched off before it was handed in, and is so here."""
    stored, executed = stored_cells("als"), stored_cells("als")
    for cells in (stored, executed):
        cells["curve"].outputs = cells["imports"].outputs = []
    assert list(reproducibility.changes("als", stored, executed, set())[0]) == ["curve"]


def test_hidden_inputs_belong_to_what_was_written():
    """Whoever has seen them on the page cannot hand in a table; outputs change nothing."""
    one = Submission({"svd": b"1"}, {"svd/ndcg": [("a", "1")]})
    numbers = {number_of(given) for given in (one, replace(one, notes=["x"], stored={"svd": {}}))}
    numbers |= {number_of(replace(one, modules={"svd": b"2"}))}
    numbers |= {number_of(replace(one, answers={"svd/ndcg": [("a", "2")]}))}
    assert len(numbers) == 3
    assert replace(OPTIONS, own=5).seeds[0] == OPTIONS.seeds[0] + 5


def test_public_outputs_count_as_far_as_the_kernels_are_right(tmp_path):
    """Those of the other data set are not executed here, and anybody can copy them."""
    stored = {c.id: c for c in reproducibility.stored_reference("bpr", "ml-1m").values()}
    earned = []
    for wrong in ({}, {"bpr_step": ["P", "Q", "b"]}):
        report = marked(**wrong)
        given = Submission(stored={"bpr": stored})
        scoring.mark_notebook("bpr", given, verdicts(**wrong), tmp_path, OPTIONS, report)
        earned.append(report.marks["bpr"]["reproducibility"])
    assert earned == [10, 2.5]
    assert "counts 25%" in report.reasons["bpr"][-1]


def cell(text, count=1, kind="text/plain", stream=False):
    output = nbformat.v4.new_output("execute_result", {kind: text}, execution_count=1)
    if stream:
        output = nbformat.v4.new_output("stream", name=kind, text=text)
    return nbformat.v4.new_code_cell("x", id="x", outputs=[output], execution_count=count)


def png(*sizes):
    headers = [b"\0\0\0\x0dIHDR" + struct.pack(">IIxxxxxxxxx", *size) for size in sizes]
    return reproducibility.PNG + b"".join(headers)


def test_stored_outputs_are_compared_cell_by_cell():
    change = reproducibility.change
    assert change(cell("0.5"), cell("0.5")) == ""
    assert change(cell(["0.", "5"]), cell("0.5")) == ""
    assert change(cell("0.4"), cell("0.5")) == "- 0.4\n+ 0.5"
    assert "no outputs" in change(cell("0.5", count=None), cell("0.5"))
    assert "no outputs" in change(None, cell("0.5"))
    assert "not executed" in change(cell("0.5"), None)
    for figure, says in {
        png((10**5, 10**5)): "too large",
        png((9, 9), (10**5, 10**5)): "one header, got 2",
        png(): "one header, got 0",
        b"GIF": "expected a PNG",
    }.items():
        text = b64encode(figure).decode()
        assert says in change(cell(text, kind="image/png"), cell("0.5"))
    many = cell("0.5")
    many.outputs *= 80_000
    assert "at most 200" in change(many, cell("0.5"))
    many.outputs = cell(b64encode(png((9, 9))).decode(), kind="image/png").outputs * 9
    assert "at most 8 figures" in change(many, cell("0.5"))
    many.outputs = [{"output_type": "display_data", "data": dict.fromkeys(map(str, range(99)), 1)}]
    assert "at most 20 kinds" in change(many, cell("0.5"))
    wrong = change(cell("no base64!", kind="image/png"), cell("neither", kind="image/png"))
    assert "cannot be read" in wrong
    assert "cannot be read" in change({"execution_count": 1, "outputs": [5]}, cell("0.5"))
    deep = json.loads("[" * 900 + "]" * 900)  # nbformat's own message would not come to an end
    assert "cannot be read" in change({"execution_count": deep, "outputs": []}, cell("0.5"))


def test_a_table_is_compared_as_text():
    """Colab puts it into elements of its own; where the text says nothing, the page counts."""

    def table(text, page):
        found = cell(text)
        found.outputs[0].data["text/html"] = page
        return found

    one, other = table("1 2", "<table>"), table("1 2", "<div id=df-1 class=colab-df><table>")
    assert reproducibility.change(one, other) == ""
    shown = "<IPython.core.display.HTML object>"
    assert reproducibility.change(table(shown, "<p>"), table(shown, "<b>")) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<f at 0x7f12ab34cd56>", "<f at 0x7f99ab34cd00>"),
        ("saved to /tmp/tmpa1b2/model.npz", "saved to /var/folders/xy/T/model.npz"),
        ("C:\\Users\\me\\x\\als.py:3: UserWarning", "/home/me/als.py:3: UserWarning"),
        ("CPU times: user 3 s\nWall time: 3 s\n5", "CPU times: user 4 s\nWall time: 4.1 s\n5"),
        ("BPR: 100%|██████| 40/40 [00:03<00:00]\n5", "5"),
        ("\x1b[31m5\x1b[0m", "5"),
    ],
)
def test_what_depends_on_machine_and_minute_does_not_count(one, other):
    assert reproducibility.change(cell(one), cell(other)) == ""
    pair = (cell(text, kind="stdout", stream=True) for text in (one, other))
    assert reproducibility.change(*pair) == ""
    assert reproducibility.change(cell(f"{one} 6"), cell(f"{other} 7")) != ""


def test_the_data_set_of_a_notebook_is_seen():
    for dataset, graded_on in (("ml-1m", "ml-100k"), ("ml-100k", "ml-1m"), ("ml-1m", "ml-1m")):
        file = reproducibility.STORED[dataset] / "02_als.ipynb"
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        stored = {c["id"]: c for c in cells if c["cell_type"] == "code"}
        assert reproducibility.dataset_of("als", stored, graded_on) == dataset
        ours = reproducibility.stored_reference("als", dataset)
        shown = {name: raw for name, raw in stored.items() if name in ours}
        assert reproducibility.changes("als", shown, ours, set(), set(ours))[0] == {}
    assert reproducibility.dataset_of("als", {}, "ml-1m") == "ml-1m"


def test_a_notebook_is_run_unless_nothing_else_can_come(tmp_path, monkeypatch):
    assert scoring.needed_by("bpr") == {"als", "bpr"}
    assert scoring.needed_by("warp") == set(RUBRIC)
    file = reproducibility.STORED["ml-100k"] / "03_bpr.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    stored = {c["id"]: c for c in cells if c["cell_type"] == "code"}
    run: list[str] = []
    monkeypatch.setattr(scoring, "prepare_notebook", lambda task, *_: run.append(task))
    monkeypatch.setattr(scoring.Options, "launch", lambda *_: "")
    monkeypatch.setattr(scoring, "executed_cells", lambda *_: {})

    def marked_after(found, outputs=stored, **points):
        report = Report("a", {task: POINTS.copy() | points for task in RUBRIC}, {"bpr": []})
        given = Submission(stored={"bpr": outputs})
        run.clear()
        scoring.mark_notebook("bpr", given, found, tmp_path, OPTIONS, report)
        return report.marks["bpr"]["reproducibility"], run == ["bpr"]

    assert marked_after(verdicts()) == (10, False)
    assert marked_after(verdicts(warp_step=["P"])) == (10, False), "which it does not use"
    for wrong in ({"cholesky": ["X"]}, {"bpr_step": ["P"]}, {"chosen": "raises"}):
        assert marked_after(verdicts(**wrong)) == (0, True)
    assert marked_after(verdicts(), **{"similar movies": 14.0}) == (0, True)
    name = next(n for n, c in stored.items() if c["outputs"] and n in shown("bpr"))
    other = stored | {name: stored[name] | {"outputs": []}}
    assert marked_after(verdicts(), other) == (0, True)


def shown(task):
    return reproducibility.stored_reference(task, "ml-100k")


def test_the_graders_cells_stay_and_the_answers_come():
    answers = {"svd/ndcg": [("helper", "LOW = 1"), ("exercise-3", "def ndcg(x):\n    return LOW")]}
    notebook = reproducibility.notebook_to_run("svd", answers, known()["svd"])
    cells = {c.id: c.source for c in notebook.cells}
    assert cells["exercise-3"] == "LOW = 1\n\ndef ndcg(x):\n    return LOW"
    assert cells["exercise-2"] == 'raise NotImplementedError("missing")'
    assert cells["exercise-3-check"].startswith("def expected(")


def packed(time=0.0, **files):
    return Package("a", {name: File(lambda c=c: c.encode(), time) for name, c in files.items()})


def test_whatever_is_said_a_page_has_a_size(tmp_path):
    long, many = "\"'<\ud800" * 10**5, ["'" * 3_000] * 5_000
    report = Report("a", {task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC})
    report.reasons = {task: [long, *many] for task in RUBRIC}
    report.changes = {task: dict.fromkeys(map(str, range(5_000)), long) for task in RUBRIC}
    report.notes = [long, *many]
    wrong = Verdict("svd/svd_step", wrong=dict.fromkeys("PQ", long), error=long, where=long)
    report.functions = dict.fromkeys(OUTPUTS, wrong.as_json())
    report.answers = dict.fromkeys(OUTPUTS, "\ud800" * 4_000)
    sent = json.dumps(report.bounded())
    assert len(sent) < Bounds().message
    bounded = read_report(json.loads(sent))
    assert bounded.reasons["svd"][-1].startswith("… and ")
    write(bounded, tmp_path)
    assert (tmp_path / "a.html").stat().st_size < 2**20
    assert (tmp_path / "submissions" / "a.json").stat().st_size < SIZE


@pytest.mark.parametrize(
    "change",
    [
        {"marks": {"svd": {"correctness": 41}}},
        {"marks": {"other": {}}},
        {"reasons": {"svd": ["x" * 3_000]}},
        {"functions": {"svd/svd_step": {"key": "svd/svd_step"}}},
        {"notes": "x"},
        {"more": 1},
    ],
)
def test_a_report_of_another_form_is_refused(change):
    report = Report("a", {task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC})
    assert read_report(report.bounded()) == report
    with pytest.raises(ValueError, match="expected a report"):
        read_report(report.bounded() | change)


def test_only_what_has_changed_is_graded_again(tmp_path):
    packages = [packed(**{"svd.py": text}) for text in ("1", "1", "2")]
    packages += [packed(**{"svd.py": "1", "x.txt": text}) for text in ("1", "2")]
    prints = [cli.fingerprint(package, OPTIONS) for package in packages]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != prints[3] == prints[4], "what is not looked at has a name only"
    assert prints[0] != cli.fingerprint(packages[0], replace(OPTIONS, secret=8))
    report = Report("a", {task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC}, content=prints[0])
    report.reasons = {task: [] for task in RUBRIC}
    write(report, tmp_path)
    assert load(tmp_path / "submissions" / "a.json") == report
    assert load(tmp_path / "submissions" / "b.json") is None
    for text in (
        "[1",
        "[]",
        '{"total": 3}',
        (tmp_path / "submissions" / "a.json").read_text(encoding="utf-8")[:-9],
    ):
        (tmp_path / "submissions" / "b.json").write_text(text, encoding="utf-8")
        assert load(tmp_path / "submissions" / "b.json") is None


def test_the_page_shows_reasons_lines_and_changes_and_runs_nothing(tmp_path):
    points = {task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC}
    reasons = {"svd": ["svd_step: expected 1 & got <2>", "the second"]}
    changes = {"svd": {"loop": "- <script>\n+ 2"}}
    wrong = Verdict("svd/svd_step", wrong={"P": "in P"}, where="svd.py, line 3").as_json()
    text = page(Report("<b>", points, reasons, changes, {"svd/svd_step": wrong}, ["<i>"]))
    first = (
        "<p class=first>svd_step: expected 1 &amp; got &lt;2&gt;</p><ul><li>the second</li></ul>"
    )
    assert first in text
    assert "<dt>loop</dt><dd><pre>- &lt;script&gt;\n+ 2</pre></dd>" in text
    assert "<td>svd_step</td><td>80%</td><td>svd.py, line 3</td>" in text
    assert "<script" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    report = Report("a", points, {"svd": ["no encoding has \ud800"]})
    write(report, tmp_path)
    write_class([report], tmp_path)
    assert "\\ud800" in (tmp_path / "a.html").read_text(encoding="utf-8")
    row = (tmp_path / "class.csv").read_text(encoding="utf-8-sig").splitlines()[1]
    assert row == "a,25.0,25.0,25.0,25.0,,25.0,"
