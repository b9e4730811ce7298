"""Create pseudonyms, and store the names behind them in a key file.

The key file is outside the folder of the marks, so that folder can be passed on. Pseudonyms are
random: if they were computed from names, anyone could reverse them by trying names.
"""

import secrets
from collections.abc import Iterable
from pathlib import Path

from grading.csv_tables import read_table, write_table

COLUMNS = ("name", "pseudonym")


def pseudonyms(names: Iterable[str], key: Path, new: bool = True) -> dict[str, str]:
    """Return pseudonyms by name: those in the key file, and new ones, which are added to it.

    Raise ValueError if the key file is malformed, or if a name is missing and ``new`` is False.
    The graders of shards draw no pseudonyms, because theirs would differ.
    """
    known: dict[str, str] = {}
    if key.exists():
        table = read_table(key, COLUMNS)
        for row in table.rows:
            name, pseudonym = (row.cells[column] for column in COLUMNS)
            if not name or not pseudonym or name in known or pseudonym in known.values():
                raise ValueError(
                    f"{table.at(row)}: expected a unique name and a unique pseudonym, "
                    f"got {name!r} and {pseudonym!r}"
                )
            known[name] = pseudonym
    wanted = dict.fromkeys(names)
    unknown = [name for name in wanted if name not in known]
    if unknown and not new:
        how = "run --merge first, then grade the shards"
        raise ValueError(
            f"{key.name}: expected all names of the class, {unknown[0]!r} is missing; {how}"
        )
    for name in unknown:
        known[name] = _new(set(known.values()))
    key.parent.mkdir(parents=True, exist_ok=True)
    write_table(key, [COLUMNS, *sorted(known.items())])
    return known


def _new(taken: set[str]) -> str:
    while (drawn := f"student-{secrets.token_hex(3)}") in taken:
        pass
    return drawn
