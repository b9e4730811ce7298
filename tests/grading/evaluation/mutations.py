"""Generate inputs for fuzz.py: valid ones with small mutations, each from a seed."""

import copy
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from grading.intake.collect import FILE_SIZE
from grading.rubric import CALLED

WORDS = (
    b"\xff\xfe",
    b"\x00",
    b"\xed\xa0\x80",
    b"1e999",
    b"-0",
    b"NaN",
    b"[[[[",
    b"{'",
    b'"',
    b"\\",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    1e308,
    "",
    "\ud800",
    "x" * 3000,
    [],
    {},
    [[]],
    {"": {}},
    ["a", 5],
)
KINDS = ("image/png", "text/plain", "text/html", "application/json", "x/y", "")


def mutated(content: bytes, others: Sequence[bytes], number: int) -> bytes:
    """Return bytes that are cut, repeated, overwritten, or spliced with others."""
    rng = random.Random(number)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        b = min(b, a + rng.choice((1, 8, 200, 10**6)))
        piece = content[a:b]
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        instead = rng.choice(
            (
                b"",
                piece * rng.choice((2, 3, 50)),
                rng.choice(WORDS) * rng.choice((1, 1, 1000)),
                rng.randbytes(len(piece)),
                other[start : start + rng.choice((10, 1000, 10**5))],
            )
        )
        content = content[:a] + instead[: 10**6] + content[b:]
    return content[: 3 * 2**20]


def mutated_tree(tree: Any, number: int) -> Any:
    """Return JSON with some values replaced, repeated, removed or nested."""
    rng, tree = random.Random(number), copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        here = tree
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = rng.choice(keys)
            inside = here[key]
            if isinstance(inside, (dict, list)) and inside and rng.random() < 0.8:
                here = inside
                continue
            _spoil(here, key, rng)
            break
    return tree


def _spoil(here: Any, key: Any, rng: random.Random) -> None:
    what = rng.randrange(6)
    if what == 0:
        del here[key]
    elif what == 1:
        here[key] = copy.deepcopy(rng.choice(VALUES))
    elif what == 2 and isinstance(here, list):
        fit = FILE_SIZE // 2 // size(here[key])  # just below the limit of readable files
        here += [here[key]] * min(fit, rng.choice((1, 10, 3000, 10**5)))
    elif what == 3 and isinstance(here[key], str):
        here[key] = mutated(
            here[key].encode("utf-8", "replace"), WORDS, rng.randrange(10**9)
        ).decode("utf-8", "surrogateescape")
    elif what == 4 and isinstance(here, dict):
        here[rng.choice(KINDS)] = here.pop(key)
    else:
        here[key] = nest(here[key], rng.choice((1, 3, 500)))


def nest(value: object, depth: int) -> object:
    for n in range(depth):
        value = [value] if n % 2 else {"data": value}
    return value


def archive(files: dict[str, bytes], kind: str) -> bytes:
    """Return a zip, tar or tar.gz; names may be invalid."""
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                name = name.encode("utf-8", "replace").decode().partition("\0")[0] or "x"
                packed.writestr(name, content)
        return target.getvalue()
    with tarfile.open(fileobj=target, mode="w:gz" if kind == "tar.gz" else "w") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def stored(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


NUMBERS = st.integers(0, 2**32)
# Names in archives and folders.
PARTS = st.one_of(
    st.sampled_from(
        ("mflib", "notebooks", "svd.py", "01_svd.ipynb", "..", "", "submitted", "a.zip")
    ),
    st.sampled_from(("Jo_12_assignsubmission_file_", "jo_LATE_1_2_03_bpr.ipynb", "bpr.py.tar.gz")),
    st.text(max_size=12),
    st.text(max_size=3).map(lambda text: text * 100),
    st.sampled_from(("=1+1", "@x", "\x1b[2J", "\u202egpj", "con", "-rf", "~$x", ".git", "\udcfc")),
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
DTYPES = st.one_of(
    arrays_of.scalar_dtypes(),
    arrays_of.unicode_string_dtypes(max_len=5),
    arrays_of.byte_string_dtypes(max_len=5),
    arrays_of.nested_dtypes(max_itemsize=50),
)


@st.composite
def results(draw: st.DrawFn, right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the right arrays of a function, some with other dtypes, shapes and values."""
    found = dict(right)
    for place in draw(st.lists(st.sampled_from(sorted(right)), max_size=4)):
        shape = draw(st.one_of(st.just(right[place].shape), arrays_of.array_shapes(min_dims=0)))
        what = draw(st.sampled_from(("array", "typed", "shifted", "gone")))
        if what == "array":
            dtype = draw(DTYPES)
            if not dtype.hasobject:
                found[place] = draw(arrays_of.arrays(dtype, shape))
        elif what == "gone":
            found.pop(place, None)
        elif place in found and found[place].dtype.kind in "biuf":
            with np.errstate(all="ignore"):
                changed = found[place] * draw(st.floats(width=32)) if what == "shifted" else None
                dtype = draw(st.sampled_from("?bBhHiIqQefdFDgSUO"))
                typed = dtype if dtype != "O" else "M8[s]"
                found[place] = _as(found[place], typed) if changed is None else changed
    return found


def _as(array: np.ndarray, dtype: str) -> np.ndarray:
    try:
        return array.astype(dtype)
    except (TypeError, ValueError):
        return array.astype("U")


def keys() -> st.SearchStrategy[str]:
    return st.sampled_from(CALLED)


def as_json(tree: object) -> bytes:
    """Return JSON up to the grader's size limit; mutations may multiply a tree."""
    if size(tree) > 4 * FILE_SIZE:
        return b"[" * FILE_SIZE
    try:
        return json.dumps(tree).encode()[:FILE_SIZE]
    except RecursionError:  # the writer supports less nesting than the reader
        return b"[" * 3000


def size(*trees: Any) -> int:
    """Return the approximate size of the JSON of trees; shared parts are visited once."""
    known: dict[int, int] = {}
    todo: list[Any] = [trees]
    while todo:
        part = todo[-1]
        inside = [*part, *part.values()] if isinstance(part, dict) else part
        new = [p for p in inside if isinstance(p, dict | list) and id(p) not in known]
        if new:
            todo += new
        else:
            known[id(part)] = sum(2 + (known.get(id(p)) or len(str(p))) for p in inside)
            todo.pop()
    return known[id(trees)]
