"""The pins, the conda entry and the imports hold each other; so do the README and the Makefile."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PINS = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PINNED = {canonicalize_name(pin.name): pin for pin in PINS}


def imports(source: str) -> set[str]:
    """Top-level names that the Python source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def third_party(paths) -> set[str]:
    """Distributions, by canonical name, behind what these modules and notebooks import."""
    names = set()
    for path in paths:
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text())["cells"]
            names |= set().union(
                *(imports("".join(c["source"])) for c in cells if c["cell_type"] == "code")
            )
        else:
            names |= imports(path.read_text())
    names -= {"implicit", "threadpoolctl"}  # a peer: its tests are skipped where it is absent
    names -= {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"mflib"}
    names -= set(sys.stdlib_module_names)
    distributions = metadata.packages_distributions()
    return {canonicalize_name(distributions[name][0]) for name in names}


def test_every_pin_is_exact():
    assert len(PINNED) == len(PINS)
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "==", f"{pin} is not an exact pin"
        assert Version(specifier.version).local is None, f"{pin} names a local build"
        assert "*" not in specifier.version


def test_no_cuda():
    assert not [name for name in PINNED if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_installed_versions_are_the_pinned_ones():
    for name, pin in PINNED.items():
        assert Version(metadata.version(name)).public in pin.specifier, (
            f"{pin} is not what is installed"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="the list of pins was made on Linux")
def test_what_the_pins_need_is_pinned():
    """Extras aside, and aside from what torch's build for CUDA needs."""
    for name in PINNED:
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            needed_name = canonicalize_name(needed.name)
            if name == "torch" and needed_name.startswith(("nvidia", "cuda", "triton")):
                continue
            assert needed_name in PINNED, f"{name} needs {needed.name}, which is not pinned"


NOTEBOOKS = {"plots.py", "notebook.py"}  # the modules that only notebooks need, an extra


def test_what_is_imported_is_pinned_and_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core, extra = project["dependencies"], project["optional-dependencies"]["notebooks"]
    declared, notebooks = (
        {canonicalize_name(Requirement(line).name) for line in lines} for lines in (core, extra)
    )
    modules = set((ROOT / "mflib").glob("*.py"))
    for_notebooks = {module for module in modules if module.name in NOTEBOOKS}
    assert third_party(modules - for_notebooks) == declared
    shown = third_party(for_notebooks) | {"tensorboard"}  # which torch.utils.tensorboard imports
    assert shown - declared == notebooks
    assert third_party((ROOT / "notebooks").glob("*.ipynb")) <= declared | notebooks
    tests = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not (path.parent / "requirements.txt").exists()  # these rooms bring pins of their own
    ]
    assert third_party(tests) <= set(PINNED)
    for line in [*core, *extra]:
        (pin,) = PINNED[canonicalize_name(Requirement(line).name)].specifier
        assert Requirement(line).specifier.contains(pin.version), f"{pin} does not satisfy {line}"


def test_the_models_need_nothing_of_the_notebooks():
    """A user of the models has neither matplotlib nor IPython."""
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'IPython', 'ipywidgets', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "import mflib, mflib.data, mflib.metrics, mflib.similarity"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_conda_entry_repeats_nothing():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    packages = [line.removeprefix("- ") for line in lines[lines.index("dependencies:") + 1 :]]
    python, *rest = packages
    assert re.fullmatch(r"python=3\.\d+", python)
    assert rest == ["pip", "pip:", "-r requirements.txt", "-e .[notebooks]"]


def test_readme_and_makefile_name_the_same_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named == targets
    assert set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()) == targets
