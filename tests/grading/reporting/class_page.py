"""The class on one page: how marks are spread, what was hardest, the way to each student's page."""

import html
import statistics
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from grading.checks.compare import NOT_ATTEMPTED
from grading.execution.inputs import OUTPUTS
from grading.reporting.csv_tables import write_whole
from grading.reporting.render import CSP, STYLE
from grading.result import Report
from grading.rubric import POINTS, RUBRIC

BINS = 10  # of ten points each; 100 is in the last
LOOK = """
body { max-width: 70em } td.n, th.n { text-align: right } .bar { background: #2f6da8; height: .7em }
.track { background: #e8e8e8; width: 10em } svg { max-width: 40em; width: 100%; height: auto }
svg text { font: 13px sans-serif; text-anchor: middle } svg rect { fill: #2f6da8 }
svg line { stroke: #888 } .late { color: #a04000 }
"""


def class_page(reports: Sequence[Report], pairs: bool = False) -> str:
    """``pairs``: whether there is a page of similar answers to point to."""
    totals = [report.total for report in reports]
    looked_at = sum(bool(report.notes) for report in reports)
    late = sum(bool(report.late) for report in reports)
    facts = [f"{len(reports)} submissions"]
    if totals:
        low, high = min(totals), max(totals)
        facts.append(f"mean {statistics.fmean(totals):.1f}, median {statistics.median(totals):.1f}")
        facts.append(f"from {low:g} to {high:g} points of 100")
    facts += [f"{late} after a deadline"] if late else []
    facts += [f"{looked_at} with notes on how they were read"] if looked_at else []
    similar = "<p><a href=similarity.html>Similar answers</a></p>" if pairs else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{CSP}"
        "<meta name=viewport content='width=device-width'><title>The class</title>"
        f"<style>{STYLE}{LOOK}</style><h1>The class</h1><p>{', '.join(facts)}.</p>{similar}"
        f"{histogram(totals)}<h2>Submissions</h2>{_submissions(reports)}"
        f"<h2>What was hardest</h2>{_hardest(reports)}"
        f"<h2>Mean points of each part</h2>{_means(reports)}"
    )


def write_class_page(reports: Sequence[Report], target: Path) -> None:
    similar = (target / "similarity.html").exists()
    write_whole(target / "index.html", class_page(reports, similar))


def counts(totals: Sequence[float]) -> list[int]:
    """How many marks there are in each tenth of 100 points."""
    found = [0] * BINS
    for total in totals:
        found[min(BINS - 1, int(total * BINS / 100))] += 1
    return found


def histogram(totals: Sequence[float]) -> str:
    """A drawing of the counts, with its numbers in words for those who do not see it."""
    found, width, height = counts(totals), 52, 150
    top, parts = max([1, *found]), []
    for n, count in enumerate(found):
        x, size = 8 + n * width, round(height * count / top)
        y = 20 + height - size
        parts.append(f"<rect x={x + 3} y={y} width={width - 6} height={size} />")
        parts.append(f"<text x={x + width // 2} y={y - 5}>{count or ''}</text>")
    for n in range(BINS + 1):
        parts.append(f"<text x={8 + n * width} y={height + 38}>{n * 100 // BINS}</text>")
    said = ", ".join(
        f"{count} of {n * 100 // BINS} to {(n + 1) * 100 // BINS} points"
        for n, count in enumerate(found)
        if count
    )
    end = 30 + BINS * width
    return (
        f"<svg viewBox='0 0 {end} {height + 46}' role=img aria-label='Marks: {said}'>"
        f"{''.join(parts)}<line x1=8 x2={end - 22} y1={height + 20} y2={height + 20} /></svg>"
    )


def _submissions(reports: Sequence[Report]) -> str:
    head = "".join(f"<th class=n>{title}</th>" for title in (*RUBRIC, "total"))
    rows = []
    for report in reports:
        points = [sum(parts.values()) for parts in report.counted.values()]
        cells = "".join(f"<td class=n>{value:.1f}</td>" for value in points)
        said = f"{report.handed_in}{f', after the {report.late} deadline' if report.late else ''}"
        said += "; the earlier one counts" if report.earlier_counts else ""
        look = " class=late" if report.late else ""
        many = len(report.notes)
        notes = f"{many} note{'s' * (many > 1)}" if many else ""
        rows.append(
            f"<tr><td><a href='{quote(report.name)}.html'>{html.escape(report.name)}</a></td>"
            f"{cells}<td class=n><b>{report.total:.1f}</b></td>"
            f"<td{look}>{html.escape(said)}</td><td>{notes}</td></tr>"
        )
    return f"<table><tr><th>name</th>{head}<th>handed in</th><th></th></tr>{''.join(rows)}</table>"


def hardest(reports: Sequence[Report]) -> list[tuple[str, float, int, int]]:
    """By function, the hardest first: the mean share of right outputs; how many have all of them,
    how many did not attempt it."""
    found = []
    for key in OUTPUTS:
        mine = [report.functions[key] for report in reports if key in report.functions]
        if mine:
            mean = statistics.fmean(verdict["share"] for verdict in mine)
            right = sum(verdict["share"] == 1 for verdict in mine)
            missing = sum(verdict["error"] == NOT_ATTEMPTED for verdict in mine)
            found.append((key, mean, right, missing))
    return sorted(found, key=lambda entry: entry[1])


def _hardest(reports: Sequence[Report]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(key.replace('/', ': ', 1))}</td>"
        f"<td><div class=track><div class=bar style='width:{mean:.0%}'></div></div></td>"
        f"<td class=n>{mean:.0%}</td><td class=n>{right}</td><td class=n>{missing}</td></tr>"
        for key, mean, right, missing in hardest(reports)
    )
    head = "<th></th><th class=n>outputs right</th><th class=n>all right</th>"
    head += "<th class=n>not attempted</th>"
    return f"<table><tr><th>function</th>{head}</tr>{rows}</table>"


def _means(reports: Sequence[Report]) -> str:
    head = "".join(f"<th class=n>{part} ({most})</th>" for part, most in POINTS.items())
    rows = ""
    for task in RUBRIC:
        marks = [report.counted[task] for report in reports if task in report.counted]
        means = [statistics.fmean(m[part] for m in marks) if marks else 0 for part in POINTS]
        cells = "".join(f"<td class=n>{mean:.1f}</td>" for mean in means)
        rows += f"<tr><th>{task}</th>{cells}</tr>"
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"
