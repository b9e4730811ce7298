"""Who wrote alike: the closest pairs of a class, from fingerprints alone, side by side on a page.

Here nothing is parsed: numbers are compared, texts are shown.
"""

import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from urllib.parse import quote

from grading.reporting.csv_tables import write_whole
from grading.reporting.render import CSP, STYLE
from grading.result import Report

COMMON = 3  # who share a passage, and not more than a tenth of the class: else it is the usual way
LEAST = 4  # fingerprints that a pair shares
SHOWN = 20  # pairs
AROUND = 2  # lines beside the shared ones
Prints = Mapping[str, Iterable[list[int]]]  # by answer: hash, first and last line


@dataclass
class Pair:
    """Two submissions, and the lines of each answer that they share."""

    one: str
    other: str
    shared: int
    share: float  # of the smaller's fingerprints
    lines: dict[str, tuple[set[int], set[int]]] = field(default_factory=dict)


def closest(prints: Mapping[str, Prints], most: int = SHOWN) -> list[Pair]:
    """The pairs that share the largest part of their fingerprints, the closest first."""
    holders: dict[tuple[str, int], dict[str, list[int]]] = defaultdict(dict)
    for name, answers in prints.items():
        for answer, found in answers.items():
            for value, first, last in found:
                holders[answer, value][name] = [first, last]
    usual = max(COMMON, len(prints) // 10)
    rare = {key: who for key, who in holders.items() if len(who) <= usual}
    sizes = Counter(name for who in rare.values() for name in who)
    both: Counter[tuple[str, str]] = Counter()
    for who in rare.values():
        both.update(combinations(sorted(who), 2))
    pairs = [
        Pair(one, other, shared, shared / min(sizes[one], sizes[other]))
        for (one, other), shared in both.items()
        if shared >= LEAST
    ]
    pairs.sort(key=lambda pair: (-pair.share, -pair.shared, pair.one, pair.other))
    for pair in pairs[:most]:
        for (answer, _), who in rare.items():
            if pair.one in who and pair.other in who:
                sides = pair.lines.setdefault(answer, (set(), set()))
                for side, name in zip(sides, (pair.one, pair.other), strict=True):
                    side.update(range(who[name][0], who[name][1] + 1))
    return pairs[:most]


def write_similar(reports: Sequence[Report], target: Path) -> None:
    pairs = closest({report.name: report.prints.get("fingerprints", {}) for report in reports})
    sources = {report.name: report.answers for report in reports}
    write_whole(target / "similarity.html", pairs_page(pairs, sources))


def pairs_page(pairs: list[Pair], answers: Mapping[str, Mapping[str, str]]) -> str:
    """``answers``: the sources by submission and answer."""
    rows = "".join(
        f"<tr><td><a href='#{n}'>{html.escape(p.one)} and {html.escape(p.other)}</a></td>"
        f"<td>{p.share:.0%}</td><td>{p.shared}</td></tr>"
        for n, p in enumerate(pairs)
    )
    table = f"<table><tr><th>pair</th><th>of the smaller</th><th>passages</th></tr>{rows}</table>"
    sections = "".join(_section(n, pair, answers) for n, pair in enumerate(pairs))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{CSP}"
        "<meta name=viewport content='width=device-width'><title>Similar answers</title>"
        f"<style>{STYLE}{WIDE}</style><h1>Similar answers</h1>"
        "<p><a href=index.html>The class</a></p><p>A hint, and no more: there are few ways to "
        "write a short function, and who learned together writes alike. Read both, and ask, before "
        "you conclude anything. Names, numbers, comments and layout do not count here; what the "
        "hand-out and the published answers contain, or many of the class, is left out.</p>"
        f"{table if pairs else '<p>No two submissions share more than chance would have.</p>'}"
        f"{sections}"
    )


WIDE = """
body { max-width: 100em } .sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1em }
.sides pre { margin: 0; font-size: 13px } mark { background: #ffe2a8; display: block }
"""


def _section(n: int, pair: Pair, answers: Mapping[str, Mapping[str, str]]) -> str:
    names = (pair.one, pair.other)
    heads = " and ".join(f"<a href='{quote(w)}.html'>{html.escape(w)}</a>" for w in names)
    parts = [f"<h2 id='{n}'>{heads}</h2>"]
    for answer, sides in sorted(pair.lines.items()):
        parts.append(f"<h3>{html.escape(answer)}</h3><div class=sides>")
        for name, lines in zip(names, sides, strict=True):
            source = answers.get(name, {}).get(answer, "")
            parts.append(f"<pre>{_marked(source, lines)}</pre>")
        parts.append("</div>")
    return "".join(parts)


def _marked(source: str, shared: set[int]) -> str:
    """The shared lines of a source, marked, with those around them; of the rest that it is there.

    A marked line is a block, and needs no line end.
    """
    near = {n + d for n in shared for d in range(-AROUND, AROUND + 1)}
    shown, gap = [], False
    for number, line in enumerate(source.split("\n"), 1):
        if number not in near:
            gap = True
            continue
        text = html.escape(line)
        shown += ["⋮\n"] if gap else []
        shown.append(f"<mark>{text or ' '}</mark>" if number in shared else f"{text}\n")
        gap = False
    return "".join(shown) + ("⋮" if gap else "")
