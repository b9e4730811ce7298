"""Points for results, comparison of outputs, pages, and the reuse of scores."""

import inspect
import json
import struct
from base64 import b64encode
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from grading import gradebook, pipeline, schema, scoring
from grading.execution.inputs import calls, outputs
from grading.execution.reference import expected, function, notebook_of
from grading.execution.trial import UnitResult
from grading.intake.collect import File, Package
from grading.intake.submission import FileKind, Problem, Submission
from grading.isolation.bounded_process import ProcessLimits
from grading.judging import recommendations, reproducibility
from grading.judging.compare import judge
from grading.judging.recommendations import HiddenSplit, ndcg, relative_quality
from grading.judging.reproducibility import compare_cells
from grading.judging.verdict import ModelFit, Verdict
from grading.outcomes import NOT_ATTEMPTED, Failure, FailureKind
from grading.paths import ROOT
from grading.pipeline import Grading, Options, Runs, known, seed_of
from grading.reporting.complaint import complaints
from grading.reporting.render import report_page, write_class_tables, write_report
from grading.result import SIZE, Report, Score, load, read_report, read_score
from grading.rubric import OUTPUTS, POINTS, RUBRIC

OPTIONS = Options("ml-100k", 7, ROOT)


def test_ndcg_and_relative_quality_by_hand():
    wanted = sp.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 0, 0]]))
    ids = np.array([[1, 0, 2], [0, 1, 2]])
    assert ndcg(ids, wanted) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    repeated = np.array([[1, 1, 1], [0, 1, 2]])
    once = pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert ndcg(repeated, wanted) == once, "no item counts twice"
    assert [relative_quality(value, 0.1, 0.3) for value in (0.05, 0.1, 0.3, 0.4)] == [0, 0, 1, 1]
    assert 0 < relative_quality(1.0, 1.04, 0.92) < 1, "smaller may be better"


def test_lists_are_judged_without_estimates():
    movies = pd.DataFrame({"genres": ["A", "A|B", "B", "C"]})
    test, arrays = sp.csr_matrix([[0, 5.0, 0, 0], [4.0, 0, 0, 1]]), {"shape": np.array([2, 4])}
    count = np.array([20, 20, 20, 20])
    split = HiddenSplit(arrays, test, movies, count)
    ids, similar = np.tile(np.arange(10) % 4, (2, 1)), np.tile(np.arange(11) % 4, (4, 1))
    found = recommendations.measure("bpr", split, ids, similar, np.empty(0))
    assert found["recommendations"] == pytest.approx((1 / np.log2(3) + 1) / 2)
    assert 0 < found["similar movies"] < 1
    estimates = test.tocoo().data + 1
    found = recommendations.measure("svd", split, ids, similar, estimates)
    assert found["recommendations"] == pytest.approx(1)
    with pytest.raises(ValueError, match="expected lists"):
        recommendations.measure("bpr", split, ids[:1], similar, np.empty(0))


def verdicts(**wrong):
    """Return right verdicts except for some functions: wrong outputs, a failure, or its message."""
    found = {key: Verdict(key, model=ModelFit.AGREES) for key in OUTPUTS}
    for name, what in wrong.items():
        for verdict in found.values():
            if verdict.name == name and isinstance(what, Failure):
                verdict.failure = what
            elif verdict.name == name and isinstance(what, str):
                verdict.failure = Failure(FailureKind.RAISED, what)
            elif verdict.name == name:
                verdict.wrong = dict.fromkeys(what, "in it something is wrong")
    return found


def marked(**wrong):
    score = scoring.empty_score()
    scoring.score_functions(verdicts(**wrong), {}, score)
    return score


def test_each_output_of_each_function_counts():
    points = marked(
        svd_step=["P"], average_weight="raises ValueError", cholesky=NOT_ATTEMPTED
    ).marks
    assert points["svd"]["correctness"] == 40 * 4 / 5
    assert points["warp"]["correctness"] == 40
    assert points["warp"]["loop and exercises"] == 15 * 3 / 4
    assert points["als"]["correctness"] == pytest.approx(40 * 2 / 3)
    assert points["bpr"] == dict.fromkeys(POINTS, 0.0) | {
        "correctness": 40,
        "loop and exercises": 15,
    }


def test_wrong_outputs_are_listed_before_missing_ones():
    score = marked(over_entries=NOT_ATTEMPTED, cholesky=["X"], textbook="ends the program")
    names = [reason.partition(":")[0] for reason in score.reasons["als"]]
    assert names == ["cholesky", "textbook", "over_entries"]
    assert score.functions["als/cholesky"].fraction == 0


def test_messages_do_not_influence_marks(tmp_path, monkeypatch):
    """Students control messages, so only the kind of a failure counts."""
    claim = "raises ValueError: ended by the wall-time limit"
    assert not marked(svd_step=claim).wall_time
    assert marked(svd_step=Failure(FailureKind.WALL_TIME, "")).wall_time
    monkeypatch.setattr(
        pipeline, "prepare", lambda folder, _: (folder / "mflib").mkdir(parents=True)
    )
    monkeypatch.setattr(pipeline.shutil, "copytree", lambda *_: None)
    given = Submission(modules=dict.fromkeys(RUBRIC, b""))
    appended = "raises ValueError: nothing was appended"
    for n, (failure, kept) in enumerate(
        [(appended, True), (claim, True), (Failure(FailureKind.CRASHED, ""), False)]
    ):
        folder = tmp_path / str(n)
        grading = Grading(given, OPTIONS, folder, Score(), verdicts(svd_step=failure))
        pipeline.prepare_notebook("als", grading)
        assert (folder / "als" / "submitted" / "svd.py").exists() == kept, failure


def test_a_problem_is_listed_once():
    missing, script = (
        Problem("svd.py: was not submitted", FileKind.MODULE),
        Problem("01_svd.py is a script", FileKind.NOTEBOOK),
    )
    failure = Failure(FailureKind.NOT_SUBMITTED, missing.message)
    score = scoring.empty_score()
    scoring.score_functions(verdicts(svd_step=failure), {"svd": [missing, script]}, score)
    assert score.reasons["svd"] == [script.message, f"svd_step: {missing.message}"]


def test_best_kernel_is_the_one_that_trains_correctly():
    assert scoring.best_kernel("als", verdicts(conjugate_gradient=["X"])).name == "cholesky"
    assert scoring.best_kernel("als", verdicts()).name == "conjugate_gradient"
    found = verdicts()
    found["als/conjugate_gradient"].model = ModelFit.DIFFERS
    assert scoring.best_kernel("als", found).name == "cholesky", "the one that trains rightly"
    for entry in RUBRIC.values():
        assert set(entry.lists) <= set(entry.kernels)


def test_lists_count_in_proportion_to_the_factors(monkeypatch):
    def judged(task, *_):
        return {"recommendations": 1.0, "similar movies": 0.5}, []

    monkeypatch.setattr(scoring, "judge_lists", judged)
    monkeypatch.setattr(scoring, "hidden_split", lambda *_: None)  # which needs the data
    wrong = {"svd_step": ["P"], "bpr_step": ["P", "Q"], "warp_step": ["the losses"]}
    score, found = marked(**wrong), verdicts(**wrong)
    scoring.award_right_lists(found, score)
    kernels = scoring.kernels_to_fit(found)
    assert set(kernels) == {"svd"}, "what is right needs no model, what is wrong makes none"
    scoring.score_lists(kernels["svd"], UnitResult({}), "any", 7, None, score)
    earned = {task: score.marks[task]["recommendations"] for task in RUBRIC}
    assert earned == {"svd": 10, "als": 20, "bpr": 0, "warp": 20}
    assert "need right factors (P, Q), which bpr_step changes" in score.reasons["bpr"][-1]
    assert score.marks["svd"]["similar movies"] == 15 * 0.5 * 0.5
    assert "count 50%" in score.reasons["svd"][-1]
    failure = Failure(FailureKind.WALL_TIME, "ended")
    scoring.score_lists(found["svd/svd_step"], UnitResult({}, failure), "any", 7, None, score)
    assert score.wall_time
    assert score.reasons["svd"][-1] == "recommendations: ended"


def test_lists_are_measured_if_training_differs():
    """The kernel is right on hidden inputs but not in a model: a limit, float16, a trick."""
    for model in (ModelFit.DIFFERS, ModelFit.FAILED, ModelFit.NOT_TRIED):
        found, score = verdicts(), marked()
        found["bpr/bpr_step"].model = model
        scoring.award_right_lists(found, score)
        assert set(scoring.kernels_to_fit(found)) == {"bpr"}
        assert score.marks["bpr"]["recommendations"] == 0, "not before they are measured"


def stored_cells(task):
    cells = [c for c in notebook_of(task).cells if c.cell_type == "code"]
    stored = {c.id: nbformat.v4.new_code_cell(c.source, id=c.id) for c in cells}
    for cell in stored.values():
        cell.execution_count = 1
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="shown")]
    return stored


def test_cells_without_outputs_are_not_reproduced():
    """This happens if an answer disables later cells, in the submission and here."""
    stored, executed = stored_cells("als"), stored_cells("als")
    for cells in (stored, executed):
        cells["curve"].outputs = cells["imports"].outputs = []
    assert list(compare_cells("als", stored, executed)[0]) == ["curve"]


def test_only_cells_with_outputs_count():
    """Otherwise forged execution counts would be enough to reproduce cells without outputs."""
    executed = {c.id: c for c in reproducibility.reference_cells("als", "ml-100k").values()}
    shown = [name for name, cell in executed.items() if cell.outputs]
    stored = {name: nbformat.from_dict(cell) for name, cell in executed.items()}
    assert compare_cells("als", stored, executed) == ({}, len(shown))
    for cell in list(stored.values())[10:]:
        cell.outputs = []
    found = compare_cells("als", stored, executed)
    assert found.n_reproduced == sum(bool(cell.outputs) for cell in stored.values()) > 2
    assert found.n_cells == len(shown)


def test_hidden_inputs_depend_on_the_submitted_code():
    """Seeing the inputs does not help to submit a table; outputs do not change the inputs."""
    one = Submission({"svd": b"1"}, {"svd/check_step": [("a", "1")]})
    numbers = {seed_of(given) for given in (one, replace(one, notes=["x"], stored={"svd": {}}))}
    numbers |= {seed_of(replace(one, modules={"svd": b"2"}))}
    numbers |= {seed_of(replace(one, answers={"svd/check_step": [("a", "2")]}))}
    assert len(numbers) == 3
    drawn = [seed for n in range(3) for seed in replace(OPTIONS, submission_seed=n).seeds]
    assert len(set(drawn)) == len(drawn)


def test_the_seeds_of_inputs_do_not_reveal_the_secret():
    one, other = (replace(OPTIONS, secret=secret).seeds[0] for secret in (7, 8))
    assert abs(one - other) > 2**32
    assert one > 2**32


def test_public_outputs_count_in_proportion_to_right_kernels(tmp_path):
    """Outputs on the other data set are not executed here, so anybody could copy them."""
    stored = {c.id: c for c in reproducibility.reference_cells("bpr", "ml-1m").values()}
    earned = []
    for wrong in ({}, {"bpr_step": ["P", "Q", "b"]}):
        score = marked(**wrong)
        given = Submission(stored={"bpr": stored})
        grading = Grading(given, OPTIONS, tmp_path, score, verdicts(**wrong))
        pipeline.reproduce("bpr", grading)
        earned.append(score.marks["bpr"]["reproducibility"])
    assert earned == [10, 2.5]
    assert "counts 25%" in score.reasons["bpr"][-1]


def cell(text, count=1, kind="text/plain", stream=False):
    output = nbformat.v4.new_output("execute_result", {kind: text}, execution_count=1)
    if stream:
        output = nbformat.v4.new_output("stream", name=kind, text=text)
    return nbformat.v4.new_code_cell("x", id="x", outputs=[output], execution_count=count)


def png(*sizes):
    headers = [b"\0\0\0\x0dIHDR" + struct.pack(">IIxxxxxxxxx", *size) for size in sizes]
    return reproducibility.PNG + b"".join(headers)


def test_stored_outputs_are_compared_cell_by_cell():
    change = reproducibility.cell_difference
    assert change(cell("0.5"), cell("0.5")) == ""
    assert change(cell(["0.", "5"]), cell("0.5")) == ""
    assert change(cell("0.4"), cell("0.5")) == "- 0.4\n+ 0.5"
    assert "was not executed" in change(cell("0.5", count=None), cell("0.5"))
    assert "was not executed" in change(None, cell("0.5"))
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
    assert "at most 20 MIME types" in change(many, cell("0.5"))
    wrong = change(cell("no base64!", kind="image/png"), cell("neither", kind="image/png"))
    assert "cannot be read" in wrong
    assert "cannot be read" in change({"execution_count": 1, "outputs": [5]}, cell("0.5"))
    deep = json.loads("[" * 900 + "]" * 900)  # nbformat's message would never end
    assert "cannot be read" in change({"execution_count": deep, "outputs": []}, cell("0.5"))


def test_a_table_is_compared_as_text():
    """Colab adds HTML elements; if the text has no content, the HTML is compared."""

    def table(text, page):
        found = cell(text)
        found.outputs[0].data["text/html"] = page
        return found

    one, other = table("1 2", "<table>"), table("1 2", "<div id=df-1 class=colab-df><table>")
    assert reproducibility.cell_difference(one, other) == ""
    shown = "<IPython.core.display.HTML object>"
    assert reproducibility.cell_difference(table(shown, "<p>"), table(shown, "<b>")) != ""


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
def test_volatile_text_is_ignored(one, other):
    assert reproducibility.cell_difference(cell(one), cell(other)) == ""
    pair = (cell(text, kind="stdout", stream=True) for text in (one, other))
    assert reproducibility.cell_difference(*pair) == ""
    assert reproducibility.cell_difference(cell(f"{one} 6"), cell(f"{other} 7")) != ""


def test_the_data_set_of_a_notebook_is_inferred():
    for dataset, graded_on in (("ml-1m", "ml-100k"), ("ml-100k", "ml-1m"), ("ml-1m", "ml-1m")):
        file = reproducibility.STORED[dataset] / "02_als.ipynb"
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        stored = {c["id"]: c for c in cells if c["cell_type"] == "code"}
        assert reproducibility.dataset_of("als", stored, graded_on) == dataset
        ours = reproducibility.reference_cells("als", dataset)
        shown = {name: raw for name, raw in stored.items() if name in ours}
        assert compare_cells("als", shown, ours, set(ours))[0] == {}
    assert reproducibility.dataset_of("als", {}, "ml-1m") == "ml-1m"


def test_a_notebook_is_executed_unless_its_outputs_are_determined(tmp_path, monkeypatch):
    file = reproducibility.STORED["ml-100k"] / "03_bpr.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    stored = {c["id"]: c for c in cells if c["cell_type"] == "code"}
    run: list[str] = []
    monkeypatch.setattr(pipeline, "prepare_notebook", lambda task, *_: run.append(task))
    monkeypatch.setattr(Runs, "launch", lambda *_: None)
    monkeypatch.setattr(pipeline, "executed_cells", lambda *_: {})

    def marked_after(found, outputs=stored, **points):
        score = Score({task: POINTS.copy() | points for task in RUBRIC}, {"bpr": []})
        given = Submission(stored={"bpr": outputs})
        run.clear()
        pipeline.reproduce("bpr", Grading(given, OPTIONS, tmp_path, score, found))
        return score.marks["bpr"]["reproducibility"], run == ["bpr"]

    assert marked_after(verdicts()) == (10, False)
    assert marked_after(verdicts(warp_step=["P"])) == (10, False), "which it does not use"
    for wrong in ({"bpr_step": ["P"]}, {"chosen": "raises"}):
        assert marked_after(verdicts(**wrong)) == (0, True)
    assert marked_after(verdicts(), **{"similar movies": 14.0}) == (0, True)
    name = next(n for n, c in stored.items() if c["outputs"] and n in shown("bpr"))
    other = stored | {name: stored[name] | {"outputs": []}}
    assert marked_after(verdicts(), other) == (0, True)


def shown(task):
    return reproducibility.reference_cells(task, "ml-100k")


def test_notebook_to_run_has_the_graders_cells_and_the_answers():
    answers = {
        "svd/check_step": [
            ("helper", "LOW = 1"),
            ("exercise-3", "def check_step(x):\n    return LOW"),
        ]
    }
    notebook = reproducibility.notebook_to_run("svd", answers, known()["svd"])
    cells = {c.id: c.source for c in notebook.cells}
    assert cells["exercise-3"] == "LOW = 1\n\ndef check_step(x):\n    return LOW"
    assert cells["exercise-2"] == 'raise NotImplementedError("missing")'
    assert cells["exercise-3-check"].startswith("def in_float32(")


def packed(time=0.0, **files):
    return Package("a", {name: File(lambda c=c: c.encode(), time) for name, c in files.items()})


def test_pages_have_a_bounded_size(tmp_path):
    long, many = "\"'<\ud800" * 10**5, ["'" * 3_000] * 5_000
    score = Score({task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC})
    score.reasons = {task: [long, *many] for task in RUBRIC}
    score.changes = {task: dict.fromkeys(map(str, range(5_000)), long) for task in RUBRIC}
    score.notes = [long, *many]
    failure = Failure(FailureKind.RAISED, long)
    wrong = Verdict("svd/svd_step", wrong=dict.fromkeys("PQ", long), failure=failure, where=long)
    score.functions = dict.fromkeys(OUTPUTS, wrong)
    score.answers = dict.fromkeys(OUTPUTS, "\ud800" * 4_000)
    sent = json.dumps(schema.encode(score.bounded()))
    assert len(sent) < ProcessLimits().message
    bounded = read_score(json.loads(sent))
    assert bounded.reasons["svd"][-1].startswith("… and ")
    write_report(Report("a", bounded), tmp_path)
    for page in ("a.html", "instructor/a.html"):
        assert (tmp_path / page).stat().st_size < 2**20
    assert (tmp_path / "submissions" / "a.json").stat().st_size < SIZE


@pytest.mark.parametrize(
    "change",
    [
        {"marks": {"svd": {"correctness": 41}}},
        {"marks": {"other": {}}},
        {"reasons": {"svd": ["x" * 3_000]}},
        {"functions": {"svd/svd_step": {"wrong": {}}}},
        {"functions": {"svd/svd_step": {"key": "x", "failure": {"kind": "odd", "message": ""}}}},
        {"marks": {"svd": {"correctness": float("nan")}}},
        {"marks": {"svd": {"no part": 1}}},
        {"secret": True},
        {"notes": "x"},
        {"more": 1},
    ],
)
def test_malformed_reports_are_refused(change):
    score = Score({task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC})
    raw = Report("a", score).as_json()
    assert read_report(raw) == Report("a", score)
    with pytest.raises(ValueError, match="score"):
        read_report(raw | {"score": raw["score"] | change})


def without_bias(P, Q, b_u, b_i, *batch):
    """Do the reference's step, except that the biases of the items stay."""
    kept = b_i.clone()
    losses = function("svd/svd_step")(P, Q, b_u, b_i, *batch)
    b_i.copy_(kept)
    return losses


def test_only_the_instructors_page_shows_code_and_hidden_inputs(tmp_path):
    key, seed = "svd/svd_step", 1234567
    came = {place: o.after for place, o in outputs(without_bias, key, seed).items()}
    verdict = judge(key, came, expected(key, (seed,)), "svd.py, lines 3-9")
    assert verdict.failing == {"b_i": [seed, 0]}
    raised = Verdict("svd/new_user", failure=Failure(FailureKind.RAISED, "raises ValueError: no"))
    score = Score({task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC}, seeds=[seed, seed + 1])
    score.functions = {
        key: verdict,
        "svd/new_user": raised,
        "als/textbook": Verdict("als/textbook"),
    }
    score.answers = {"svd/svd.py": "def svd_step(<mine>)", "svd/new_user": "def new_user(Q):"}
    score.answers["als/textbook"] = "def right"
    write_report(Report("Ann <b>", read_score(schema.encode(score))), tmp_path)
    page = (tmp_path / "instructor" / "Ann <b>.html").read_text(encoding="utf-8")
    student = (tmp_path / "Ann <b>.html").read_text(encoding="utf-8")
    ratings = str(calls(key, seed)[0][6][0].item())
    for text in ("def svd_step(&lt;mine&gt;)", "def new_user(Q)", ratings, str(seed)):
        assert text in page
        assert text not in student
    assert f"b_i: inputs of seed {seed}, call 0" in page
    assert f"no output: inputs of seed {seed}, call 0" in page
    assert "svd_step (svd.py, lines 3-9): in b_i nothing changed" in page
    assert "def right" not in page, "right answers need no case"
    assert "<b>" not in page


@pytest.mark.parametrize("key", [key for key in OUTPUTS if not OUTPUTS[key].kernel])
def test_inputs_of_every_function_can_be_shown(key):
    failed = Verdict(key, failure=Failure(FailureKind.RAISED, "raises ValueError: no"))
    ((case,),) = [one.cases for one in complaints(Score(functions={key: failed}, seeds=[5]))]
    assert list(case.arguments) == list(inspect.signature(function(key)).parameters)
    assert "object at" not in "".join(case.arguments.values())


def test_malformed_failing_cases_are_left_out():
    """The grading process has read untrusted files."""
    score = Score(functions={"svd/new_user": Verdict("svd/new_user", wrong={"ndcg": "no"})})
    score.functions["svd/new_user"].failing = {"ndcg": [5, 99]}
    (complaint,) = complaints(score)
    assert complaint.cases == []
    raw = schema.encode(score)
    raw["functions"]["svd/new_user"]["failing"]["ndcg"] = [2**64, 0]
    with pytest.raises(ValueError, match="a size of"):
        read_score(raw)


def test_other_versions_grade_again(monkeypatch):
    package = packed(**{"svd.py": "1"})
    before = gradebook.fingerprint(package, OPTIONS)
    monkeypatch.setattr(gradebook, "versions", lambda: "a newer Python")
    gradebook._grader_digest.cache_clear()
    assert gradebook.fingerprint(package, OPTIONS) != before
    gradebook._grader_digest.cache_clear()


def test_only_changed_submissions_are_graded_again(tmp_path):
    packages = [packed(**{"svd.py": text}) for text in ("1", "1", "2")]
    packages += [packed(**{"svd.py": "1", "x.txt": text}) for text in ("1", "2")]
    prints = [gradebook.fingerprint(package, OPTIONS) for package in packages]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != prints[3] == prints[4], "what is not looked at has a name only"
    assert prints[0] != gradebook.fingerprint(packages[0], replace(OPTIONS, secret=8))
    score = Score({task: dict.fromkeys(POINTS, 5.0) for task in RUBRIC}, content=prints[0])
    score.reasons = {task: [] for task in RUBRIC}
    report = Report("a", score)
    write_report(report, tmp_path)
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
    wrong = Verdict("svd/svd_step", wrong={"P": "in P"}, where="svd.py, line 3")
    score = Score(points, reasons, changes, {"svd/svd_step": wrong}, notes=["<i>"])
    assert "<p>Nothing is declared.</p>" in report_page(Report("a", score))
    score.declarations = {"svd": "an assistant, for <b>signs</b>"}
    text = report_page(Report("<b>", score))
    first = (
        "<p class=first>svd_step: expected 1 &amp; got &lt;2&gt;</p><ul><li>the second</li></ul>"
    )
    assert first in text
    assert "<dt>svd</dt><dd><pre>an assistant, for &lt;b&gt;signs&lt;/b&gt;</pre></dd>" in text
    assert "<dt>loop</dt><dd><pre>- &lt;script&gt;\n+ 2</pre></dd>" in text
    assert "<td>svd_step</td><td>80%</td><td>svd.py, line 3</td>" in text
    assert "<script" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    report = Report("a", Score(points, {"svd": ["no encoding has \ud800"]}))
    write_report(report, tmp_path)
    write_class_tables([report], tmp_path)
    assert "\\ud800" in (tmp_path / "a.html").read_text(encoding="utf-8")
    row = (tmp_path / "class.csv").read_text(encoding="utf-8-sig").splitlines()[1]
    assert row == "a,25.0,25.0,25.0,25.0,25.0,,,,,"
