"""Check that the pins can be installed on every supported system, and write resolved.json.

    pip install uv && python tests/unit/resolve.py

uv resolves the pins as if it ran on each system, using wheels only. It asks the package registry
and checks markers, available wheels and supported Python versions; nothing is installed. If a
resolution fails, its error is shown and nothing is written. Run this after every change of the
pins; a unit test fails until then.
"""

import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE.parents[1] / "requirements.txt"
STORED = HERE / "resolved.json"
PYTHONS = ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
SUPPORTED = {
    "Linux on x86-64": "x86_64-manylinux_2_28",
    "Linux on ARM64": "aarch64-manylinux_2_28",
    "macOS 14 or newer on Apple silicon": "aarch64-apple-darwin",
    "64-bit Windows on x86-64": "x86_64-pc-windows-msvc",
}
UNSUPPORTED = {
    "macOS on Intel": "x86_64-apple-darwin",
    "Windows on ARM": "aarch64-pc-windows-msvc",
    "Linux with musl": "x86_64-unknown-linux-musl",
}


def pins() -> list[str]:
    """Return the pins with canonical names and without markers."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return [canonical(line) for line in lines if line and not line.startswith("#")]


def canonical(line: str) -> str:
    return re.sub(r"[-_.]+(?=.*==)", "-", line.partition(";")[0].strip()).lower()


def fingerprint() -> str:
    """Return a SHA-256 of the pins and their markers, ignoring order, comments and line ends."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pinned = sorted(line for line in lines if line and not line.startswith("#"))
    return hashlib.sha256("\n".join(pinned).encode()).hexdigest()


def resolve(platform: str, python: str) -> subprocess.CompletedProcess:
    command = ["uv", "pip", "compile", str(PINS), "--python-version", python, "--quiet"]
    command += ["--python-platform", platform, "--only-binary", ":all:"]
    command += ["--no-header", "--no-annotate"]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def main() -> None:
    if shutil.which("uv") is None:
        sys.exit("expected uv on the path, got none; run: pip install uv")
    pinned, packages, unpinned = set(pins()), {}, set()
    for system, platform in SUPPORTED.items():
        for python in PYTHONS:
            done = resolve(platform, python)
            if done.returncode:
                sys.exit(f"{system}, Python {python}:\n{done.stderr}")
            lines = {canonical(line) for line in done.stdout.splitlines()}
            packages.setdefault(system, {})[python] = len(lines)
            unpinned |= {line.partition("==")[0] for line in lines - pinned}
            print(f"{system}, Python {python}: {len(lines)} packages")
    refused = {}
    for system, platform in UNSUPPORTED.items():
        done = resolve(platform, PYTHONS[1])
        why = re.search(r"Because (.*?)(?: and you require|, we can)", done.stderr, re.DOTALL)
        refused[system] = " ".join(why[1].split()) if done.returncode and why else "resolves"
        print(f"{system}: {refused[system]}")
    version = subprocess.run(["uv", "--version"], capture_output=True, text=True, check=True)
    how = f"{' '.join(version.stdout.split()[:2])}, {datetime.date.today()}"
    stored = {"how": how, "pins": fingerprint(), "packages": packages}
    stored |= {"not pinned": sorted(unpinned), "refused": refused}
    STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
