"""Comparing outputs with the reference: points and messages."""

import importlib
import inspect
import re

import numpy as np
import pytest
import torch

from grading.evaluation.accuracy import all_cases
from grading.execution.inputs import SEEDS, calls, outputs, short_fit
from grading.execution.reference import answers, expected, function
from grading.judging.compare import distinguishable, is_close, judge
from grading.judging.verdict import Verdict
from grading.outcomes import NOT_ATTEMPTED, Failure, FailureKind
from grading.rubric import OUTPUTS, RUBRIC
from mflib.als import conjugate_gradient
from mflib.bpr import bpr_step
from mflib.sparse import Entries

SEED = (1101,)
RAISED = Failure(FailureKind.RAISED, "raises ValueError: x")


def judged(own, key="bpr/bpr_step"):
    observed = outputs(own, key, SEED[0])
    arrays = {place: pair.after for place, pair in observed.items()}
    return judge(key, arrays, expected(key, SEED))


def test_every_answer_of_the_notebooks_has_inputs():
    kernels = {f"{task}/{name}" for task in RUBRIC for name in RUBRIC[task].kernels}
    assert set(answers()) == set(OUTPUTS) - kernels
    assert len(answers()) == 16


@pytest.mark.parametrize("key", [key for key in OUTPUTS if not OUTPUTS[key].kernel])
def test_the_reference_is_right_and_its_inputs_differ_by_seed(key):
    assert judged(function(key), key).fraction == 1
    one, other = (expected(key, (seed,)) for seed in SEEDS[:2])
    if not OUTPUTS[key].choices:
        one, other = ([c.after.tolist() for c in came.values()] for came in (one, other))
        assert one != other


@pytest.mark.parametrize(("key", "bound"), [("svd/svd_step", 1), ("bpr/bpr_step", 4)])
@pytest.mark.parametrize("seed", range(2000, 2020))
def test_the_bound_of_the_rate_holds_for_some_rows_only(key, bound, seed):
    """In each call the bound must matter for some rows and be inactive for others."""
    arguments = calls(key, seed)[0]
    (entries,) = (argument for argument in arguments if isinstance(argument, Entries))
    items, rate = entries.column_counts, arguments[7] if bound == 1 else arguments[5]
    if bound == 4:
        items = items + entries.with_columns(arguments[4]).column_counts
    for counts in (entries.row_counts, items):
        assert counts.min() == 0, "a row that does not occur must stay"
        assert counts[counts > 0].min() < bound / rate < counts.max()
    pairs = set(zip(entries.rows.tolist(), entries.columns.tolist(), strict=True))
    assert len(pairs) < len(entries), "a pair must occur twice"


@pytest.mark.parametrize("key", [f"{t}/{name}" for t in RUBRIC for name in RUBRIC[t].lists])
def test_short_fit_distinguishes_right_and_wrong_kernels(key, monkeypatch):
    """Seeds of submissions are larger than the package's seeds."""
    seed, (task, _, name) = 2**40 + 7, key.partition("/")
    right, again = short_fit(key, seed), short_fit(key, seed)
    assert all(is_close(again[what], array) for what, array in right.items())
    single = {what: array.astype(np.float32) for what, array in right.items()}
    assert all(is_close(single[what], array) for what, array in right.items()), "float32"
    module = importlib.import_module(f"mflib.{RUBRIC[task].module}")
    kernel = getattr(module, name)

    def slower(P, *arguments, **named):
        before = P.clone()
        returned = kernel(P, *arguments, **named)
        P.copy_(before + 0.98 * (P - before))
        return returned

    first = next(iter(inspect.signature(kernel).parameters))
    monkeypatch.setattr(module, name, lambda **named: slower(named.pop(first), **named))
    wrong = short_fit(key, seed)
    assert not all(is_close(wrong[what], array) for what, array in right.items())


def test_hidden_inputs_have_large_differences_and_ties():
    """They must detect overflow of exp(-x) and the difference between > and >=."""
    for seed in range(100, 110):
        P, Q, b, likes, j, *_ = calls("bpr/bpr_step", seed)[1]
        users, i = likes.rows.long(), likes.columns.long()
        x = b[i] - b[j] + (P[users] * (Q[i] - Q[j])).sum(1)
        assert torch.log(1 + torch.exp(-x)).isinf().any()
        scores, rows, limits, draws = calls("warp/first_violations", seed)[1]
        assert (scores(rows.expand_as(draws), draws) == limits).any()
        for key in ("warp/warp_step", "warp/textbook"):
            P, Q, *others = calls(key, seed)[1]
            rows = others[0][others[2]] if key == "warp/warp_step" else others[1]
            positives, draws = others[3:5] if key == "warp/warp_step" else others[2:4]
            scores = P[rows] @ Q.T
            limits = scores.gather(1, positives[:, None])[:, 0] - 0.5
            assert (scores.gather(1, draws.T) == limits[:, None]).any()


def test_all_outputs_have_the_same_weight():
    def without_losses(*arguments):
        bpr_step(*arguments)

    verdict = judged(without_losses)
    assert verdict.fraction == 3 / 4
    assert list(verdict.wrong) == ["the losses"]
    assert "nothing was returned" in verdict.sentence
    assert verdict.sentences[-1] == "bpr_step: right: P, Q, b"


def test_missing_in_place_updates_are_reported():
    def functional(P, Q, b, *rest):
        return bpr_step(P.clone(), Q.clone(), b.clone(), *rest)

    verdict = judged(functional)
    assert verdict.fraction == 1 / 4
    assert "nothing changed: it must be updated in place" in verdict.wrong["P"]


@pytest.mark.parametrize(
    ("dtype", "fraction", "says"),
    [(torch.float32, 1, "float32?"), (torch.bfloat16, 0, "half precision?")],
)
def test_imprecise_numbers_are_reported(dtype, fraction, says):
    def imprecise(P, Q, b, *rest):
        own = [W.to(dtype).double() for W in (P, Q, b)]
        losses = bpr_step(*own, *rest)
        for W, mine in zip((P, Q, b), own, strict=True):
            W.copy_(mine.to(dtype))
        return losses.to(dtype)

    verdict = judged(imprecise)
    assert verdict.fraction == fraction if fraction else verdict.fraction < 1
    assert says in verdict.sentence


def test_the_hint_fits_the_fault(monkeypatch):
    def opposite(P, Q, b, *rest):
        before = [W.clone() for W in (P, Q, b)]
        losses = bpr_step(P, Q, b, *rest)
        for W, old in zip((P, Q, b), before, strict=True):
            W.copy_(2 * old - W)
        return losses

    assert "the opposite direction: check the sign" in judged(opposite).wrong["P"]

    def unpenalised(P, Q, b, likes, negatives, rate, *_):
        return bpr_step(P, Q, b, likes, negatives, rate, 0.0, 0.0)

    verdict = judged(unpenalised)
    assert "the penalty" in verdict.wrong["P"]
    assert "lambda_I" in verdict.wrong["b"], "where the fault cannot be seen, the output's hint"

    def unbounded(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr("mflib.bpr.BOUND", np.inf)
            return bpr_step(*arguments)

    verdict = judged(unbounded)
    assert "some by a wrong length: check the rate) (hint: " in verdict.wrong["P"]
    assert "the losses" not in verdict.wrong


@pytest.mark.parametrize(
    ("what", "row"),
    [
        ("svd/svd_step: duplicates of users lost", "user"),
        ("svd/svd_step: duplicates of items lost", "item"),
        ("bpr/bpr_step: duplicates of users lost", "user"),
        ("bpr/bpr_step: duplicates of liked items lost", "item"),
        ("bpr/bpr_step: duplicates of others lost", "item"),
        ("warp/warp_step: duplicates of users lost", "user"),
        ("warp/warp_step: duplicates of liked items lost", "item"),
        ("warp/warp_step: duplicates of others lost", "item"),
    ],
)
def test_lost_duplicates_are_reported(what, row):
    case = next(c for c in all_cases() if f"{c.key}: {c.name}" == what)
    found = {}
    for seed in (1101, 1102, 1103):
        space = {"__name__": "mflib.case"}
        exec(compile(case.code, "case", "exec"), space)
        found |= outputs(space[case.key.partition("/")[2]], case.key, seed)
    arrays = {place: pair.after for place, pair in found.items()}
    verdict = judge(case.key, arrays, expected(case.key, (1101, 1102, 1103)))
    (why,) = verdict.wrong.values()
    update = f"keeps only one update per repeated {row}; use index_add_ or a sparse product"
    assert update in why, why


def test_distinguishable_shows_enough_digits():
    assert distinguishable(0.123456789, 0.123456788) == ("0.123456789", "0.123456788")
    assert distinguishable(1.0, 2.0) == ("1", "2")
    right = expected("als/over_entries", SEED)
    (place,) = right
    wrong = {place: right[place].after * (1 + 1e-4)}
    said = re.search(
        r"expected (\S+) at .*, got (\S+);", judge("als/over_entries", wrong, right).sentence
    )
    assert said[1] != said[2], said


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (lambda a: a[:3], "expected the shape"),
        (lambda a: a.astype(str), "expected numbers"),
        (lambda a: a + np.nan, "got nan"),
        (lambda a: a + 1, "100% of the numbers differ"),
    ],
)
def test_wrong_shapes_kinds_and_values_are_reported(mine, says):
    right = expected("als/over_entries", SEED)
    arrays = {place: mine(came.after) for place, came in right.items()}
    verdict = judge("als/over_entries", arrays, right)
    assert verdict.fraction == 0
    assert says in verdict.sentence


@pytest.mark.parametrize(("said", "fraction"), [("a", 1), (" D ", 1), ("e", 0), (3, 0), (["c"], 0)])
def test_any_of_the_choices_earns_the_point_of_a_prediction(said, fraction):
    verdict = judged(lambda: said, "als/prediction")
    assert verdict.fraction == fraction
    assert "expected one of a, b, c, d" in verdict.sentence or fraction


def test_verdict_sentence_names_place_and_failure():
    assert Verdict("svd/check_step", failure=NOT_ATTEMPTED).sentence == "check_step: not attempted"
    verdict = Verdict("svd/check_step", failure=RAISED, where="cell exercise-1, line 2")
    assert verdict.sentence == "check_step (cell exercise-1, line 2): raises ValueError: x"
    assert verdict.fraction == 0
    assert Verdict("svd/check_step").sentence == "check_step: done"


def test_calls_have_shapes_that_vary():
    shapes = {tuple(calls("bpr/bpr_step", seed)[0][0].shape) for seed in range(50, 54)}
    assert len(shapes) == 4


@pytest.mark.parametrize("other", ["U5", "M8[s]", "c16", [("a", float)], "?"])
def test_non_numeric_outputs_are_wrong_without_an_exception(other):
    """This holds even if another output has wrong numbers, for which a hint is computed."""
    right = expected("svd/svd_step", (7, 8))
    for seed in ("7/", "8/"):
        got = {
            place: 2.0 * came.after if place.startswith(seed) else np.zeros(came.after.shape, other)
            for place, came in right.items()
        }
        assert judge("svd/svd_step", got, right).fraction == 0
    far = {place: came.after * 1e300 for place, came in right.items()}
    assert judge("svd/svd_step", far, right).fraction == 0


def test_answers_of_the_self_check_follow_the_kernels_and_loops():
    """Each wrong answer replaces text of the reference, or building it raises (without checks)."""
    cases = all_cases()
    assert sum(case.right for case in cases) > 90
    assert sum(not case.right for case in cases) > 300


def test_a_division_of_zero_by_zero_is_named():
    """A row without entries starts at 0; conjugate gradients without a guard make it NaN."""

    def unguarded(X, Y, blocks, penalty, steps):
        conjugate_gradient(X, Y, blocks, penalty, steps)
        X[(X == 0).all(1)] /= 0

    key = "als/conjugate_gradient"
    arrays = {place: output.after for place, output in outputs(unguarded, key, 0).items()}
    verdict = judge(key, arrays, expected(key, (0,)), "")
    assert "expected 0 at (1, 0), got nan: is 0 divided by 0 there?" in verdict.sentence
