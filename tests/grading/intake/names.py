"""Names of files and submissions: which file is meant, and what is safe to show."""

import os
import re
import unicodedata

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
UNSUPPORTED_ARCHIVES = (".rar", ".7z")
# What operating systems, editors and tools leave behind.
LITTER = re.compile(
    r"__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|\.ipynb_checkpoints|__pycache__|\._.*|\.git"
    r"|\.venv.*|venv|site-packages|node_modules|\.idea|\.vscode|\.pytest_cache|\.ruff_cache"
    r"|.*\.egg-info|\.Trash.*|~\$.*",
    re.IGNORECASE,
)
LONGEST = 160  # bytes of a name, to which the grader adds some
METHOD = r"(?:^|[^a-z])(svd|als|bpr|warp)(?:[^a-z]|$)"


def safe_name(text: str, most: int = 80) -> str:
    """Return a name that is safe in a file system, a CSV table, a terminal and a page."""
    text = os.fsencode(text).decode("utf-8", "replace")
    text = unicodedata.normalize("NFC", text)
    kept = "".join(c if c.isalnum() or c in " ._-()'@" else "_" for c in text)
    kept = kept[:most].encode()[:LONGEST].decode("utf-8", "ignore")
    return kept.strip(" .-'@") or "unnamed"


def plain(text: str) -> str:
    """Return text for a terminal: control characters and lone surrogates are replaced."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def expected_file(name: str) -> str | None:
    """Return which of the eight files a name means, as "svd.py" or "svd.ipynb"; None for others.

    Capitals, copies ("01_svd (1).ipynb"), a student's name, and suffixes that browsers add
    (".ipynb.txt") do not matter. "01_svd.py" is the notebook as a script.
    """
    base = re.sub(r"\.(txt|json)$", "", name.rpartition("/")[2].lower())
    stem, _, suffix = base.rpartition(".")
    match = re.search(METHOD, stem)
    if not match or suffix not in ("py", "ipynb") or re.match(r"test|check", stem):
        return None
    script = suffix == "py" and re.match(r"\d\d?_", stem)
    return f"{match[1]}.ipynb" if script else f"{match[1]}.{suffix}"


def parts_of(name: str) -> list[str]:
    """Return the parts of a path in an archive, whatever separates them."""
    return [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]


def top_of(name: str) -> str:
    """Return the first part of a path."""
    return next(iter(parts_of(name)), "")


def without_suffix(name: str) -> str:
    """Return the name of an archive without its suffix."""
    for suffix in ARCHIVES + UNSUPPORTED_ARCHIVES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_container(name: str) -> bool:
    """Return whether a path leads into a folder, or is an archive."""
    return "/" in name or name.lower().endswith(ARCHIVES + UNSUPPORTED_ARCHIVES)
