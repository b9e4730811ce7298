"""Where results go: build/bench.md for people, results.json for the README and the other scripts.

build/bench.md has one section per benchmark, replaced when it runs again. results.json holds the
numbers of the last run, the settings found by the search among them. ``python
tests/benchmarks/report.py`` writes the README's table of comparison from it.
"""

import json
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).resolve().parents[2]
BENCH, README = ROOT / "build" / "bench.md", ROOT / "README.md"
RESULTS = Path(__file__).with_name("results.json")
TRIALS, SECONDS = 16, 100  # the budget of each search
TIMES = ("to the target", "whole fit")


def section(title: str, text: str) -> None:
    """Print ``text`` and put it under the heading ``title``."""
    print(f"\n## {title}\n\n{text}\n")
    parts = BENCH.read_text(encoding="utf-8").split("## ")[1:] if BENCH.exists() else []
    kept = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}
    kept[title] = text.strip()
    whole = "".join(f"## {heading}\n\n{body}\n\n" for heading, body in kept.items())
    BENCH.parent.mkdir(exist_ok=True)
    BENCH.write_text(whole, encoding="utf-8")


def stored() -> dict:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def store(part: str, values: dict) -> None:
    """Add ``values`` to a part of results.json, floats with six digits."""

    def short(value):
        if isinstance(value, dict):
            return {key: short(each) for key, each in value.items()}
        if isinstance(value, list):
            return [short(each) for each in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    results = stored()
    results[part] = results.get(part, {}) | short(values)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def ratio(ours: dict, theirs: dict) -> tuple[float, float, float]:
    """Return the peer's seconds to the target divided by ours: median, minimum, maximum."""
    pairs = zip(theirs[TIMES[0]], ours[TIMES[0]], strict=True)
    ratios = sorted(a / b for a, b in pairs)
    return median(ratios), ratios[0], ratios[-1]


# A row of the README's table: method, ours, the peers, what differs besides the code.
ROWS = [
    (
        "SVD, RMSE",
        "SVD",
        {"Surprise SVD": "Surprise"},
        "Surprise: one thread, a step for each rating, no decay, clips to 1–5 stars; ours: batches",
    ),
    (
        "ALS, NDCG@10",
        "ALS",
        {"implicit ALS": "implicit"},
        "implicit: one penalty for all rows; ours grows with a row's likes, and we extrapolate",
    ),
    (
        "BPR, one uniform negative",
        "BPR, one draw",
        {"Cornac BPR": "Cornac"},
        "both: uniform negatives, item biases; Cornac: a step for each pair, constant rate",
    ),
    (
        "BPR, other negatives",
        "BPR",
        {"implicit BPR": "implicit", "LightFM BPR": "LightFM"},
        "ours: the best-scored of several uniform draws; theirs: drawn by popularity",
    ),
    (
        "WARP, NDCG@10",
        "WARP",
        {"LightFM WARP": "LightFM"},
        "LightFM: item biases, adagrad, a step for each like; ours: no biases, blocks, decay",
    ),
]
PAIRS = [(ours, *peers) for _, ours, peers, _ in ROWS if len(peers) == 1]  # same sampler: timed
REFERENCE = {
    "ALS + WARP": "ALS + WARP (128 factors)",
    "EASE + ALS": "EASE + ALS",
    "EASE": "EASE (not searched)",
    "truncated SVD, scaled": "truncated SVD of the scaled likes",
    "popularity": "popularity",
    "Bayesian MF": "Bayesian factorization",
    "SVD, mean of five seeds": "SVD averaged over five seeds",
}


def comparison(results: dict) -> str:
    """Return the README's lines between the two marks."""

    def value(name: str) -> str:
        figures = results["quality"][name]
        return f"{mean(figures['rmse' if 'rmse' in figures else 'ndcg']):.3f}"

    def cells(title: str, name: str, peers: dict[str, str], differs: str) -> list[str]:
        default = f"{name.partition(',')[0]}, defaults"
        ours = value(name) + ("" if "," in name else f" (defaults {value(default)})")
        known = {peer: library for peer, library in peers.items() if peer in results["quality"]}
        theirs = ", ".join(f"{library} {value(peer)}" for peer, library in known.items())
        timed = results.get("speed", {}).get(" / ".join([name, *peers]))
        times = f"{ratio(*timed.values())[0]:.1f}" if timed else ""
        return [title, ours, theirs, times, differs]

    heading = ["", "ours", "peers", "time, peer / ours", "what differs besides the code"]
    run = [row for row in ROWS if {row[1]} < {row[1], *row[2]} & {*results["quality"]}]
    rows = [heading, ["---"] * len(heading), *(cells(*row) for row in run)]
    if not results.get("speed"):
        rows = [[*row[:3], *row[4:]] for row in rows]
    known = {name: title for name, title in REFERENCE.items() if name in results["quality"]}
    reference: dict[str, list[str]] = {metric: [] for metric in ("ndcg", "rmse")}
    for name, title in known.items():
        metric = "rmse" if "rmse" in results["quality"][name] else "ndcg"
        reference[metric].append(f"{title} {value(name)}")
    notes = [f"Each search ended after {TRIALS} trials or about {SECONDS} s of CPU time."]
    if machine := results.get("machine"):
        on = f"{machine['threads']} threads of an {machine['processor']}"
        notes.append(f"Times are to a quality that both reach, on {on}.")
    for metric, title in {"ndcg": "NDCG@10", "rmse": "RMSE"}.items():
        if reference[metric]:
            notes.append(f"For reference, {title}: {', '.join(reference[metric])}.")
    if published := {n: mean(run["ndcg"]) for n, run in results.get("published", {}).items()}:
        ours = ", ".join(f"{n} {published[f'{n}, defaults']:.3f}" for n in ("WARP", "ALS", "BPR"))
        best = max(
            (name for name in published if name.endswith(", cited")), key=published.__getitem__
        )
        notes.append(
            "In RecBole's protocol (ratings of 3 and above, 8:1:1), NDCG@10 of our defaults: "
            f"{ours}. The best of RecBole-GNN's figures, tuned there and not rerun here, is "
            f"{published[best]:.3f} ({best.removesuffix(', cited')})."
        )
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", " ".join(notes)])


MARKS = ("<!-- comparison: begin -->\n", "\n<!-- comparison: end -->")


def of_readme() -> tuple[str, str, str]:
    """Return the README before, between and after the two marks."""
    before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    between, _, after = rest.partition(MARKS[1])
    return before, between, after


if __name__ == "__main__":
    before, _, after = of_readme()
    whole = before + MARKS[0] + comparison(stored()) + MARKS[1] + after
    README.write_text(whole, encoding="utf-8")
