"""What is written about submissions: a page each, one table, one file for programs.

Everything is written anew beside what was there, and takes its place when it is whole.
"""

import csv
import html
import io
import json
from pathlib import Path

from cases import RUBRIC
from package import plain
from report import POINTS, Report

# A page that holds what strangers wrote loads and runs nothing.
CSP = (
    "<meta http-equiv=Content-Security-Policy "
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
body { overflow-wrap: anywhere }
table { border-collapse: collapse } tr { border-bottom: 1px solid #ccc }
td, th { padding: .3em .8em .3em 0; text-align: left }
pre { background: #f3f3f3; padding: .5em; white-space: pre-wrap }
.first { border-left: 4px solid #b35900; padding-left: .8em }
"""


def page(report: Report) -> str:
    """For the student to read: what earned, what not and why, what came out otherwise here."""
    head = "".join(f"<th>{part}</th>" for part in (*POINTS, "together"))
    rows = "".join(
        f"<tr><th>{task}</th>"
        + "".join(f"<td>{parts[part]:.1f} of {POINTS[part]}</td>" for part in POINTS)
        + f"<td>{sum(parts.values()):.1f} of 100</td></tr>"
        for task, parts in report.marks.items()
    )
    late = f", after the {report.late} deadline" if report.late else ""
    when = f"Handed in {report.handed_in}{late}. " if report.handed_in else ""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report.notes)
    sections = "".join(_section(report, task) for task in report.marks)
    name = html.escape(report.name)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{name}</title><style>{STYLE}</style><h1>{name}: {report.total} of 100</h1>"
        f"<p>{html.escape(when)}Each task is a quarter of the whole. "
        "Of what is missing, the first reason is marked: mend it first.</p>"
        f"<table><tr><th></th>{head}</tr>{rows}</table>"
        f"{f'<h2>How it was read</h2><ul>{notes}</ul>' if notes else ''}{sections}"
    )


def _section(report: Report, task: str) -> str:
    """What is missing in a task, then which of its functions are right."""
    texts = [html.escape(reason) for reason in report.reasons.get(task, [])]
    functions = [f for key, f in report.functions.items() if key.startswith(f"{task}/")]
    section = f"<h2>{html.escape(task)}</h2>" if texts or functions else ""
    if texts:
        section += f"<p class=first>{texts[0]}</p>"
        others = "".join(f"<li>{text}</li>" for text in texts[1:])
        section += f"<ul>{others}</ul>" if others else ""
    if functions:
        shares = (
            f"<tr><td>{html.escape(f['key'].partition('/')[2])}</td><td>{f['share']:.0%}</td>"
            f"<td>{html.escape(f['where'])}</td></tr>"
            for f in functions
        )
        section += "<table><tr><th>function</th><th>outputs right</th><th>your line</th></tr>"
        section += "".join(shares) + "</table>"
    if changes := report.changes.get(task):
        pairs = "".join(
            f"<dt>{html.escape(c)}</dt><dd><pre>{html.escape(d)}</pre></dd>"
            for c, d in changes.items()
        )
        section += "<details><summary>cells with other outputs: handed in (-), here (+)"
        section += f"</summary><dl>{pairs}</dl></details>"
    return section


def write(report: Report, target: Path) -> None:
    """The page and the JSON of one submission."""
    (target / "submissions").mkdir(parents=True, exist_ok=True)
    whole(target / f"{report.name}.html", page(report))
    stored = report.bounded() | {"total": report.total}
    whole(target / "submissions" / f"{report.name}.json", json.dumps(stored, indent=1))


def write_class(reports: list[Report], target: Path) -> None:
    """One table of all, and one file, without the sources."""
    full = [r.bounded() | {"total": r.total, "answers": {}} for r in reports]
    whole(target / "report.json", json.dumps(full, indent=1))
    rows = [["name", *RUBRIC, "late", "total", "to be looked at"]]
    for r in reports:
        points = [round(sum(parts.values()), 1) for parts in r.marks.values()]
        rows.append([r.name, *points, r.late, r.total, "; ".join(map(plain, r.notes))[:300]])
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    whole(target / "class.csv", table.getvalue())


def whole(file: Path, text: str) -> None:
    """Whole or not at all, at every moment; a student's message may hold what no encoding has."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    new.replace(file)
