"""The declaration of tools and sources in a notebook.

The student edition adds this markdown cell to each notebook. The student's page shows the text,
which does not change any points.
"""

import json

ID = "declaration"
HEADING = "## Declaration"
TEXT = f"""{HEADING}

What did you use for this notebook and its functions in `mflib/`, and for what? Name coding
assistants, people, web pages and published code. Your instructor reads this; it does not change
your points. Write below this line.

*Nothing is declared yet.*"""
HANDED_OUT = frozenset(line.strip() for line in TEXT.splitlines())
MOST = 1_500  # characters; the rest is cut off


def declaration_in(notebook: bytes) -> str:
    """Return the student's text in the declaration of a notebook, or "".

    The cell is recognised by its id, by the id that Colab keeps, or by its heading. Lines of the
    student edition are left out.
    """
    try:
        cells = json.loads(notebook.decode(json.detect_encoding(notebook)))["cells"]
        written = [_text(cell) for cell in cells if _is_declaration(cell)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""  # another message says that the notebook cannot be read
    lines = [line for text in written for line in text.splitlines()]
    own = "\n".join(line for line in lines if line.strip() not in HANDED_OUT).strip()
    return own if len(own) <= MOST else f"{own[:MOST]}…"


def _is_declaration(cell: object) -> bool:
    if not isinstance(cell, dict) or cell.get("cell_type") != "markdown":
        return False
    ids = (cell.get("id"), cell.get("metadata", {}).get("id"))
    return ID in ids or _text(cell).lstrip().startswith(HEADING)


def _text(cell: dict) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source))
