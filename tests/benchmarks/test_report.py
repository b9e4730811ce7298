"""The README's comparison is that of the stored results; no data and no peers are needed."""

import re

from report import ROWS, SECONDS, TRIALS, comparison, of_readme, stored


def test_readme_states_the_stored_comparison():
    _, between, _ = of_readme()
    assert between == comparison(stored()), "run: python tests/benchmarks/report.py"


def test_readme_has_no_other_numbers_of_the_comparison():
    """Its prose has no decimals; the table of the notebooks is tied to their outputs elsewhere."""
    before, _, after = of_readme()
    results = before.partition("## Results")[2] + after.partition("\n## ")[0]
    prose = [line for line in results.splitlines() if not line.startswith("|")]
    assert prose
    assert not re.findall(r"\d\.\d+", " ".join(prose))


def test_all_searches_use_the_same_budget():
    results = stored()
    for name, search in results["search"].items():
        assert search["trials"] == TRIALS or search["seconds"] >= SECONDS, name
        assert search["trials"] <= TRIALS
    compared = {name for _, ours, peers, _ in ROWS for name in (ours, *peers)}
    assert compared & set(results["quality"]) <= set(results["search"])
    assert all(len(runs) == 3 for row in results["quality"].values() for runs in row.values())


def made_up_results() -> dict:
    """Return results in which each model has its own quality; the first pair is timed."""
    names = [name for _, ours, peers, _ in ROWS for name in (ours, *peers)]
    quality = {name: {"ndcg": [0.1 + place / 100] * 3} for place, name in enumerate(names)}
    quality |= {f"{name}, defaults": {"ndcg": [0.5, 0.6, 0.7]} for name in names}
    quality |= {"SVD": {"rmse": [0.8, 0.9, 0.82]}, "SVD, defaults": {"rmse": [0.7] * 3}}
    times = {
        "SVD": {"to the target": [1.0, 2.0, 4.0], "whole fit": [9.0] * 3},
        "Surprise SVD": {"to the target": [3.0, 4.0, 20.0], "whole fit": [99.0] * 3},
    }
    return {
        "quality": quality | {"EASE": {"ndcg": [0.25] * 3}},
        "speed": {"SVD / Surprise SVD": times},
        "machine": {"processor": "Z80", "threads": 2},
        "published": {
            "WARP, defaults": {"ndcg": [0.3, 0.5]},
            "ALS, defaults": {"ndcg": [0.2]},
            "BPR, defaults": {"ndcg": [0.1]},
            "EASE": {"ndcg": [0.9]},
            "Good, cited": {"ndcg": [0.25]},
            "Bad, cited": {"ndcg": [0.15]},
        },
    }


def test_comparison_has_means_over_splits_and_the_median_of_ratios():
    lines = comparison(made_up_results()).splitlines()
    assert lines[2].startswith("| SVD, RMSE | 0.840 (defaults 0.700) | Surprise 0.110 | 3.0 | ")
    assert lines[3].startswith("| ALS, NDCG@10 | 0.120 (defaults 0.600) | implicit 0.130 |  | ")
    assert lines[4].startswith("| BPR, one uniform negative | 0.140 | Cornac 0.150 |")
    assert lines[5].startswith(
        "| BPR, other negatives | 0.160 (defaults 0.600) | implicit 0.170, LightFM 0.180 |"
    )
    notes = f"Each search ended after {TRIALS} trials or about {SECONDS} s of CPU time. "
    notes += "Times are to a quality that both reach, on 2 threads of an Z80. "
    notes += "For reference, NDCG@10: EASE (not searched) 0.250. "
    notes += "In RecBole's protocol (ratings of 3 and above, 8:1:1), NDCG@10 of our defaults: "
    notes += "WARP 0.400, ALS 0.200, BPR 0.100. The best of RecBole-GNN's figures, tuned there and "
    notes += "not rerun here, is 0.250 (Good)."
    assert lines[-2:] == ["", notes]
