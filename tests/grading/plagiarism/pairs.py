"""Find the most similar pairs of a class from fingerprints; nothing is parsed here."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

# A passage that more students share than this, and than a tenth of the class, is the usual way.
COMMON = 3
MIN_SHARED = 4  # fingerprints of a pair
MAX_PAIRS = 20
Fingerprints = Mapping[str, Iterable[list[int]]]  # by answer: hash, first and last line


@dataclass
class Pair:
    """Two submissions, and the lines of each answer that they share."""

    one: str
    other: str
    shared: int  # fingerprints
    similarity: float  # the fraction of the smaller submission's fingerprints
    lines: dict[str, tuple[set[int], set[int]]] = field(default_factory=dict)


def closest(fingerprints: Mapping[str, Fingerprints], most: int = MAX_PAIRS) -> list[Pair]:
    """Return the pairs with the largest similarity, the most similar first."""
    holders: dict[tuple[str, int], dict[str, tuple[int, int]]] = defaultdict(dict)
    for name, answers in fingerprints.items():
        for answer, prints in answers.items():
            for value, first, last in prints:
                holders[answer, value][name] = (first, last)
    usual = max(COMMON, len(fingerprints) // 10)
    rare = {key: who for key, who in holders.items() if len(who) <= usual}
    sizes = Counter(name for who in rare.values() for name in who)
    common: Counter[tuple[str, str]] = Counter()
    for who in rare.values():
        common.update(combinations(sorted(who), 2))
    pairs = [
        Pair(one, other, shared, shared / min(sizes[one], sizes[other]))
        for (one, other), shared in common.items()
        if shared >= MIN_SHARED
    ]
    pairs.sort(key=lambda pair: (-pair.similarity, -pair.shared, pair.one, pair.other))
    for pair in pairs[:most]:
        for (answer, _), who in rare.items():
            if pair.one in who and pair.other in who:
                sides = pair.lines.setdefault(answer, (set(), set()))
                for side, name in zip(sides, (pair.one, pair.other), strict=True):
                    side.update(range(who[name][0], who[name][1] + 1))
    return pairs[:most]
