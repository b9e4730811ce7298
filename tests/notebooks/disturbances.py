"""Disturbances of a machine that must not change any text or table of the notebooks."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mflib.data import LIKED, SOURCES, Source, data_dir

ROOT = Path(__file__).resolve().parents[2]
# Environment variables for the kernel; ``disturbed`` implements the entries without any.
DISTURBANCES = {
    "plain": {},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "vectors of torch: default": {"ATEN_CPU_CAPABILITY": "default"},
    "vectors of torch: avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "vectors of torch: avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "MKL: COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "MKL: AVX2": {"MKL_CBWR": "AVX2"},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 2": {"PYTHONHASHSEED": "2"},
    "locale and time zone": {"LC_ALL": "C", "TZ": "Pacific/Chatham"},
    "another folder": {},
    "rows in another order": {},
    "under load": {},
    "cells run twice": {},
    "settings of Python": {},
    "settings of IPython": {},
    "settings of matplotlib": {},
    "another kernel": {},
}
COMBINED = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "PYTHONHASHSEED": "7",
    "LC_ALL": "C",
}
# Possible settings of a user: files below the home folder {home}, and variables. None of them may
# affect a kernel.
IPYTHON = ".ipython/profile_default"
ELSEWHERE = {"argv": ["false", "{connection_file}"], "display_name": "Mine", "language": "python"}
USERS = {
    "settings of Python": (
        {
            "startup.py": "print('hello from PYTHONSTARTUP')",
            "mine/pandas.py": "raise ImportError('not the pandas of the notebooks')",
            "mine/sitecustomize.py": "print('hello from sitecustomize')",
        },
        {
            "PYTHONSTARTUP": "{home}/startup.py",
            "PYTHONPATH": "{home}/mine",
            "PYTHONOPTIMIZE": "2",
            "PYTHONWARNINGS": "always",
            "PYTHONVERBOSE": "1",
            "PANDAS_COPY_ON_WRITE": "0",
            "TORCH_LOGS": "+all",
        },
    ),
    "settings of IPython": (
        {
            f"{IPYTHON}/ipython_kernel_config.py": (
                "c.InteractiveShell.ast_node_interactivity = 'all'\n"
                "c.InlineBackend.figure_formats = {'svg'}\n"
                "c.IPKernelApp.exec_lines = ['%precision 2']\n"
            ),
            f"{IPYTHON}/startup/00-mine.py": (
                "import numpy, pandas\n"
                "numpy.set_printoptions(precision=1)\n"
                "pandas.set_option('display.precision', 1, 'display.max_columns', 2)\n"
                "print('hello from a startup file')\n"
            ),
        },
        {"IPYTHONDIR": "{home}/.ipython"},
    ),
    "settings of matplotlib": (
        {".config/matplotlib/matplotlibrc": "figure.figsize: 2, 2\naxes.facecolor: black\n"},
        {"MPLBACKEND": "Agg", "MPLCONFIGDIR": "{home}/.config/matplotlib"},
    ),
    "another kernel": (
        {"share/kernels/python3/kernel.json": json.dumps(ELSEWHERE)},
        {
            "JUPYTER_PATH": "{home}/share",
            "JUPYTER_PREFER_ENV_PATH": "0",
            "JUPYTER_RUNTIME_DIR": "{home}/share/kernels/python3/kernel.json/no-folder",
        },
    ),
}


def cannot(name: str) -> str:
    """Return why a disturbance is not possible on this machine, or an empty text."""
    vectors = torch.backends.cpu.get_cpu_capability()
    if "avx512" in name and vectors != "AVX512":
        return "this processor has no AVX-512"
    if "avx2" in name and not vectors.startswith("AVX"):
        return "this processor has no AVX2"
    if "MKL" in name and not torch.backends.mkl.is_available():
        return "this torch is built without MKL"
    return ""


@contextmanager
def disturbed(name: str, file: Path, dataset: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the notebook to execute and the variables to set under a disturbance."""
    environment = DISTURBANCES[name]
    with tempfile.TemporaryDirectory(prefix="mflib ünïcode ") as temporary:
        folder = Path(temporary)
        if name == "another folder":
            shutil.copytree(ROOT / "mflib", folder / "mflib")
            file = Path(shutil.copy(file, folder))
            environment = {"MFLIB_DATA": str(data_dir())}
        elif name == "rows in another order":
            shuffle(data_dir() / dataset, folder / dataset, SOURCES[dataset])
            environment = {"MFLIB_DATA": temporary}
        processes = (os.cpu_count() or 1) if name == "under load" else 0
        busy = [sys.executable, "-c", "while True: pass"]
        load = [subprocess.Popen(busy) for _ in range(processes)]
        try:
            with a_users({name} & set(USERS), folder):
                yield file, environment
        finally:
            for process in load:
                process.kill()
                process.wait()


@contextmanager
def a_users(names: set[str], home: Path) -> Iterator[None]:
    """Give this process the settings ``names`` of USERS, in the home folder ``home``."""
    before = dict(os.environ)
    for files, variables in (USERS[name] for name in sorted(names)):
        for place, text in files.items():
            (home / place).parent.mkdir(parents=True, exist_ok=True)
            (home / place).write_text(text, encoding="utf-8")
        os.environ |= {name: value.format(home=home) for name, value in variables.items()}
        os.environ |= {"HOME": str(home), "USERPROFILE": str(home)}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def shuffle(source: Path, target: Path, layout: Source) -> None:
    """Copy a data set with the ratings in another order and other times of ratings below 4."""
    shutil.copytree(source, target)
    file = target / Path(layout.ratings).name
    lines = file.read_text(layout.encoding).splitlines()
    header, rows = lines[: layout.header], lines[layout.header :]
    random.Random(0).shuffle(rows)
    fields = [row.split(layout.separator) for row in rows]
    moved = [
        layout.separator.join([*row[:3], row[3] if float(row[2]) >= LIKED else str(n)])
        for n, row in enumerate(fields)
    ]
    file.write_text("\n".join(header + moved) + "\n", layout.encoding)
