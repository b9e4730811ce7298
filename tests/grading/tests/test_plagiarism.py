"""Detecting identical functions and copies of the published answers."""

import ast
import zipfile

from grading.execution.reference import answers
from grading.paths import ROOT
from grading.plagiarism.identical import groups
from grading.plagiarism.normal_form import normal_forms, own_part
from grading.plagiarism.public_answers import published
from grading.reporting.render import similarity_page, write_similarity
from grading.result import Report, Score
from grading.rubric import RUBRIC

ONE = '''
def step(P, Q, users, items, rate):
    """What it does."""
    p, q = P[users], Q[items]  # both
    error = rate * (p * q).sum(1)
    for n in range(len(error)):
        if error[n] > 0.5:
            P[users[n]] += error[n] * q[n] - 0.1 * p[n]
            Q[items[n]] += error[n] * p[n] - 0.1 * q[n]
    return error.pow(2)
'''
# The same with other names, comments, layout.
RENAMED = """
@torch.no_grad()
def update(A, B, rows, columns, lr: float) -> torch.Tensor:
    a, b = A[rows], B[columns]
    e: torch.Tensor = lr * (a * b).sum(1)
    # go through them
    for k in range(len(e)):
        if e[k] > 0.5:

            A[rows[k]] += e[k] * b[k] - 0.1 * a[k]
            B[columns[k]] += (
                e[k] * a[k] - 0.1 * b[k])
    return e.pow(2)
"""


def digest(source):
    (form,) = normal_forms(source)
    return form.digest


def test_normal_form_ignores_names_comments_layout_annotations_and_decorators():
    assert digest(ONE) == digest(RENAMED)
    (form,) = normal_forms(RENAMED)
    assert (form.name, form.first, form.last) == ("update", 3, 13)


def test_normal_form_keeps_operations_numbers_attributes_and_builtins():
    changes = {
        "0.5": "0.6",
        ".sum(1)": ".mean(1)",
        "range(len(error))": "len(range(error))",
        "- 0.1 * p[n]": "+ 0.1 * p[n]",
        "p, q = P[users], Q[items]": "q, p = P[users], Q[items]",
    }
    for right, other in changes.items():
        assert digest(ONE.replace(right, other, 1)) != digest(ONE), other


def test_normal_forms_skip_small_functions_and_include_classes():
    assert normal_forms("def f(x):\n    return x + 1") == []
    inside = ONE.replace("\n", "\n    ")
    one, other = f"class A:{inside}", f"class B:{inside.replace('step', 'walk')}"
    assert digest(one) == digest(other)


def test_normal_forms_accepts_any_source():
    deep = "def step():\n return " + "-" * 2_000 + "1"
    for source in (
        "",
        "(",
        "\0",
        "'''",
        "x = 'a",
        "\tx\n y",
        "é = " + "[" * 300,
        "0;" * 2_000,
        deep,
    ):
        assert normal_forms(source) == []
        assert isinstance(own_part(source, "x = 1"), str)
    many = "".join(ONE.replace("step", f"step_{n}") for n in range(200))
    assert len(normal_forms(many)) == 100
    assert normal_forms(ONE.replace("error", "\ud800")) == []


def test_own_part_returns_the_added_statements():
    given = "import torch\n\ndef f(x):\n    raise NotImplementedError\n\ndef g():\n    return 1\n"
    mine = "import torch\n\n@wrap\ndef f(x):\n    return x  # mine\n\ndef g():\n    return 1\n"
    assert own_part(mine, given) == "@wrap\ndef f(x):\n    return x  # mine"
    assert own_part(given, given) == ""
    assert own_part("def f(:", given) == "def f(:"
    assert own_part("a = 1; b = 2\n\nc = 3", given) == "a = 1; b = 2\n\nc = 3", "a line once"


def test_published_answers_are_recognised():
    known = []
    for task, entry in RUBRIC.items():
        module = (ROOT / "mflib" / f"{entry.module}.py").read_text(encoding="utf-8")
        keys = {f"{task}/{entry.module}.py": module}
        keys |= {key: source for key, source in answers().items() if key.startswith(f"{task}/")}
        for key, source in keys.items():
            laid_out = ast.unparse(ast.parse(source))
            known += [f"{task}/{name}" for name in published(key, laid_out)]
            assert published(key, "def step(): pass") == []
    kernels = {f"{task}/{name}" for task, entry in RUBRIC.items() for name in entry.kernels}
    assert kernels | {f"{task}/textbook" for task in RUBRIC} <= set(known)
    assert "svd/prediction" not in known, "too small"


def reports(**sources):
    """Return a report for each name, with one answer or a dictionary of answers."""
    found = []
    for name, given in sources.items():
        texts = given if isinstance(given, dict) else {"svd/svd.py": given}
        forms = {key: normal_forms(text) for key, text in texts.items()}
        found.append(Report(name, Score(answers=texts, normal_forms=forms)))
    return found


def grouped(found):
    return groups({report.name: report.score.normal_forms for report in found})


def test_all_identical_answers_form_one_group():
    for count in (2, 4, 40):
        sources = {f"s{n:02}": ONE if n % 2 else RENAMED for n in range(count)}
        (group,) = grouped(reports(**sources, other=ONE.replace("0.5", "0.6")))
        assert group.submissions == tuple(sorted(sources))
        assert group.names == ["svd: update"]


def test_groups_that_share_most_come_first():
    two = {"svd/svd.py": ONE, "als/loop": ONE.replace("0.1", "0.2")}
    found = grouped(
        reports(Di=two, Cy=two, Ann=ONE.replace("0.5", "1"), Bo=ONE.replace("0.5", "1"))
    )
    assert [group.submissions for group in found] == [("Cy", "Di"), ("Ann", "Bo")]
    assert sorted(found[0].names) == ["als: step", "svd: step"]
    assert grouped(reports(Ann=ONE, Bo=ONE.replace("0.5", "0.6"))) == []
    assert grouped(reports(Ann={"svd/svd.py": ONE, "svd/loop": ONE})) == [], "of one submission"


def test_the_page_shows_both_answers_and_runs_nothing():
    found = reports(
        **{"Ann <b>": ONE + "# <script>\n", "Bo": RENAMED.replace("# go", "# <script>")}
    )
    found[0].score.published = {"svd/svd.py": ["step"]}
    text = similarity_page(found)
    assert '<a href="Ann%20%3Cb%3E.html">Ann &lt;b&gt;</a>, <a href="Bo.html">Bo</a>' in text
    assert "svd: step (published solution)" in text
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "This is only a hint" in text
    assert "does not find rewritten copies" in similarity_page([])


def test_the_export_has_a_file_for_each_submission(tmp_path):
    found = reports(Ann={"svd/svd.py": "a = 1", "als/loop": "b = '\ud800'"}, Bo="c = 3")
    write_similarity(found, tmp_path)
    first = (tmp_path / "answers.zip").read_bytes()
    write_similarity(found[::-1], tmp_path)
    assert (tmp_path / "answers.zip").read_bytes() == first, "the same bytes in any order"
    with zipfile.ZipFile(tmp_path / "answers.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert texts == {
        "Ann.py": "# als/loop\nb = '\\ud800'\n\n# svd/svd.py\na = 1",
        "Bo.py": "# svd/svd.py\nc = 3",
    }
    assert sorted(file.name for file in tmp_path.iterdir()) == ["answers.zip", "similarity.html"]
