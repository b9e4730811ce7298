"""The result of one submission: its score, the decision on it, and the report of both.

A score depends only on the submission, so it is kept until the submission or the grader changes.
A decision depends on deadlines, overrides and earlier marks, and is recomputed in every run.

Scores come from a process that has read untrusted files, so decoding checks the types and bounds
declared here.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from grading import schema
from grading.judging.verdict import Seed, Verdict
from grading.outcomes import Failure
from grading.plagiarism.normal_form import MOST_FORMS, NormalForm
from grading.rubric import OUTPUTS, POINTS, RUBRIC
from grading.schema import Bounds

REASON = 2_000  # characters of one text
TEXTS = 15_000  # characters of all texts of a kind in a task
VERDICT_TEXT = 500  # characters of one text of a verdict
SOURCE, SOURCES = 20_000, 100_000  # characters of one answer, of all
MOST_CHARACTERS = 600  # of a quoted statement
SIZE = 2**23  # bytes of a report as a file
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")  # differs between runs
TOTAL = "total"  # the part of an override of the whole
TALK, TALK_POINTS = "talk", 6  # the part of a talk's mark, not in the total; its maximum

Text = Annotated[str, Bounds(REASON)]
Texts = Annotated[list[Text], Bounds(100)]
Points = Annotated[float, Bounds(100)]
Source = Annotated[str, Bounds(SOURCE)]


class Missed(StrEnum):
    """The deadline that a submission has missed."""

    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True)
class Quote:
    """A student's statement and its place, such as "svd.py, line 26"."""

    place: Annotated[str, Bounds(200)]
    text: Annotated[str, Bounds(MOST_CHARACTERS)]


@dataclass
class Score:
    """The points of a submission by task, and the reasons."""

    # by task and part: points
    marks: Annotated[dict[str, dict[str, Points]], Bounds(10)] = field(default_factory=dict)
    # by task: messages for the student, the most important first
    reasons: Annotated[dict[str, Texts], Bounds(10)] = field(default_factory=dict)
    # by task and cell: how the stored output (-) differs from the one produced here (+)
    changes: Annotated[dict[str, Annotated[dict[str, Text], Bounds(100)]], Bounds(10)] = field(
        default_factory=dict
    )
    functions: Annotated[dict[str, Verdict], Bounds(100)] = field(default_factory=dict)  # by key
    answers: Annotated[dict[str, Source], Bounds(100)] = field(default_factory=dict)  # by key
    # by key: the functions that were written
    normal_forms: Annotated[
        dict[str, Annotated[list[NormalForm], Bounds(MOST_FORMS)]], Bounds(100)
    ] = field(default_factory=dict)
    # by key: the functions that equal the published solution
    published: Annotated[dict[str, Texts], Bounds(100)] = field(default_factory=dict)
    # by task: the declared tools and sources
    declarations: Annotated[dict[str, Text], Bounds(10)] = field(default_factory=dict)
    # by function and question: the line that a talk may ask about
    quotes: Annotated[dict[str, Annotated[dict[str, Quote], Bounds(100)]], Bounds(100)] = field(
        default_factory=dict
    )
    # by task: ids of the movies in the notebook's table of recommendations
    recommended: Annotated[dict[str, Annotated[list[int], Bounds(10)]], Bounds(10)] = field(
        default_factory=dict
    )
    notes: Texts = field(default_factory=list)  # about reading and grading, for the instructor
    # why an instructor must decide on the total before the mark counts
    review: Texts = field(default_factory=list)
    wall_time: bool = False  # whether a run was stopped by a wall-time limit
    complete: bool = False  # False if grading stopped early; the notes give the reason
    dataset: Text = ""
    versions: Text = ""
    secret: int = 0  # the seed of the hidden inputs
    seeds: Annotated[list[Seed], Bounds(10)] = field(default_factory=list)  # of this submission
    content: Text = ""  # a hash of the submission and of everything else the score depends on

    def bounded(self) -> "Score":
        """Return the score with all texts shortened to fit on a page."""
        changes = {
            task: dict(zip(cells, cut_all(cells.values(), more=False), strict=False))
            for task, cells in self.changes.items()
        }
        return replace(
            self,
            reasons={task: cut_all(texts) for task, texts in self.reasons.items()},
            notes=cut_all(self.notes),
            review=cut_all(self.review),
            changes=changes,
            functions={key: _cut_verdict(verdict) for key, verdict in self.functions.items()},
        )


@dataclass(frozen=True)
class Override:
    """An instructor's points, which replace the grader's, or only a comment."""

    task: str  # empty for the total and for a talk
    part: str
    points: Points | None = None  # None: only a comment
    comment: str = ""


@dataclass(frozen=True)
class Earlier:
    """The mark of an earlier submission."""

    total: Points
    handed_in: Text


@dataclass
class Decision:
    """The effect of deadlines, overrides and earlier marks on a score."""

    handed_in: Text = ""
    time_from: Text = ""  # the source of the time
    missed: Missed | None = None  # the missed deadline, if any
    limit: Text = ""  # the missed deadline; otherwise the soft one
    most: Points = 100.0  # the maximum of points
    earlier: Earlier | None = None
    overrides: Annotated[list[Override], Bounds(100)] = field(default_factory=list)


@dataclass
class Report:
    """Score and decision of one submission."""

    name: Annotated[str, Bounds(100)]
    score: Score = field(default_factory=Score)
    decision: Decision = field(default_factory=Decision)

    @property
    def counted(self) -> dict[str, dict[str, float]]:
        """The points by task and part, after overrides."""
        marks = {task: dict(parts) for task, parts in self.score.marks.items()}
        for override in self.decision.overrides:
            if override.task in marks and override.points is not None:
                marks[override.task][override.part] = override.points
        return marks

    @property
    def points(self) -> float:
        """Points of 100 before the deadline's cap; each task contributes a quarter."""
        return sum(sum(parts.values()) for parts in self.counted.values()) / len(RUBRIC)

    @property
    def own_total(self) -> float:
        """Points of this submission after the deadline's cap."""
        return round(min(self.points, self.decision.most), 1)

    @property
    def earlier_counts(self) -> bool:
        """Whether an earlier submission is the better of the two."""
        earlier = self.decision.earlier
        return earlier is not None and earlier.total > self.own_total

    @property
    def total(self) -> float:
        """The mark: an override, or the better of this and the earlier submission."""
        for override in self.decision.overrides:
            if override.part == TOTAL and override.points is not None:
                return round(override.points, 1)
        earlier = self.decision.earlier
        return self.own_total if earlier is None else max(self.own_total, earlier.total)

    @property
    def talk(self) -> float | None:
        """The points of the talk, which are not part of the total; None if there was none."""
        points = [one.points for one in self.decision.overrides if one.part == TALK]
        return points[0] if points else None

    @property
    def undecided(self) -> list[str]:
        """Why the mark does not count yet; empty if an override sets the total."""
        if any(one.part == TOTAL and one.points is not None for one in self.decision.overrides):
            return []
        unfinished = [] if self.score.complete else ["grading is not complete"]
        return [*self.score.review, *unfinished]

    def as_json(self) -> dict[str, Any]:
        return schema.encode(replace(self, score=self.score.bounded())) | {"total": self.total}


def cut(text: str, most: int = REASON) -> str:
    """Return a text of at most ``most`` characters, without addresses of objects."""
    text = ADDRESS.sub("0x…", text[: 2 * most])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def cut_all(texts: Iterable[str], more: bool = True) -> list[str]:
    """Return as many texts as fit on a page, each shortened.

    ``more``: whether to add a text with the number of omitted ones.
    """
    texts, kept, left = list(texts), [], TEXTS
    for n, text in enumerate(texts):
        kept.append(cut(text))
        left -= len(kept[-1])
        if (left < 0 or n == 98) and n + 1 < len(texts):
            return [*kept, f"… and {len(texts) - n - 1} more"] if more else kept
    return kept


def _cut_verdict(verdict: Verdict) -> Verdict:
    failure = verdict.failure
    return replace(
        verdict,
        wrong={name: cut(why, VERDICT_TEXT) for name, why in verdict.wrong.items()},
        failure=failure and Failure(failure.kind, cut(failure.message, VERDICT_TEXT)),
        remark=cut(verdict.remark, VERDICT_TEXT),
        where=cut(verdict.where, VERDICT_TEXT),
        model_message=cut(verdict.model_message, VERDICT_TEXT),
    )


def read_score(raw: object) -> Score:
    """Decode a score; raise ValueError if its form, tasks or points are invalid."""
    score = schema.decode(Score, raw, "score")
    if set(score.marks) - set(RUBRIC) or set(score.functions) - set(OUTPUTS):
        raise ValueError("score: expected tasks and functions of the rubric, got others")
    for parts in score.marks.values():
        if any(points > POINTS.get(part, 0) for part, points in parts.items()):
            raise ValueError(f"score: expected at most {POINTS} points, got {parts}"[:REASON])
    return score


def read_report(raw: dict[str, Any]) -> Report:
    """Decode a report; raise ValueError if it is invalid."""
    report = schema.decode(Report, {k: v for k, v in raw.items() if k != "total"}, "report")
    report.score = read_score(raw.get("score", {}))
    return report


def load(file: Path) -> Report | None:
    """Return the report in a file, or None if the file is missing or invalid."""
    try:
        if file.stat().st_size > SIZE:
            return None
        return read_report(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
