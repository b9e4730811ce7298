"""The declaration in a notebook: what a student has used, and for what.

The student edition adds this markdown cell to each notebook. What students write there is shown on
their page and changes no points.
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
MOST = 1_500  # characters that are kept


def declaration_in(notebook: bytes) -> str:
    """Return what a student has written into the declaration of a notebook; "" if nothing.

    The cell is recognised by its id, by the id that Colab keeps, or by its heading. Lines that were
    handed out are left out.
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
