"""Choose three questions for the talk with each student: on a line, an output, a variation.

They depend only on the report, the student's name and the secret of the class, so a sheet does not
change when it is written again.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from grading.result import Report
from grading.rubric import RUBRIC, function_of
from grading.talk.bank import BANK
from mflib import ALS
from mflib.data import MovieLens, load_movielens
from mflib.sampling import train_test_split

N_REASONS = 3  # likes that explain a recommendation
OUTPUT_OF_NOBODY = "none"  # the bank's question if the notebook shows no recommendations


@dataclass(frozen=True)
class Question:
    """A question, its expected answer, and where to look."""

    kind: str
    task: str  # empty if the question concerns no task
    text: str
    answer: str
    look: str
    place: str = ""  # of the quoted line
    quote: str = ""
    verdict: str = ""  # the grader's verdict on the quoted function


@dataclass(frozen=True)
class TalkSheet:
    """The questions for one student."""

    name: str
    questions: list[Question]


def sheet_of(report: Report) -> TalkSheet:
    """Return the sheet of a student, with different tasks if possible."""
    score = report.score
    rng = random.Random(f"{score.secret}/{report.name}")
    line = _line_question(report, rng)
    output = _output_question(report, rng, {line.task})
    variation = _variation(report, rng, {line.task, output.task})
    return TalkSheet(report.name, [line, output, variation])


def _pick_task(tasks: Iterable[str], used: set[str], rng: random.Random) -> str:
    """Draw a task, preferably an unused one; return "" if there are no tasks."""
    tasks = sorted(tasks)
    left = [task for task in tasks if task not in used] or tasks
    return rng.choice(left) if left else ""


def _line_question(report: Report, rng: random.Random) -> Question:
    """Return the question about a line: a mistake if there is one, otherwise of a drawn task."""
    quotes = report.score.quotes
    known = [(key, name) for key in sorted(quotes) for name in quotes[key] if name in BANK.lines]
    mistakes = [(key, name) for key, name in known if BANK.lines[name].mistake]
    if not known:
        return _question_on_paper(rng)
    task = _pick_task({function_of(key)[0] for key, _ in known}, set(), rng)
    own = [(key, name) for key, name in known if function_of(key)[0] == task]
    kernels = [(key, name) for key, name in own if not key.endswith("/textbook")]
    key, name = rng.choice(mistakes or kernels or own)
    entry, quote = BANK.lines[name], quotes[key][name]
    verdict = report.score.functions.get(key)
    wrong = verdict.sentence if verdict and not verdict.is_right else ""
    texts = (entry.question, entry.answer, entry.look)
    return Question("a line", function_of(key)[0], *texts, quote.place, quote.text, wrong)


def _question_on_paper(rng: random.Random) -> Question:
    """Return the question for a submission without a quotable line."""
    task = rng.choice(sorted(RUBRIC))
    entry = BANK.lines[f"{task}-penalty"]
    text = BANK.on_paper.format(task=task.upper())
    return Question("the objective", task, text, entry.answer, entry.look)


def _output_question(report: Report, rng: random.Random, used: set[str]) -> Question:
    shown = {task: ids for task, ids in report.score.recommended.items() if ids}
    task = _pick_task(shown, used, rng)
    if not task:
        entry = BANK.outputs[OUTPUT_OF_NOBODY]
        return Question("an output", "", entry.question, entry.answer, entry.look)
    movie = rng.choice(shown[task])
    entry, dataset = BANK.outputs[task], report.score.dataset
    question = entry.question.format(movie=example(dataset).data.movies["title"][movie])
    reasons = _reasons(task, dataset, movie)
    return Question("an output", task, question, entry.answer.format(reasons=reasons), entry.look)


def _variation(report: Report, rng: random.Random, used: set[str]) -> Question:
    """Return a question about another setting, preferably of a task with correct functions."""
    verdicts = report.score.functions
    right = {
        task
        for task, entry in RUBRIC.items()
        if all(
            (verdict := verdicts.get(f"{task}/{name}")) and verdict.is_right
            for name in entry.kernels
        )
    }
    tasks = {variation.task for variation in BANK.variations}
    task = _pick_task(tasks & right or tasks, used, rng)
    chosen = rng.choice([variation for variation in BANK.variations if variation.task == task])
    return Question("a variation", task, chosen.question, chosen.answer, chosen.look)


class Example(NamedTuple):
    """The data of the notebooks, and the user in their examples."""

    data: MovieLens
    user: int
    likes: sp.csr_matrix  # for training, as in lessons 2 to 4
    ratings: sp.csr_matrix  # for training, as in lesson 1


@cache
def example(dataset: str) -> Example:
    """Return the data of the notebooks, with their splits."""
    data = load_movielens(dataset)
    likes, _ = train_test_split(data.likes(), 0.8, random_state=0)
    ratings, _ = train_test_split(data.ratings, 0.9, random_state=0)
    return Example(data, data.example_user(), likes, ratings)


@cache
def _als(dataset: str) -> ALS:
    return ALS(dtype=torch.float64).fit(example(dataset).likes, show_progress=False)


@cache
def _reasons(task: str, dataset: str, movie: int) -> str:
    """Return the evidence for recommending a movie to the notebooks' user."""
    if task == "svd":
        return _rating_of(example(dataset), movie)
    return _shares(dataset, movie) if task == "als" else _likes_in_common(example(dataset), movie)


def _rating_of(found: Example, movie: int) -> str:
    stars = found.ratings[:, [movie]].data
    mean = found.ratings.data.mean()
    if not len(stars):
        return f"It has no training rating (the mean of all ratings is {mean:.2f})."
    its = f"The mean of its {len(stars)} training ratings is {stars.mean():.2f}"
    return f"{its}, the mean of all ratings {mean:.2f}."


def _shares(dataset: str, movie: int) -> str:
    """Return the likes that contribute most to the score of the reference's ALS."""
    found = example(dataset)
    row = found.likes[found.user]
    score, shares = _als(dataset).explain(found.user, row, movie, N=N_REASONS)
    titles = [f"{found.data.movies['title'][j]} {share:.3f}" for j, share in shares]
    largest = f"The largest shares with the reference's factors: {'; '.join(titles)}"
    return f"{largest}; the score is {score:.3f}."


def _likes_in_common(found: Example, movie: int) -> str:
    """Return the likes of the notebooks' user whose likers are most similar to a movie's."""
    n = found.likes.getnnz(axis=0)
    own = np.setdiff1d(found.likes[found.user].indices, [movie])
    together = np.asarray((found.likes.T @ found.likes[:, [movie]]).todense()).ravel()[own]
    cosine = together / np.sqrt(np.maximum(n[own] * n[movie], 1))
    nearest = np.argsort(-cosine, kind="stable")[:N_REASONS]
    titles = found.data.movies["title"]
    parts = [f"{titles[own[k]]} ({together[k]:.0f} of them)" for k in nearest]
    users = f"{n[movie]} users have a training like for it"
    return f"{users}; the most similar of this user's likes: {'; '.join(parts)}."
