"""Pseudonyms, and the key file with the names that they stand for.

The key file is not in the folder of the marks, so that can be given away. Pseudonyms are random: if
they were computed from names, they could be found by trying names.
"""

import secrets
from collections.abc import Iterable
from pathlib import Path

from grading.reporting.csv_tables import read_table, write_table

COLUMNS = ("name", "pseudonym")


def pseudonyms(names: Iterable[str], key: Path, new: bool = True) -> dict[str, str]:
    """Return pseudonyms by name: those in the key file, and new ones, which are added to it.

    ValueError if the key file is malformed, or if a name is not in it and ``new`` is False. Two
    graders at once would draw different pseudonyms, so the graders of shards draw none.
    """
    known: dict[str, str] = {}
    if key.exists():
        table = read_table(key, COLUMNS)
        for row in table.rows:
            name, pseudonym = (row.cells[column] for column in COLUMNS)
            if not name or not pseudonym or name in known or pseudonym in known.values():
                raise ValueError(
                    f"{table.at(row)}: expected a name and a pseudonym that stand there once, "
                    f"got {name!r} and {pseudonym!r}"
                )
            known[name] = pseudonym
    wanted = dict.fromkeys(names)
    unknown = [name for name in wanted if name not in known]
    if unknown and not new:
        how = "grade a share after --merge has made it"
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
