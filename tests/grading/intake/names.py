"""Names of files and submissions: recognise expected files, and make names safe to show."""

import os
import re
import unicodedata
from collections.abc import Iterable

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
UNSUPPORTED_ARCHIVES = (".rar", ".7z")
# Files of operating systems, editors and tools.
LITTER = re.compile(
    r"__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|\.ipynb_checkpoints|__pycache__|\._.*|\.git"
    r"|\.venv.*|venv|site-packages|node_modules|\.idea|\.vscode|\.pytest_cache|\.ruff_cache"
    r"|.*\.egg-info|\.Trash.*|~\$.*",
    re.IGNORECASE,
)
SUBMITTED = ("submitted", "Submitted files", "Working files")  # top folders of nbgrader and Teams
WORK = {"mflib", "notebooks"}  # folders of a submission
LONGEST = 160  # bytes of a name; the grader appends suffixes
METHOD = r"(svd|als|bpr|warp)(?:[^a-z]|$)"
# The number of a notebook decides, since students' names may contain a method.
NUMBERED, ANYWHERE = (
    re.compile(rf"(?:^|[^0-9])\d\d?_{METHOD}"),
    re.compile(rf"(?:^|[^a-z]){METHOD}"),
)
OWN_TEST = re.compile(r"(?:test|check)s?[^a-z]")  # as a prefix; Testa is a surname


def safe_name(text: str, most: int = 80) -> str:
    """Return a name that is safe in a file system, a CSV table, a terminal and a page."""
    text = os.fsencode(text).decode("utf-8", "replace")
    text = unicodedata.normalize("NFC", text)
    kept = "".join(c if _is_of_name(c) or c in " ._-()'@" else "_" for c in text)
    kept = kept[:most].encode()[:LONGEST].decode("utf-8", "ignore")
    return kept.strip(" .-'@") or "unnamed"


def safe_path(name: str) -> str:
    """Return a path whose parts are safe names."""
    return "/".join(map(safe_name, name.split("/")))


def squeezed(name: str) -> str:
    """Return a name without the characters that platforms and systems change.

    The result may be empty. An empty name identifies nobody, so callers must not compare it.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return "".join(filter(_is_of_name, folded))


def _is_of_name(character: str) -> bool:
    """Return whether a character is a letter, a digit or a mark (many scripts need marks)."""
    return character.isalnum() or unicodedata.category(character).startswith("M")


def plain(text: str) -> str:
    """Return text for a terminal: control characters and lone surrogates are replaced."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def expected_file(name: str) -> str | None:
    """Return the expected file that a name stands for, "svd.py" or "svd.ipynb", or None.

    Capitals, copies ("01_svd (1).ipynb"), a student's name, and suffixes that browsers add
    (".ipynb.txt") are ignored. "01_svd.py" is the notebook as a script.
    """
    base = re.sub(r"\.(txt|json)$", "", name.rpartition("/")[2].lower())
    stem, _, suffix = base.rpartition(".")
    match = NUMBERED.search(stem) or ANYWHERE.search(stem)
    if not match or suffix not in ("py", "ipynb") or OWN_TEST.match(stem):
        return None
    script = suffix == "py" and re.match(r"\d\d?_", stem)
    return f"{match[1]}.ipynb" if script else f"{match[1]}.{suffix}"


def parts_of(name: str) -> list[str]:
    """Return the parts of a path in an archive, with any separator."""
    return [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]


def without_suffix(name: str) -> str:
    """Return the name of an archive without its suffix."""
    for suffix in ARCHIVES + UNSUPPORTED_ARCHIVES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def owner_of(name: str, level: int) -> str:
    """Return the path of the student's folder or file to which a file belongs.

    ``level``: the number of folders above the students'.
    """
    parts = parts_of(name)
    if parts[level : level + 1] and parts[level] in SUBMITTED:
        level += 1
    return "/".join(parts[: level + 1])


def common_folders(names: Iterable[str]) -> int:
    """Return how many nested folders contain all of some files.

    A single archive counts as a folder. Files next to the only folder do not count.
    """
    paths = [name.split("/") for name in names]
    level = 0
    while paths:
        inner = [path for path in paths if is_container("/".join(path[level:]))]
        loose = [path for path in paths if not is_container("/".join(path[level:]))]
        tops = {path[level] for path in inner}
        if len(tops) != 1 or any(expected_file(path[-1]) for path in loose):
            return level
        if {top.lower() for top in tops} & WORK:
            return level
        paths, level = inner, level + 1
    return level


def is_container(name: str) -> bool:
    """Return whether a path leads into a folder or names an archive."""
    return "/" in name or name.lower().endswith(ARCHIVES + UNSUPPORTED_ARCHIVES)
