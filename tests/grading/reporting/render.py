"""Write the results: pages of the submissions and of the class, tables, and JSON.

Pages are Jinja2 templates with autoescape, because they show students' text. Every file is written
under a temporary name and then replaces the earlier one.
"""

import io
import json
import statistics
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from grading.csv_tables import temporary_name, write_table, write_whole
from grading.intake.names import plain
from grading.judging.verdict import Verdict
from grading.plagiarism.identical import as_files, groups
from grading.reporting.complaint import complaints
from grading.result import TALK, TALK_POINTS, Report, cut
from grading.rubric import OUTPUTS, POINTS, RUBRIC
from grading.talk.sheet import TalkSheet, sheet_of

TEMPLATES = Path(__file__).with_name("templates")
PURPOSES = {
    "correctness": "the functions in mflib/, output by output",
    "loop and exercises": "the textbook loop and the three exercises of the notebook",
    "recommendations": "their quality with your functions, in proportion to the correct factors",
    "similar movies": "the same for similar movies",
    "reproducibility": "whether your code reproduces the outputs in your notebook",
}
TALKS = "talks"  # a folder next to the pages, for the instructor only
INSTRUCTOR = "instructor"  # also for the instructor only: it shows hidden inputs
NOTES = 100  # characters of the notes in class.csv; the page has all of them
BINS = 10  # of the histogram; 100 points belong to the last one


@cache
def environment() -> Environment:
    """Return the environment of the templates."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    templates.filters["percent"] = lambda value: f"{value:.0%}"
    return templates


def render(template: str, **values: object) -> str:
    return environment().get_template(template).render(points=POINTS, **values)


@dataclass(frozen=True)
class Section:
    """The part of a page about one task."""

    task: str
    reasons: list[str]
    functions: list[Verdict]
    changes: Mapping[str, str]


def report_page(report: Report) -> str:
    """Return the student's page: points, and reasons for missing points."""
    score, notes = report.score, list(dict.fromkeys(report.score.notes))
    reasons = {
        task: [text for text in dict.fromkeys(score.reasons.get(task, [])) if text not in notes]
        for task in score.marks
    }
    sections = [
        Section(
            task,
            reasons[task],
            [verdict for key, verdict in score.functions.items() if key.startswith(f"{task}/")],
            score.changes.get(task, {}),
        )
        for task in score.marks
    ]
    return render(
        "submission.html.j2",
        report=report,
        deadline=deadline_sentences(report),
        overrides=override_sentences(report),
        published=published_functions(report),
        notes=notes,
        sections=sections,
        purposes=PURPOSES,
    )


def instructor_page(report: Report) -> str:
    """Return the instructor's page: code, hidden inputs and seeds of incorrect functions."""
    return render("instructor.html.j2", report=report, complaints=complaints(report.score))


def deadline_sentences(report: Report) -> list[str]:
    """Return sentences on the submission time, its source, and the effect on the points."""
    decision, sentences = report.decision, []
    if decision.handed_in:
        source = f" (according to {decision.time_from})" if decision.time_from else ""
        sentences.append(f"Submitted {decision.handed_in}{source}.")
    if decision.missed:
        missed = f"{decision.missed} deadline"
        passed = f"{decision.limit}, the {missed}" if decision.limit else f"the {missed}"
        if not decision.most:
            counts = "nothing counts"
        elif report.points > decision.most:
            counts = f"{decision.most:g} of {report.points:.1f} points count"
        else:
            counts = f"at most {decision.most:g} points count"
        sentences.append(f"That is after {passed}: {counts}.")
    elif decision.limit:
        sentences.append(f"The soft deadline is {decision.limit}.")
    if decision.earlier:
        better = "that one" if report.earlier_counts else "this one"
        total, time = decision.earlier.total, decision.earlier.handed_in
        sentences.append(f"The earlier submission ({time}) has {total:g}; {better} counts.")
    return sentences


def override_sentences(report: Report) -> list[str]:
    """Return sentences on the instructor's overrides and the grader's points."""
    sentences = []
    for one in report.decision.overrides:
        part, points = "the whole", ""
        if one.points is not None:
            points = f"{one.points:g} points"
        if one.part == TALK:
            part, points = "the talk about your submission", f"{points} of {TALK_POINTS}"
        if one.task:
            part = f"{one.task}, {one.part}"
            graded = report.score.marks[one.task][one.part]
            points += f" instead of {graded:.1f}" if points else ""
        sentences.append(f"{part}: {', '.join(filter(None, (points, one.comment)))}")
    return sentences


def published_functions(report: Report) -> list[str]:
    """Return the functions that equal the published solution, by task."""
    functions: dict[str, list[str]] = {}
    for key, names in sorted(report.score.published.items()):
        functions.setdefault(key.partition("/")[0], []).extend(names)
    return [f"{task}: {', '.join(names)}" for task, names in functions.items() if names]


def write_report(report: Report, target: Path) -> None:
    """Write the page, the instructor's page and the JSON file of one submission."""
    for folder in ("submissions", INSTRUCTOR):
        (target / folder).mkdir(parents=True, exist_ok=True)
    write_whole(target / f"{report.name}.html", report_page(report))
    write_whole(target / INSTRUCTOR / f"{report.name}.html", instructor_page(report))
    text = json.dumps(report.as_json(), indent=1)
    write_whole(target / "submissions" / f"{report.name}.json", text)


def write_class_tables(reports: Sequence[Report], target: Path) -> None:
    """Write class.csv, and report.json with everything but the sources."""
    public = [
        replace(r, score=replace(r.score, answers={}, normal_forms={}, published={}, quotes={}))
        for r in reports
    ]
    write_whole(target / "report.json", json.dumps([r.as_json() for r in public], indent=1))
    head = ["name", "total", *RUBRIC, "talk", "late", "handed in", "source of the time"]
    rows: list[list[object]] = [[*head, "notes"]]
    for r in reports:
        points = [round(sum(parts.values()), 1) for parts in r.counted.values()]
        notes = cut("; ".join(map(plain, r.score.notes)), NOTES)
        decision = r.decision
        source = decision.time_from.partition(",")[0]
        talk = "" if r.talk is None else r.talk
        time = [decision.missed or "", decision.handed_in, source]
        rows.append([r.name, r.total, *points, talk, *time, notes])
    write_table(target / "class.csv", rows)


def write_class_page(reports: Sequence[Report], target: Path) -> None:
    similar = (target / "similarity.html").exists()
    write_whole(target / "index.html", class_page(reports, similar))


@dataclass(frozen=True)
class Bin:
    """A bar of the histogram."""

    low: int  # points
    count: int


def class_page(reports: Sequence[Report], similar: bool = False) -> str:
    """Return the page of the class; ``similar``: whether to link the page of similar answers."""
    totals = [report.total for report in reports]
    counts = histogram(totals)
    return render(
        "class.html.j2",
        reports=reports,
        facts=class_facts(reports),
        similar=similar,
        tasks=list(RUBRIC),
        bins=[Bin(n * 100 // BINS, count) for n, count in enumerate(counts)],
        tallest=max([1, *counts]),
        histogram=", ".join(
            f"{count} of {n * 100 // BINS} to {(n + 1) * 100 // BINS} points"
            for n, count in enumerate(counts)
            if count
        ),
        hardest=hardest(reports),
        means=mean_points(reports),
    )


def class_facts(reports: Sequence[Report]) -> list[str]:
    """Return the numbers at the top of the page."""
    totals = [report.total for report in reports]
    facts = [f"{len(reports)} submissions"]
    if totals:
        low, high = min(totals), max(totals)
        facts.append(f"mean {statistics.fmean(totals):.1f}, median {statistics.median(totals):.1f}")
        facts.append(f"from {low:g} to {high:g} points of 100")
    if late := sum(bool(report.decision.missed) for report in reports):
        facts.append(f"{late} after a deadline")
    if noted := sum(bool(report.score.notes) for report in reports):
        facts.append(f"{noted} with notes on reading the files")
    return facts


def histogram(totals: Sequence[float]) -> list[int]:
    """Return the number of marks in each bin of 10 points."""
    counts = [0] * BINS
    for total in totals:
        counts[min(BINS - 1, int(total * BINS / 100))] += 1
    return counts


@dataclass(frozen=True)
class Difficulty:
    """The results of the class on one function."""

    key: str
    mean: float  # fraction of correct outputs
    n_right: int
    n_not_attempted: int


def hardest(reports: Sequence[Report]) -> list[Difficulty]:
    """Return the difficulty of each function, the hardest first."""
    rows = []
    for key in OUTPUTS:
        verdicts = [r.score.functions[key] for r in reports if key in r.score.functions]
        if verdicts:
            mean = statistics.fmean(verdict.fraction for verdict in verdicts)
            right = sum(verdict.is_right for verdict in verdicts)
            missing = sum(not verdict.is_attempted for verdict in verdicts)
            rows.append(Difficulty(key, mean, right, missing))
    return sorted(rows, key=lambda row: row.mean)


def mean_points(reports: Sequence[Report]) -> dict[str, list[float]]:
    """Return the mean points of the class, for the parts of each task."""
    means = {}
    for task in RUBRIC:
        marks = [report.counted[task] for report in reports if task in report.counted]
        means[task] = [statistics.fmean(m[part] for m in marks) if marks else 0 for part in POINTS]
    return means


@dataclass(frozen=True)
class SharedFunction:
    """A function that several submissions share, in the first two submissions' versions."""

    name: str
    is_published: bool
    texts: list[str]


def similarity_page(reports: Sequence[Report]) -> str:
    """Return the page of identical functions."""
    scores = {report.name: report.score for report in reports}
    found = groups({name: score.normal_forms for name, score in scores.items()})
    shown = []
    for group in found:
        functions = []
        for name, places in zip(group.names, group.functions, strict=True):
            one = places[0]
            is_published = one.form.name in scores[one.submission].published.get(one.answer, [])
            texts = [
                "\n".join(
                    scores[place.submission]
                    .answers.get(place.answer, "")
                    .split("\n")[place.form.first - 1 : place.form.last]
                )
                for place in places[:2]
            ]
            functions.append(SharedFunction(name, is_published, texts))
        shown.append((group.submissions, functions))
    return render("similarity.html.j2", groups=shown)


def write_talk_sheets(reports: Sequence[Report], target: Path) -> None:
    """Write a sheet for the talk with each student, and one file with all sheets to print."""
    folder = target / TALKS
    folder.mkdir(exist_ok=True)
    sheets = [sheet_of(report) for report in reports]
    for sheet in sheets:
        write_whole(folder / f"{sheet.name}.html", talk_page([sheet]))
    write_whole(folder / "index.html", talk_page(sheets))


def talk_page(sheets: Sequence[TalkSheet]) -> str:
    return render("talk.html.j2", sheets=sheets, most=TALK_POINTS)


def write_similarity(reports: Sequence[Report], target: Path) -> None:
    """Write the page of identical functions, and answers.zip for tools that find more."""
    write_whole(target / "similarity.html", similarity_page(reports))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in as_files({r.name: r.score.answers for r in reports}).items():
            entry = zipfile.ZipInfo(name)  # has a fixed date, so equal answers give equal bytes
            archive.writestr(entry, text.encode("utf-8", "backslashreplace"))
    new = temporary_name(target / "answers.zip")
    new.write_bytes(packed.getvalue())
    new.replace(target / "answers.zip")
