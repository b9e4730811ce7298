"""Who wrote alike, and who handed in the public answer."""

import ast
from itertools import combinations

from grading.execution.reference import answers
from grading.paths import ROOT
from grading.plagiarism.fingerprints import all_hashes, fingerprints, is_reference, own_part, tokens
from grading.plagiarism.pairs import closest
from grading.reporting.render import similarity_page
from grading.rubric import RUBRIC
from grading.selfcheck.right import RIGHT, SVD

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
# The same with other names, comments, numbers, layout.
RENAMED = """
def step(A, B, rows, columns, lr):
    a, b = A[rows], B[columns]
    e = lr * (a * b).sum(1)
    # go through them
    for k in range(len(e)):
        if e[k] > 0.7:

            A[rows[k]] += e[k] * b[k] - 0.2 * a[k]
            B[columns[k]] += (
                e[k] * a[k] - 0.2 * b[k])
    return e.pow(2)
"""
OTHER = """
def step(arguments):
    P, Q, users, items = arguments
    gradient = torch.einsum("bf,bf->b", P[users], Q[items])
    while not converged(gradient):
        gradient = torch.where(gradient < 0, -gradient, gradient / 2)
    result = P.index_add(0, users, gradient[:, None].expand(-1, P.shape[1]))
    return result, {name: value for name, value in zip("ab", (P, Q), strict=True)}
"""


def hashes(source, **options):
    return {entry[0] for entry in fingerprints(source, **options)}


def test_names_and_layout_do_not_hide_a_copy():
    assert " ".join(text for text, _ in tokens("x.shape = f(3) # no")) == "v . shape = v ( 0 )"
    one, renamed = hashes(ONE), hashes(RENAMED)
    assert len(one) > 10
    assert len(one & renamed) / min(len(one), len(renamed)) > 0.75, "parentheses count"
    assert not one & hashes(OTHER)
    lines = [entry[1:] for entry in fingerprints(ONE)]
    assert all(1 < first <= last <= 10 for first, last in lines)


def test_a_common_passage_is_found_wherever_it_stands():
    """The guarantee of winnowing."""
    passage = "a[b] += c * d - e.f(g, 2) % (h if i else -j)\n"
    before, behind = OTHER + passage + ONE, ONE + passage + OTHER
    alone = hashes(passage * 2)
    assert alone
    assert hashes(f"x = 1\n{passage}") & hashes(before) & hashes(behind)


def test_what_is_public_is_no_hint():
    assert hashes(RENAMED, without=all_hashes([RENAMED])) == set()
    assert hashes(ONE, without=all_hashes([OTHER])) == hashes(ONE)


def test_anything_can_be_looked_at():
    for source in ("", "(", "\0", "'''", "x = 'a", "\tx\n y", "é = " + "[" * 300, "0;" * 2_000):
        assert isinstance(fingerprints(source), list)
        assert isinstance(own_part(source, "x = 1"), str)
        assert not is_reference(source, ONE, "step")
    deep = "def step():\n return " + "-" * 2_000 + "1"
    assert not is_reference(deep, ONE, "step")
    assert len(fingerprints("".join(f"a{n % 7}.b{n}(c)[{n}];" for n in range(2_500)))) <= 400


def test_the_own_part_of_a_module():
    given = "import torch\n\ndef f(x):\n    raise NotImplementedError\n\ndef g():\n    return 1\n"
    mine = "import torch\n\n@wrap\ndef f(x):\n    return x  # mine\n\ndef g():\n    return 1\n"
    assert own_part(mine, given) == "@wrap\ndef f(x):\n    return x  # mine"
    assert own_part(given, given) == ""
    assert own_part("def f(:", given) == "def f(:"
    assert own_part("a = 1; b = 2\n\nc = 3", given) == "a = 1; b = 2\n\nc = 3", "a line once"


def test_the_public_answer_is_known_under_other_names():
    assert is_reference(RENAMED.replace("0.7", "0.5").replace("0.2", "0.1"), ONE, "step")
    annotated = ONE.replace("rate):", "rate: float) -> torch.Tensor:")
    annotated = annotated.replace("    error = ", "    error: torch.Tensor = ")
    assert is_reference(f"@torch.no_grad()\n{annotated.lstrip()}", ONE, "step")
    assert not is_reference(ONE.replace("0.5", "0.6"), ONE, "step")
    assert not is_reference(ONE.replace(".sum(1)", ".mean(1)"), ONE, "step")
    assert not is_reference(ONE.replace("range(len(error))", "len(range(error))"), ONE, "step")
    assert not is_reference(ONE, OTHER, "step")
    assert not is_reference("def f():\n    return 1", "def f():\n    return 1", "f"), "by chance"


def test_the_suites_own_answers_are_known():
    known = []
    for task, entry in RUBRIC.items():
        module = (ROOT / "mflib" / f"{entry['module']}.py").read_text(encoding="utf-8")
        sources = dict.fromkeys(entry["functions"], module)
        sources |= {k.partition("/")[2]: a for k, a in answers().items() if k.startswith(task)}
        for name, source in sources.items():
            laid_out = ast.unparse(ast.parse(source))
            known += [f"{task}/{name}"] if is_reference(laid_out, source, name) else []
    kernels = {f"{task}/{name}" for task, entry in RUBRIC.items() for name in entry["functions"]}
    assert kernels | {f"{task}/textbook" for task in RUBRIC} <= set(known)
    assert "svd/prediction" not in known


def test_other_dress_is_found_and_other_work_is_not():
    """The right answers of right.py: 16 are one step in other styles, 11 their own work."""
    dressed, own_work = {}, {}
    for (key, style), code in RIGHT.items():
        if key == SVD:
            one_step = "P.index_add_(0, users, lr_u[:, None] * (e[:, None] * q - reg * p))" in code
            public = all_hashes([(ROOT / "mflib" / "svd.py").read_text(encoding="utf-8")])
            (dressed if one_step else own_work)[style] = hashes(code, without=public)

    def common(one, other):
        return len(one & other) / min(len(one), len(other))

    alike = [common(*pair) for pair in combinations(dressed.values(), 2)]
    apart = [common(*pair) for pair in combinations(own_work.values(), 2)]
    apart += [common(a, b) for a in dressed.values() for b in own_work.values()]
    assert (len(dressed), len(own_work)) == (16, 11)
    assert min(alike) > 0.6 > 0.45 > max(apart), (min(alike), max(apart))


def prints(**sources):
    return {name: {"svd/svd.py": fingerprints(text)} for name, text in sources.items()}


def test_the_closest_pair_comes_first():
    half = ONE[: len(ONE) // 2] + OTHER.replace("while", "if").replace("/ 2", "** n")
    found = closest(prints(Ann=ONE, Bo=RENAMED, Cy=OTHER, Di=half))
    assert [(pair.one, pair.other) for pair in found[:2]] == [("Ann", "Bo"), ("Cy", "Di")]
    assert 0.7 < found[0].similarity <= 1
    assert found[0].lines["svd/svd.py"][0] >= {4, 5}
    assert closest(prints(Ann=ONE, Bo=OTHER)) == []
    assert closest(prints(**{f"s{n}": ONE for n in range(4)})) == [], "the usual way"


def test_the_page_shows_both_sides_and_runs_nothing():
    sources = {"Ann <b>": ONE + "# <script>", "Bo": RENAMED}
    pairs = closest({name: {"svd/svd.py": fingerprints(text)} for name, text in sources.items()})
    text = similarity_page(pairs, {name: {"svd/svd.py": text} for name, text in sources.items()})
    assert '<a href="Ann%20%3Cb%3E.html">Ann &lt;b&gt;</a> and <a href="Bo.html">Bo</a>' in text
    assert "<mark>    error = rate * (p * q).sum(1)</mark>" in text
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "This is a hint, no more" in text
    assert "No two submissions" in similarity_page([], {})
