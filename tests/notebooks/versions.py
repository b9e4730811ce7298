"""Verify the notebooks with other versions than the pinned ones, a row of a table for each set.

    python tests/notebooks/versions.py ml-100k --only oldest "Python 3.12"

Each row has a separate environment .venv-NAME, which is kept: 2 GB, or more if torch includes CUDA.
The unit tests also run in the one with the oldest versions that pyproject.toml allows.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from execute import STORED, show
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.append(str(Path(__file__).resolve().parents[1]))
from suite import PYTHONS, ROOT, interpreter, make_environment, own_environment

# One for each Python, and these. (The pinned versions under this Python are "plain" of reproduce.)
MINORS = range(PYTHONS[0][1], PYTHONS[1][1] + 1)
ROWS = ["oldest", "newest torch", *(f"Python 3.{minor}" for minor in MINORS)]
BUILD = ROOT / "build"
LINE = re.compile(r"^(\d\d_\w+) +(\d+) / (\d+) +(\d+) / (\d+) ", re.MULTILINE)


class CannotError(RuntimeError):
    """A row cannot be run here; the message gives the reason."""


@dataclass(frozen=True)
class Row:
    """The content of an environment: a Python and versions that replace pinned ones."""

    python: str
    other: dict[str, str]
    unit_tests: bool = False


def bounds() -> dict[str, str]:
    """Return the oldest versions that pyproject.toml allows, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["notebooks"]
    needed = [Requirement(line) for line in lines]
    return {need.name: str(need.specifier).removeprefix(">=") for need in needed}


def newest(name: str) -> str:
    """Return the newest release of a distribution on the registry."""
    command = [sys.executable, "-m", "pip", "index", "versions", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.match(rf"{name} \(([\d.]+)", done.stdout)
    if found is None:
        raise CannotError(f"pip did not report the newest {name}: {done.stderr[-200:]}")
    return found[1]


def found_python(minor: int) -> str:
    """Return the program of Python 3.``minor``."""
    if sys.version_info[1] == minor:
        return sys.executable
    name = f"python3.{minor}"
    program = shutil.which(name)
    if program is None:
        raise CannotError(f"no {name} on the path")
    done = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotError(f"{name} does not start: {done.stderr.strip().splitlines()[0]}")
    return program


def row(name: str) -> Row:
    """Return the content of a row's environment; raise CannotError if it is not available."""
    if name.startswith("Python "):
        minor = int(name.rpartition(".")[2])
        if minor == sys.version_info[1]:
            raise CannotError("the Python of .venv, see plain")
        return Row(found_python(minor), {})
    if name == "oldest":  # on the oldest Python, because newer ones lack these wheels
        return Row(found_python(MINORS[0]), bounds(), unit_tests=True)
    if (version := newest("torch")) == metadata.version("torch").partition("+")[0]:
        raise CannotError("the pinned torch is the newest, see plain")
    return Row(sys.executable, {"torch": version})


def pins(other: dict[str, str]) -> str:
    """Return the pins with replaced versions, without packages that those versions pin."""
    changed = {canonicalize_name(name): version for name, version in other.items()}
    tied = set()
    for name in changed:
        for need in map(Requirement, metadata.requires(name) or []):
            if any(specifier.operator in ("==", "~=") for specifier in need.specifier):
                tied.add(canonicalize_name(need.name))
    lines = [f"{name}=={version}" for name, version in changed.items()]
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and line[0] != "#":
            name = canonicalize_name(Requirement(line).name)
            if name not in changed and name not in tied:
                lines.append(line)
    return "\n".join(lines) + "\n"


def made(name: str) -> tuple[Path, Row]:
    """Return the interpreter of a row's environment, which is created; or raise CannotError."""
    wanted = row(name)
    folder = ROOT / f".venv-{name.lower().replace(' ', '-')}"
    BUILD.mkdir(exist_ok=True)
    file = BUILD / f"{folder.name}.txt"
    text = pins(wanted.other)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
    try:
        make_environment(folder, file, wanted.python, complete=False)
    except SystemExit as failure:
        raise CannotError(str(failure)) from failure
    return interpreter(folder), wanted


def run(name: str, dataset: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Verify the notebooks in each environment; return the differences."""
    try:
        python, wanted = made(name)
    except CannotError as why:
        return [(name, "", "", "", f"not run: {why}")], []
    rows, errors = [], []
    command = [str(python), "tests/notebooks/execute.py", "verify", dataset]
    if "matplotlib" in wanted.other:
        command.append("--but-figures")
    how = {"cwd": ROOT, "env": own_environment(), "text": True, "encoding": "utf-8"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, **how)
    lines = LINE.findall(done.stdout)
    what = "figures aside" if "--but-figures" in command else ""
    for stem, same, cells, passed, checks in lines:
        rows.append((name, stem, f"{same} / {cells}", f"{passed} / {checks}", what))
    if done.returncode or len(lines) != len(list(STORED[dataset].glob("*.ipynb"))):
        errors.append(f"{name}: expected all cells to be reproduced, see above")
    if wanted.unit_tests:  # that the installed versions are the pinned ones is not to be expected
        tests = ["-m", "pytest", "tests/unit", "--ignore=tests/unit/test_environment.py"]
        failed = subprocess.run([str(python), *tests], check=False, **how).returncode
        rows.append((name, "unit tests", "", "", "failed" if failed else "passed"))
        errors += [f"{name}: the unit tests fail"] if failed else []
    return rows, errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(STORED))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="these rows")
    arguments = parser.parse_args()
    table, errors = [("versions", "notebook", "cells reproduced", "checks passed", "")], []
    for name in arguments.only:
        rows, wrong = run(name, arguments.dataset)
        table += rows
        errors += wrong
    show(table)
    sys.exit("\n".join(errors) if errors else 0)


if __name__ == "__main__":
    main()
