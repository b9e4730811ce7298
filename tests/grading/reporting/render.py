"""What is written about submissions: a page each, one table, one file for programs.

Everything is written anew beside what was there, and takes its place when it is whole.
"""

import html
import json
from pathlib import Path

from grading.intake.collect import plain
from grading.reporting.csv_tables import write_table, write_whole
from grading.result import Report
from grading.rubric import POINTS, RUBRIC

# A page that holds what strangers wrote loads and runs nothing.
CSP = (
    "<meta http-equiv=Content-Security-Policy "
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
FOR = {
    "correctness": "the functions in mflib/, output by output",
    "loop and exercises": "the textbook loop and the three exercises of the notebook",
    "recommendations": "how good they are with your functions, as far as these are right",
    "similar movies": "the same for similar movies",
    "reproducibility": "that the outputs in your notebook are what your code gives",
}
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
        for task, parts in report.counted.items()
    )
    said: set[str] = set()
    notes = _list(_once(report.notes, said))
    sections = "".join(_section(report, task, said) for task in report.marks)
    name = html.escape(report.name)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{CSP}"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{name}</title><style>{STYLE}</style><h1>{name}: {report.total:g} of 100</h1>"
        f"<p>{' '.join(map(html.escape, deadline_said(report)))}</p>"
        f"<table><tr><th></th>{head}</tr>{rows}</table>"
        "<p>Each task is a quarter of the whole. Of what is missing in a task, the first reason is "
        f"marked: mend it first.</p>{_decided(report)}{_public(report)}"
        f"{f'<h2>How it was read</h2>{notes}' if notes else ''}{sections}{_foot(report)}"
    )


def _once(texts: list[str], said: set[str]) -> list[str]:
    """Those that have not been said; they are, then."""
    new = [text for text in dict.fromkeys(texts) if text not in said]
    said.update(new)
    return new


def _list(texts: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def deadline_said(report: Report) -> list[str]:
    """When it was handed in, who says so, and what that costs."""
    said = []
    if report.handed_in:
        where = f" (according to {report.time_from})" if report.time_from else ""
        said.append(f"Handed in {report.handed_in}{where}.")
    if report.late:
        passed = f"{report.limit}, the {report.late} deadline" if report.limit else report.late
        counts = f"at most {report.most:g} points count" if report.most else "nothing counts"
        said.append(f"That is after {passed}: of {report.points:.1f} points {counts}.")
    elif report.limit:
        said.append(f"The soft deadline is {report.limit}.")
    if report.earlier:
        before, when = report.earlier["total"], report.earlier["handed_in"]
        better = "that one" if report.earlier_counts else "this one"
        said.append(f"The earlier submission ({when}) has {before:g}; {better} counts.")
    return said


def _decided(report: Report) -> str:
    """What the instructor has decided otherwise, and how it was before."""
    said = []
    for one in report.overrides:
        part = f"{one['task']}, {one['part']}" if one["task"] else "the whole"
        was = report.marks[one["task"]][one["part"]] if one["task"] else None
        instead = f" instead of {was:.1f}" if was is not None else ""
        points = f"{one['points']:g} points{instead}" if one["points"] is not None else ""
        said.append(f"{part}: {', '.join(filter(None, (points, one['comment'])))}")
    return f"<h2>Decided by your instructor</h2>{_list(said)}" if said else ""


def _public(report: Report) -> str:
    """Answers that are the published ones are called that."""
    found: dict[str, list[str]] = {}
    for key, names in sorted(report.prints.get("published", {}).items()):
        found.setdefault(key.partition("/")[0], []).extend(names)
    texts = [f"{task}: {', '.join(names)}" for task, names in found.items() if names]
    what = "These are the published answers, but for names and layout. It costs nothing here; say "
    what += "where you have them from."
    return f"<h2>Published answers</h2><p>{what}</p>{_list(texts)}" if texts else ""


def _foot(report: Report) -> str:
    parts = "".join(
        f"<tr><td>{most}</td><td>{part}</td><td>{FOR[part]}</td></tr>"
        for part, most in POINTS.items()
    )
    head = "<tr><th>points of a task</th><th></th><th>for</th></tr>"
    facts = ", ".join(filter(None, (report.dataset, report.versions)))
    made = f"<p>Graded on {html.escape(facts)}.</p>" if facts else ""
    return f"<h2>What the points are for</h2><table>{head}{parts}</table>{made}"


def _section(report: Report, task: str, said: set[str]) -> str:
    """What is missing in a task, then which of its functions are right."""
    texts = [html.escape(reason) for reason in _once(report.reasons.get(task, []), said)]
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
    write_whole(target / f"{report.name}.html", page(report))
    stored = report.bounded() | {"total": report.total}
    write_whole(target / "submissions" / f"{report.name}.json", json.dumps(stored, indent=1))


def write_class(reports: list[Report], target: Path) -> None:
    """One table of all, and one file, without the sources."""
    less = {"answers": {}, "prints": {}}
    full = [r.bounded() | {"total": r.total} | less for r in reports]
    write_whole(target / "report.json", json.dumps(full, indent=1))
    rows: list[list[object]] = [["name", *RUBRIC, "late", "total", "to be looked at"]]
    for r in reports:
        points = [round(sum(parts.values()), 1) for parts in r.counted.values()]
        rows.append([r.name, *points, r.late, r.total, "; ".join(map(plain, r.notes))[:300]])
    write_table(target / "class.csv", rows)
