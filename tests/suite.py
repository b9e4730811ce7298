"""The commands of this suite, on any system: the environment .venv is made where it is missing.

    python3 tests/suite.py run                in Windows: py tests\\suite.py run
    python3 tests/suite.py verify --dataset ml-1m

The Makefile calls this file; the student edition has a copy of it as suite.py. Nothing but the
standard library is imported, and nothing newer than Python 3.8 is written, so that an old Python
gets a sentence, too. What is printed is ASCII: any console can show it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent if HERE.name == "tests" else HERE
DATA, LAB = "-m mflib.data {dataset}", "-m jupyterlab notebooks"
EXECUTE = "tests/notebooks/execute.py"
NBVAL = "-m pytest --nbval --nbval-current-env --nbval-cell-timeout=600"
# What the interpreter of .venv is called with, one after the other.
PROJECT = {
    "setup": [],
    "run": [DATA, f"{EXECUTE} run {{dataset}}"],
    "test": [
        "-m ruff check .",
        "-m ruff format --check .",
        "-m mypy",
        "-m pytest tests",
        "-m mflib.data ml-100k",
        f"{NBVAL} tests/notebooks/ml-100k",
        f"{EXECUTE} verify ml-100k --combined",
    ],
    "verify": [DATA, f"{EXECUTE} verify {{dataset}}"],
    "reproduce": [
        DATA,
        f"{EXECUTE} reproduce {{dataset}}",
        "tests/notebooks/versions.py {dataset}",
    ],
    "lab": [DATA, LAB],
    "assignment": ["tests/grading/edition.py"],
    "grade": [DATA, "tests/grading/grade.py --dataset {dataset}"],
}
EDITION = {
    "setup": [],
    "check": ["checks/check.py"],
    "lab": ["checks/obtain.py {dataset}", LAB],
    "submit": ["checks/obtain.py {dataset}", "checks/submit.py {dataset}"],
}
COMMANDS = PROJECT if HERE.name == "tests" else EDITION
PYTHONS = ((3, 11), (3, 14))  # oldest and newest for which all pins have wheels
PLATFORMS = {
    ("Linux", "x86_64"): "Linux on x86-64",
    ("Linux", "aarch64"): "Linux on ARM64",
    ("Darwin", "arm64"): "macOS 14 or newer on Apple silicon",
    ("Windows", "AMD64"): "64-bit Windows on x86-64",
}
# torch's plain wheel for Linux brings CUDA. Its build for the CPU is on an index of torch's own,
# which is asked for this one package, not for all: where it cannot be reached, that ends soon.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
QUICKLY = ("--retries", "1", "--timeout", "20")
GIGABYTES = {"the build of torch for the CPU": 1.6, "the build of torch with CUDA": 7.0}


def interpreter(folder: Path) -> Path:
    """The Python of the environment in ``folder``."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def own_environment() -> dict[str, str]:
    """Return this process's variables, except those that configure Python or redirect pip."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    # on a busy machine, threads that wait actively would take each other's processor
    kept.setdefault("GOMP_SPINCOUNT", "10000")
    own = {"PYTHONUTF8": "1", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if ROOT != HERE:  # the package of this tree, where worktrees share an environment; this file
        own["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
    return {**kept, **own}


def trouble() -> str:
    """Why no environment can be made by this Python on this machine, or nothing."""
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return (
            f"expected a Python from {oldest} to {newest}, got {platform.python_version()}: call "
            f"another one, as in 'python{oldest} tests/suite.py run', 'make run PYTHON=python"
            f"{oldest}' or, in Windows, 'py -{oldest} tests\\suite.py run'"
        )
    here = (platform.system(), platform.machine())
    if here not in PLATFORMS or sys.maxsize < 2**32:
        return f"expected {'; '.join(PLATFORMS.values())}; got {' '.join(here)}: no wheels of torch"
    if here[0] == "Linux" and platform.libc_ver()[0] != "glibc":
        return "expected a Linux with glibc, as Debian, Ubuntu or Fedora: there are no other wheels"
    return ""


def gpu_seen() -> bool:
    """Whether there is a GPU that torch's build with CUDA could use."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").exists()


def cpu_index() -> str:
    """Where torch is to come from, or nothing: then it comes with everything else.

    The variable TORCH_INDEX decides, where it is set; empty means the plain build.
    """
    wanted = "" if platform.system() != "Linux" or gpu_seen() else CPU_INDEX
    return os.environ.get("TORCH_INDEX", wanted)


def is_ready(folder: Path, pins: Path) -> bool:
    """Whether the environment was completed after the last change of what it is made from."""
    stamp = folder / "ready"
    sources = (pins, ROOT / "pyproject.toml")
    changed = max(source.stat().st_mtime for source in sources)
    return stamp.exists() and stamp.stat().st_mtime >= changed


def make_environment(folder: Path, pins: Path, python: str = sys.executable) -> None:
    """Create or complete the environment ``folder`` from ``pins``; exit with a message on failure.

    An incomplete environment is created again: another Python may have started it.
    """
    if is_ready(folder, pins):
        return
    if why := trouble():
        sys.exit(f"error: {why}")
    torch = next(line for line in pins.read_text("utf-8").splitlines() if line[:7] == "torch==")
    index = cpu_index()
    cuda = platform.system() == "Linux" and not index
    cpu, plain = GIGABYTES
    build, size = (plain, GIGABYTES[plain]) if cuda else (cpu, GIGABYTES[cpu])
    say(f"{python} makes {folder.name}: {size} GB, with {build}.")
    if index:
        say(f"No NVIDIA GPU is seen: torch comes from {index}.")
        say("If the variable TORCH_INDEX is set, it names another index; empty, the plain build.")
    free = shutil.disk_usage(folder.parent).free / 1e9
    if free < size:
        sys.exit(f"error: expected {size} GB free for {folder}, got {free:.1f} GB")
    if not (folder / "ready").exists():
        if folder.is_symlink():
            sys.exit(f"error: {folder} is a link to an environment that is not ready; remove it")
        if subprocess.call([python, "-m", "venv", "--clear", str(folder)], env=own_environment()):
            sys.exit("error: no environment can be made; on Debian, install python3-venv first")
    if index and pip(folder, "--no-deps", "--index-url", index, *QUICKLY, torch):
        say(f"{index} cannot be reached, or has no {torch} for this machine.")
        say(f"{plain} comes instead, {GIGABYTES[plain]} GB; stop here if that is too much.")
    if pip(folder, "-r", str(pins)):
        sys.exit(f"error: pip has not installed {pins.name}; {hints()}")
    if pip(folder, "--no-build-isolation", "--no-deps", "-e", str(ROOT)):
        sys.exit("error: pip has not installed mflib; see the lines above")
    (folder / "ready").write_text(platform.python_version(), "utf-8")


def say(sentence: str) -> None:
    print(sentence, flush=True)  # before what pip prints


def pip(folder: Path, *arguments: str) -> int:
    """The exit code of ``pip install`` in an environment."""
    command = [str(interpreter(folder)), "-m", "pip", "install", *arguments]
    return subprocess.call(command, env=own_environment())


def hints() -> str:
    """What stands behind most failures of pip."""
    proxies = [f"{n}={os.environ[n]}" for n in sorted(os.environ) if n.lower().endswith("_proxy")]
    through = f" through the proxy of {', '.join(proxies)}" if proxies else ""
    return (
        "see the lines above. 'No matching distribution' usually means that no index was "
        f"reached{through}: check the network, the proxy and pip's settings (pip config list)"
    )


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def steps(command: str, dataset: str, more: list[str]) -> list[list[str]]:
    """The arguments of the interpreter, step by step; the last one gets ``more``."""
    found = [step.replace("{dataset}", dataset).split() for step in COMMANDS[command]]
    if found:
        found[-1] += more
    if command == "lab" and is_root():  # as in a container; JupyterLab would refuse
        found[-1].append("--allow-root")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="More arguments go to the command, as in grade.",
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--dataset", default="ml-100k", choices=["ml-100k", "ml-1m"])
    chosen, more = parser.parse_known_args(arguments)
    make_environment(ROOT / ".venv", ROOT / "requirements.txt")
    python = interpreter(ROOT / ".venv")
    for step in steps(chosen.command, chosen.dataset, more):
        environment = own_environment()
        if LAB.split()[1] in step:  # the user's settings, but of all kernels "python3" is ours
            ours = str(ROOT / ".venv" / "share" / "jupyter")
            paths = filter(None, [ours, os.environ.get("JUPYTER_PATH")])
            environment = {**os.environ, "JUPYTER_PATH": os.pathsep.join(paths)}
        if code := subprocess.call([str(python), *step], cwd=str(ROOT), env=environment):
            return code
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
