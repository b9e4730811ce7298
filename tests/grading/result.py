"""What is known of a submission when it has been graded: one form, with bounds, read and written.

It comes out of a process that has read what strangers wrote, so its form is checked before it is
believed.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jsonschema

from grading.execution.inputs import OUTPUTS
from grading.rubric import RUBRIC

REASON = 2_000  # characters of one text
TEXTS = 15_000  # characters of all of a kind in a task
SOURCE, SOURCES = 20_000, 100_000  # characters of one answer, of all
SIZE = 2**23  # bytes of a report as it is written, with its indents
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")  # differs from run to run


def _texts(most: int = REASON) -> dict:
    return {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": most}}


def _by_name(values: dict, most: int = 100) -> dict:
    names = {"maxLength": 200}
    return {
        "type": "object",
        "maxProperties": most,
        "propertyNames": names,
        "additionalProperties": values,
    }


TEXT = {"type": "string", "maxLength": REASON}
VERDICT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["key", "wrong", "error", "remark", "where", "share"],
    "properties": {
        **dict.fromkeys(("key", "error", "remark", "where"), TEXT),
        "wrong": _by_name(TEXT),
        "share": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
FORM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "marks", "reasons"],
    "properties": {
        "name": {"type": "string", "maxLength": 100},
        "marks": _by_name(_by_name({"type": "number", "minimum": 0, "maximum": 40})),
        "reasons": _by_name(_texts()),
        "changes": _by_name(_by_name(TEXT)),
        "functions": _by_name(VERDICT),
        "answers": _by_name({"type": "string", "maxLength": SOURCE}),
        "prints": _by_name(_by_name({"type": "array", "maxItems": 500})),
        "notes": _texts(),
        "secret": {"type": "integer"},
        "most": {"type": "number", "minimum": 0, "maximum": 100},
        "earlier": {"type": "object"},
        "overrides": {"type": "array", "items": {"type": "object"}},
        **dict.fromkeys(("late", "handed_in", "time_from", "limit"), TEXT),
        **dict.fromkeys(("dataset", "versions", "content"), TEXT),
    },
}
VALID = jsonschema.Draft202012Validator(FORM)


@dataclass
class Report:
    """Points and reasons of one submission, by task and part."""

    name: str
    marks: dict[str, dict[str, float]] = field(default_factory=dict)
    # by task: what to say of each function, then of the rest; what is missing comes first
    reasons: dict[str, list[str]] = field(default_factory=dict)
    # by task and cell: stored (-), re-executed (+)
    changes: dict[str, dict[str, str]] = field(default_factory=dict)
    functions: dict[str, dict] = field(default_factory=dict)  # by key: the verdict
    answers: dict[str, str] = field(default_factory=dict)  # by key: the source
    prints: dict[str, object] = field(default_factory=dict)  # by key: what is known of the source
    notes: list[str] = field(default_factory=list)
    handed_in: str = ""
    time_from: str = ""  # who says when
    late: str = ""  # or the deadline that was missed, "soft" or "hard"
    limit: str = ""  # when that was, or the soft one will be
    most: float = 100.0  # points that it can have
    earlier: dict = field(default_factory=dict)  # total and handed_in of an earlier submission
    overrides: list[dict] = field(default_factory=list)  # task, part, points, comment
    dataset: str = ""
    versions: str = ""
    secret: int = 0  # the seed of the hidden inputs
    content: str = ""  # what was graded, as a hash

    @property
    def decided(self) -> tuple:
        """What does not come from what was handed in."""
        when = (self.handed_in, self.time_from, self.late, self.limit, self.most)
        return (*when, self.earlier, self.overrides)

    @property
    def counted(self) -> dict[str, dict[str, float]]:
        """The marks with what was decided otherwise."""
        found = {task: dict(parts) for task, parts in self.marks.items()}
        for one in self.overrides:
            if one["task"] in found and one["points"] is not None:
                found[one["task"]][one["part"]] = one["points"]
        return found

    @property
    def points(self) -> float:
        """Of 100, whenever it was handed in; a task is a quarter."""
        return sum(sum(parts.values()) for parts in self.counted.values()) / len(RUBRIC)

    @property
    def earlier_counts(self) -> bool:
        """Whether an earlier submission is the better of the two."""
        return self.earlier.get("total", 0.0) > round(min(self.points, self.most), 1)

    @property
    def total(self) -> float:
        """What counts: at most what the deadline leaves, the better of two, or what was decided."""
        for one in self.overrides:
            if not one["task"] and one["points"] is not None:
                return round(one["points"], 1)
        own = round(min(self.points, self.most), 1)
        return self.earlier["total"] if self.earlier_counts else own

    def bounded(self) -> dict:
        """As JSON, every text cut to what a page can bear."""
        found = asdict(self)
        found["reasons"] = {task: cut_all(texts) for task, texts in self.reasons.items()}
        found["notes"] = cut_all(self.notes)
        for task, cells in self.changes.items():
            texts = cut_all(cells.values(), more=False)
            found["changes"][task] = dict(zip(cells, texts, strict=False))
        found["functions"] = {key: _cut_fields(f) for key, f in self.functions.items()}
        return found


def cut(text: str, most: int = REASON) -> str:
    text = ADDRESS.sub("0x…", text[: 2 * most])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def cut_all(texts: Iterable[str], more: bool = True) -> list[str]:
    """As many as fit into a page, each cut."""
    texts, found, left = list(texts), [], TEXTS
    for n, text in enumerate(texts):
        found.append(cut(text))
        left -= len(found[-1])
        if (left < 0 or n == 98) and n + 1 < len(texts):
            return [*found, f"… and {len(texts) - n - 1} more"] if more else found
    return found


def _cut_fields(verdict: dict) -> dict:
    found = {name: cut(v, 500) if isinstance(v, str) else v for name, v in verdict.items()}
    return found | {"wrong": {name: cut(why, 500) for name, why in verdict["wrong"].items()}}


def read_report(raw: dict) -> Report:
    """A report from JSON; ValueError if it is none."""
    if error := next(VALID.iter_errors(raw), None):
        raise ValueError(f"expected a report, got another form: {error.message[:200]}")
    if set(raw["marks"]) - set(RUBRIC) or set(raw["functions"]) - set(OUTPUTS):
        raise ValueError("expected a report on the tasks of the rubric, got others")
    return Report(**raw)


def load(file: Path) -> Report | None:
    """A report as it was written, or None if there is none that can be read."""
    try:
        if file.stat().st_size > SIZE:
            return None
        stored = json.loads(file.read_text(encoding="utf-8"))
        del stored["total"]
        return read_report(stored)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
