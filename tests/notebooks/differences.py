"""What differs between the stored outputs of a notebook and new ones."""

import base64
from io import BytesIO
from itertools import zip_longest

import nbformat
import numpy as np
from fresh_kernel import tags
from matplotlib.image import imread

OTHER_FIGURE = "the figure looks different"


def texts(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """What a cell has put out, pictures aside: (kind, text) of streams, errors and results."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if found and found[-1][0] == output.name:  # where a stream is cut is up to chance
                output = {"name": output.name, "text": found.pop()[1] + output.text}
            found.append((output["name"], output["text"]))
        elif output.output_type == "error":
            found.append(("error", f"{output.ename}: {output.evalue}"))
        else:
            found += [
                (kind, text)
                for kind, text in sorted(output.data.items())
                if kind.startswith("text/")
            ]
    return found


def alike(one: str, other: str) -> bool:
    """Whether two PNGs (base64) look the same: another machine may round a pixel differently."""
    if one == other:
        return True
    a, b = (
        imread(BytesIO(base64.b64decode(png))) for png in (one, other)
    )  # height x width x channels, 0 … 1
    return a.shape == b.shape and float(np.sqrt(((a - b) ** 2).mean())) < 5 / 255


def differences(stored: nbformat.NotebookNode, new: nbformat.NotebookNode) -> dict[str, str]:
    """By the id of each executed cell, what differs in its texts and figures, or ""."""
    found = {}
    for old, cell in zip(stored.cells, new.cells, strict=True):
        if cell.cell_type == "code" and "skip-execution" not in tags(cell):
            was, came = texts(old), texts(cell)
            pairs = [(a, b) for a, b in zip_longest(was, came, fillvalue=("nothing", "")) if a != b]
            pairs.sort(
                key=lambda pair: pair[0][0] == "text/html"
            )  # of a table, its plain text is easier to read
            lines = [
                pair
                for a, b in pairs[:1]
                for pair in zip_longest(a[1].splitlines(), b[1].splitlines())
            ]
            changed = [pair for pair in lines if pair[0] != pair[1]][:2]
            shown = [
                f"{sign} {line}"
                for pair in changed
                for sign, line in zip("-+", pair, strict=True)
                if line
            ]
            found[cell.id] = "\n".join(shown) or (
                f"{pairs[0][0][0]} became {pairs[0][1][0]}" if pairs else ""
            )
            figures = [
                [o.data["image/png"] for o in c.outputs if "image/png" in o.get("data", {})]
                for c in (old, cell)
            ]
            if len(figures[0]) != len(figures[1]) or not all(map(alike, *figures)):
                found[cell.id] += OTHER_FIGURE
    return found
