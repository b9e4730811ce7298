"""Run the commands of this suite on any system; create the environment .venv if it is missing.

    python3 tests/suite.py run                on Windows: py tests\\suite.py run
    python3 tests/suite.py verify --dataset ml-1m

The Makefile calls this file; the student edition has a copy of it as suite.py. It imports only the
standard library and uses no syntax newer than Python 3.8, so that an old Python can print the error
message. All output is ASCII, which every console can show.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent if HERE.name == "tests" else HERE
DATA, LAB = "-m mflib.data {dataset}", "-m jupyterlab notebooks"
OBTAIN = "-P -m grading.student.obtain {dataset}"
EXECUTE = "tests/notebooks/execute.py"
SLOW = "-m pytest -m slow"
# A file's tests share a process, and so its fixtures. There are more processes than two cores,
# because some tests wait for a time limit. Long files come first in the order of the names.
UNITS = "-m pytest -n 3 --dist loadfile --no-loadscope-reorder"
NBVAL = "-m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 -n 2 --dist loadfile"
# Each command is a list of steps: arguments for the interpreter of .venv.
PROJECT = {
    "setup": [],
    "tools": [],  # like setup, with the packages of the tests
    "run": [DATA, f"{EXECUTE} run {{dataset}}"],
    "test": [
        "-m ruff check .",
        "-m ruff format --check .",
        "-m mypy",
        f"{UNITS} tests",
        "-m mflib.data ml-100k",
        f"{NBVAL} tests/notebooks/ml-100k",
    ],
    "verify": [DATA, f"{EXECUTE} verify {{dataset}}"],
    "reproduce": [
        DATA,
        f"{EXECUTE} reproduce {{dataset}}",
        "tests/notebooks/versions.py {dataset}",
    ],
    "lab": [DATA, LAB],
    "assignment": ["-m grading.student.edition"],
    "grade": [DATA, "-m grading --dataset {dataset}"],
    "gradescope": ["-m grading.autograder.gradescope build"],
    "grader-accuracy": ["-m grading.evaluation.accuracy"],
    "submissions": ["-m mflib.data ml-100k", f"{SLOW} tests/grading/tests/test_submissions.py"],
    "fuzz": ["-m mflib.data ml-100k", "-m grading.evaluation.fuzz"],
}
EDITION = {
    "setup": [],
    "check": ["-P -m grading.student.check"],
    "lab": [OBTAIN, LAB],
    "submit": [OBTAIN, "-P -m grading.student.submit {dataset}"],
}
COMMANDS = PROJECT if HERE.name == "tests" else EDITION
# What follows a step that fails: unlike nbval, verify shows differences in full.
AFTER_FAILURE = {PROJECT["test"][-1]: f"{EXECUTE} verify ml-100k --combined"}
# Commands that need the second part of requirements.txt.
TESTING = ("test", "tools", "grader-accuracy", "submissions", "fuzz")
TESTS_BEGIN = "# For the tests"  # the first line of that part
SANDBOXED = ("grade", *TESTING)  # commands whose sandbox cannot write the byte code of packages
IMPORTED = "ipykernel.kernelapp, matplotlib_inline.backend_inline, mflib.notebook, mflib.plots"
# From here the commands import: the package of this tree, where worktrees share an environment;
# the grader; the notebooks' tools. In the edition: the checks with a complete copy of the package,
# since one of the student's files may not be importable. For the same reason, the interpreter's
# option -P keeps the current folder off the path.
PATHS = (
    (ROOT, HERE, HERE / "notebooks")
    if HERE.name == "tests"
    else (HERE / "checks", HERE / "checks" / "suite")
)
PYTHONS = ((3, 11), (3, 14))  # oldest and newest for which all pins have wheels
PLATFORMS = {
    ("Linux", "x86_64"): "Linux on x86-64",
    ("Linux", "aarch64"): "Linux on ARM64",
    ("Darwin", "arm64"): "macOS 14 or newer on Apple silicon",
    ("Windows", "AMD64"): "64-bit Windows on x86-64",
}
# On Linux, torch's wheel on PyPI brings CUDA. The build for the CPU is on torch's own index. Only
# torch is requested there: every package would be if that index were added for all of them.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# A short time-out for that index.
QUICKLY = ("--retries", "1", "--timeout", "20")
SOON = {"UV_HTTP_RETRIES": "1", "UV_HTTP_TIMEOUT": "20"}
GIGABYTES = {"the build of torch for the CPU": 1.6, "the build of torch with CUDA": 7.0}


def interpreter(folder: Path) -> Path:
    """Return the path of the Python of the environment in ``folder``."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def own_environment() -> dict[str, str]:
    """Return this process's variables, except those that configure Python or redirect pip."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    # on a busy machine, threads with busy waiting would slow each other down
    kept.setdefault("GOMP_SPINCOUNT", "10000")
    if kept.get("MFLIB_DATA"):  # steps and kernels have other current folders than the caller
        kept["MFLIB_DATA"] = os.path.abspath(os.path.expanduser(kept["MFLIB_DATA"]))
    own = {"PYTHONUTF8": "1", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    own["PYTHONPATH"] = os.pathsep.join(map(str, PATHS))
    return {**kept, **own}


def trouble() -> str:
    """Return why this Python cannot create an environment on this machine, or ""."""
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return (
            f"expected a Python from {oldest} to {newest}, got {platform.python_version()}: use "
            f"another one, as in 'python{oldest} tests/suite.py run', 'make run PYTHON=python"
            f"{oldest}' or, on Windows, 'py -{oldest} tests\\suite.py run'"
        )
    here = (platform.system(), platform.machine())
    if here not in PLATFORMS or sys.maxsize < 2**32:
        return (
            f"expected {'; '.join(PLATFORMS.values())}; got {' '.join(here)}: torch has no wheels"
        )
    if here[0] == "Linux" and platform.libc_ver()[0] != "glibc":
        return "expected a Linux with glibc, such as Debian or Fedora: torch has no other wheels"
    return ""


def gpu_seen() -> bool:
    """Return whether there is a GPU that torch's build with CUDA could use."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").exists()


def cpu_index() -> str:
    """Return the index to install torch from, or "" to install it like all other packages.

    The variable TORCH_INDEX takes precedence if it is set; empty means the wheel on PyPI.
    """
    wanted = "" if platform.system() != "Linux" or gpu_seen() else CPU_INDEX
    return os.environ.get("TORCH_INDEX", wanted)


def split_pins(pins: Path) -> tuple[list[str], list[str]]:
    """Return the pins that every command needs, and those that only the tests need."""
    first, _, second = pins.read_text("utf-8").partition(TESTS_BEGIN)
    parts = [
        [line for line in part.splitlines() if "==" in line and line[0] != "#"]
        for part in (first, second)
    ]
    return parts[0], parts[1]


def is_ready(stamp: Path, pins: Path) -> bool:
    """Return whether ``stamp`` is newer than the files that the environment is made from."""
    sources = (pins, ROOT / "pyproject.toml")
    changed = max(source.stat().st_mtime for source in sources)
    return stamp.exists() and stamp.stat().st_mtime >= changed


def make_environment(
    folder: Path,
    pins: Path,
    python: str = sys.executable,
    tests: bool = False,
    complete: bool = True,
) -> None:
    """Create or complete the environment ``folder`` from ``pins``; exit with a message on failure.

    An incomplete environment is created from scratch, because another Python may have started it.
    ``tests`` adds the packages that only the tests need; ``complete`` states that the pins include
    all dependencies.
    """
    base, more = split_pins(pins)
    stamps = [folder / "ready", *([folder / "ready-for-tests"] if tests else [])]
    if folder.is_symlink() and not all(is_ready(stamp, pins) for stamp in stamps):
        sys.exit(f"error: {folder} is a link to an environment that is not ready; remove the link")
    if not is_ready(folder / "ready", pins):
        make_base(folder, base, python, complete)
        (folder / "ready").write_text(platform.python_version(), "utf-8")
    stamp = folder / "ready-for-tests"
    if tests and not is_ready(stamp, pins):
        say(f"Installing the {len(more)} packages that only the tests need.")
        if more and install(folder, "--no-deps", *more):
            sys.exit(f"error: the packages of the tests were not installed; {hints()}")
        stamp.write_text(platform.python_version(), "utf-8")


def make_base(folder: Path, pins: list[str], python: str, complete: bool) -> None:
    """Create or complete the environment with the packages that every command needs."""
    if why := trouble():
        sys.exit(f"error: {why}")
    index = cpu_index()
    cuda = platform.system() == "Linux" and not index
    cpu, plain = GIGABYTES
    build, size = (plain, GIGABYTES[plain]) if cuda else (cpu, GIGABYTES[cpu])
    say(f"Creating {folder.name} with {python}: {size} GB, with {build}.")
    if index:
        say(f"No NVIDIA GPU was found, so torch comes from {index}.")
        say("Set TORCH_INDEX to use another index, or to nothing to use the wheel on PyPI.")
    free = shutil.disk_usage(folder.parent).free / 1e9
    if free < size:
        sys.exit(f"error: expected {size} GB free for {folder}, got {free:.1f} GB")
    create = [python, "-m", "venv", "--clear", str(folder)]
    if not (folder / "ready").exists() and subprocess.call(create, env=own_environment()):
        sys.exit("error: no environment was created; on Debian, install python3-venv first")
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    if index and install(folder, "--no-deps", "--index-url", index, torch, quickly=True):
        say(f"{index} did not answer, or has no {torch} for this machine.")
        say(f"Installing {plain} instead, {GIGABYTES[plain]} GB; interrupt if that is too much.")
        cuda = True
    # no pin names the packages of CUDA, on which torch then depends
    if install(folder, *(["--no-deps"] if complete and not cuda else []), *pins):
        sys.exit(f"error: the pinned packages were not installed; {hints()}")
    command = [str(interpreter(folder)), "-c", ADD_ROOT, ascii(str(ROOT))]
    if subprocess.call(command, env=own_environment()):
        sys.exit(f"error: {folder} cannot be written to; mflib was not added to it")


# Makes mflib importable in kernels of JupyterLab and VS Code without building a package. A line of
# a .pth file that begins with "import" is executed; unlike a plain path, it may be ASCII only.
ADD_ROOT = """
import pathlib, sys, sysconfig
file = pathlib.Path(sysconfig.get_path("purelib"), "mflib-suite.pth")
file.write_text("import sys; sys.path.append(" + sys.argv[1] + ")" + chr(10), "ascii")
"""


def say(sentence: str) -> None:
    print(sentence, flush=True)  # before the output of pip


def install(folder: Path, *arguments: str, quickly: bool = False) -> int:
    """Install packages into an environment by uv, if it is on the PATH, or by pip.

    uv does not read the configuration of pip: if it fails, pip is tried. Byte code is not compiled
    here but at the first import, which takes less time overall.
    """
    python = str(interpreter(folder))
    if uv := shutil.which("uv"):
        environment = {**own_environment(), **(SOON if quickly else {})}
        command = [uv, "pip", "install", "--python", python, *arguments]
        if not subprocess.call(command, env=environment):
            return 0
        say("uv did not install these packages; trying pip, which has its own configuration.")
    more = QUICKLY if quickly else ()
    command = [python, "-m", "pip", "install", "--no-compile", *more, *arguments]
    return subprocess.call(command, env=own_environment())


def compile_imports(folder: Path) -> None:
    """Import the notebooks' packages once, so that their byte code exists for the sandbox."""
    stamp = folder / "compiled"
    if stamp.exists() and stamp.stat().st_mtime >= (folder / "ready").stat().st_mtime:
        return
    if not os.access(str(folder), os.W_OK):
        say(f"{folder} cannot be written to: each submission compiles the packages for itself.")
        return
    command = [str(interpreter(folder)), "-c", f"import {IMPORTED}"]
    if subprocess.call(command, env=own_environment()):
        sys.exit("error: the packages cannot be imported; see the lines above")
    stamp.touch()


def hints() -> str:
    """Return the usual causes of failed installations."""
    proxies = [f"{n}={os.environ[n]}" for n in sorted(os.environ) if n.lower().endswith("_proxy")]
    through = f" through the proxy of {', '.join(proxies)}" if proxies else ""
    return (
        "see the lines above. 'No matching distribution' usually means that no index was "
        f"reached{through}: check the network, the proxy and pip's settings (pip config list)"
    )


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def steps(command: str, dataset: str, more: list[str]) -> list[list[str]]:
    """Return the arguments of the interpreter for each step; ``more`` is added to the last one."""
    found = [step.replace("{dataset}", dataset).split() for step in COMMANDS[command]]
    if found:
        found[-1] += more
    if command == "lab" and is_root():  # as in a container; JupyterLab would refuse to start
        found[-1].append("--allow-root")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other arguments are passed on to the command.",
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--dataset", default="ml-100k", choices=["ml-100k", "ml-1m"])
    chosen, more = parser.parse_known_args(arguments)
    pins = ROOT / "requirements.txt"
    make_environment(ROOT / ".venv", pins, tests=chosen.command in TESTING)
    if chosen.command in SANDBOXED:
        compile_imports(ROOT / ".venv")
    python = interpreter(ROOT / ".venv")
    for step in steps(chosen.command, chosen.dataset, more):
        environment = own_environment()
        if LAB.split()[1] in step:  # the user's settings, but our kernel "python3"
            ours = str(ROOT / ".venv" / "share" / "jupyter")
            paths = filter(None, [ours, os.environ.get("JUPYTER_PATH")])
            data = {name: environment[name] for name in ("MFLIB_DATA",) if name in environment}
            environment = {**os.environ, **data, "JUPYTER_PATH": os.pathsep.join(paths)}
        if code := call([str(python), *step], environment):
            if details := AFTER_FAILURE.get(" ".join(step)):
                call([str(python), *details.split()], environment)
            return code
    return 0


def call(command: list[str], environment: dict[str, str]) -> int:
    """Run a step in the folder of the suite and return its exit code.

    SIGTERM is passed on, and Ctrl-C, which reaches the step anyway, is waited for: the grader stops
    its submissions and removes its files before it ends.
    """
    with subprocess.Popen(command, cwd=str(ROOT), env=environment) as process:
        earlier = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, earlier)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
