"""Compare the stored outputs of a notebook with new outputs."""

import base64
from collections import defaultdict
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest

import nbformat
import numpy as np
from fresh_kernel import tags
from matplotlib.image import imread

OTHER_FIGURE = "the figure looks different"
MISSING_FIGURE = "the figure is missing"
OTHER_ORDER = "the outputs are in another order"
TOLERANCE = 5 / 255  # another machine may round a pixel differently


@dataclass(frozen=True)
class Change:
    """The differences between stored and new outputs of a cell; false if there are none."""

    # (kind, stored, new); None stands for a missing output
    texts: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    figures: list[tuple[str | None, str | None]] = field(default_factory=list)  # PNGs in base64
    reordered: bool = False

    def __bool__(self) -> bool:
        return bool(self.texts or self.figures or self.reordered)

    @property
    def brief(self) -> str:
        """A summary: the first two different lines, and whether a figure differs."""
        return self._brief_text + self._brief_figure

    @property
    def _brief_text(self) -> str:
        if not self.texts:
            return OTHER_ORDER if self.reordered else ""
        # the plain text of a table is easier to read than its HTML
        kind, stored, new = min(self.texts, key=lambda text: text[0] == "text/html")
        lines = zip_longest((stored or "").splitlines(), (new or "").splitlines())
        changed = [pair for pair in lines if pair[0] != pair[1]][:2]
        shown = [
            f"{sign} {line}"
            for pair in changed
            for sign, line in zip("-+", pair, strict=True)
            if line
        ]
        what = "is new" if stored is None else "is missing" if new is None else "differs"
        return "\n".join(shown) or f"{kind} {what}"

    @property
    def _brief_figure(self) -> str:
        if not self.figures:
            return ""
        missing = any(new is None for _, new in self.figures)
        return MISSING_FIGURE if missing else OTHER_FIGURE


def texts(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Return the outputs of a cell except figures: (kind, text) of streams, errors and results."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if found and found[-1][0] == output.name:  # a stream may be split anywhere
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


def figures(cell: nbformat.NotebookNode) -> list[str]:
    """Return the figures of a cell: PNGs in base64."""
    return [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]


def pixels(png: str) -> np.ndarray:
    """Return the pixels of a PNG in base64: height x width x RGBA, from 0 to 1."""
    image = np.atleast_3d(imread(BytesIO(base64.b64decode(png))))
    if image.shape[2] < 3:  # gray
        image = image[..., [0, 0, 0]]
    opaque = np.ones_like(image[..., :1])
    return image if image.shape[2] == 4 else np.concatenate([image, opaque], axis=2)


def alike(one: str | None, other: str | None) -> bool:
    """Return whether two PNGs (base64) look the same."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    a, b = pixels(one), pixels(other)
    return a.shape == b.shape and float(np.sqrt(((a - b) ** 2).mean())) < TOLERANCE


def by_kind(found: list[tuple[str, str]]) -> dict[str, list[str]]:
    grouped = defaultdict(list)
    for kind, text in found:
        grouped[kind].append(text)
    return grouped


def compare(stored: nbformat.NotebookNode, new: nbformat.NotebookNode) -> Change:
    """Compare the outputs of two cells; texts are paired by their kind."""
    before, after = texts(stored), texts(new)
    old, now = by_kind(before), by_kind(after)
    pairs = [
        (kind, a, b)
        for kind in dict.fromkeys([*old, *now])
        for a, b in zip_longest(old.get(kind, []), now.get(kind, []))
        if a != b
    ]
    drawn = zip_longest(figures(stored), figures(new))
    return Change(
        texts=pairs,
        figures=[pair for pair in drawn if not alike(*pair)],
        reordered=before != after and not pairs,
    )


def changes(stored: nbformat.NotebookNode, new: nbformat.NotebookNode) -> dict[str, Change]:
    """Return the changes of each executed cell, by its id."""
    return {
        cell.id: compare(old, cell)
        for old, cell in zip(stored.cells, new.cells, strict=True)
        if cell.cell_type == "code" and "skip-execution" not in tags(cell)
    }


def differences(stored: nbformat.NotebookNode, new: nbformat.NotebookNode) -> dict[str, str]:
    """Return a summary of the differences of each executed cell, by its id."""
    return {cell: change.brief for cell, change in changes(stored, new).items()}
