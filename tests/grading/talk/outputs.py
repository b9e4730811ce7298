"""Read the recommended movies from the outputs of a student's notebook."""

import html
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from mflib.data import load_movielens

CELL = re.compile(r"<td>(.{1,200}?)</td>")
MOST_CHARACTERS = 50_000  # of a table
MOST_MOVIES = 10
SHOWS = "recommendations"  # the id of the cell in the notebooks


@cache
def _ids_of_titles(dataset: str) -> dict[str, int]:
    return {title: n for n, title in enumerate(load_movielens(dataset).movies["title"])}


def recommended(stored: Mapping[str, Mapping[str, Any]], dataset: str) -> list[int]:
    """Return the ids of the movies in the table of recommendations of a notebook, in order.

    Parameters
    ----------
    stored : mapping
        Cells as stored, by their ids.
    dataset : str
        The data set with the titles.
    """
    cell = stored.get(SHOWS, {})
    if not cell.get("execution_count"):  # an output of the student edition
        return []
    titles, ids = _ids_of_titles(dataset), []
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        data = output.get("data") if isinstance(output, dict) else None
        table = data.get("text/html", "") if isinstance(data, dict) else ""
        text = "".join(map(str, table)) if isinstance(table, list) else str(table)
        for entry in CELL.findall(text[:MOST_CHARACTERS]):
            if (movie := titles.get(html.unescape(entry))) is not None:
                ids.append(movie)
    return list(dict.fromkeys(ids))[:MOST_MOVIES]
