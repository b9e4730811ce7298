"""ALS across processes: cost of two compared with one; equal factors for any number of processes.

First a generated set of MovieLens-32M's shape by one process of one thread and by two, in turn:
seconds a sweep and the peak of resident memory, against the marks. Then MovieLens's likes by 1, 2,
3, 4 and 7 processes, float32 and float64, each way of solving: the hashes of the factors must be
that of ``ALS.fit``. Tables go into build/bench.md.
"""

import argparse
import hashlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from large import generated
from report import section
from tqdm import tqdm

from mflib import ALS
from mflib.data import load_movielens

PROCESSES, SHARDS, ROUNDS, SWEEPS = (1, 2, 3, 4, 7), 16, 2, 3
FASTER, SMALLER = 1.6, 0.6  # the marks: two processes compared with one
SOLVERS = {
    "conjugate gradients": {},
    "without extrapolation": {"extrapolation": 0.0},
    "exact": {"use_cg": False},
}


def write_shards(matrix: sp.csr_matrix, folder: Path) -> None:
    for number, rows in enumerate(np.array_split(np.arange(matrix.shape[0]), SHARDS)):
        shard = matrix[rows[0] : rows[-1] + 1]
        sp.save_npz(folder / f"{number:02}.npz", shard, compressed=False)


def peak_of(*command: object) -> float:
    """Run it -> the peak in GB of its largest process, its own or one that it waited for."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MFLIB_PROGRESS": "0"}
    with subprocess.Popen(
        [sys.executable, *map(str, command)], env=environment, stdout=subprocess.DEVNULL
    ) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        sys.exit(f"expected {command} to run, but it returned {run.returncode}")
    return usage.ru_maxrss / 2**20


def by_processes(folder: Path, processes: int, **options: object) -> tuple[ALS, float]:
    """The model of so many processes of one thread, and the largest one's peak in GB."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    file, given = folder / "model", [f"--iterations={SWEEPS}"]
    for name, value in options.items():
        given.append(f"--no-{name}" if value is False else f"--{name}={value}")
    peak = peak_of(*torchrun, "-m", "mflib.distributed", folder, file, *given)
    return ALS.load(file), peak


FIT = """
import sys
from pathlib import Path
import scipy.sparse as sp
from mflib import ALS
from mflib.distributed import read_shards

folder = Path(sys.argv[1])
matrix = sp.vstack(list(read_shards(folder)), "csr")
ALS(iterations=int(sys.argv[2])).fit(matrix).save(folder / "model")
"""


def by_fit(folder: Path) -> tuple[ALS, float]:
    """The model of ``ALS.fit`` in one thread, and its peak in GB."""
    peak = peak_of("-c", FIT, folder, SWEEPS)
    return ALS.load(folder / "model"), peak


def sha256(model: ALS) -> str:
    factors = (model.user_factors, model.item_factors)
    return hashlib.sha256(b"".join(W.numpy().tobytes() for W in factors)).hexdigest()


def cost(folder: Path) -> list[str]:
    """Compare seconds and memory of two processes with one; return the marks that are missed."""
    fits = {
        "fit": by_fit,
        "1 process": lambda folder: by_processes(folder, 1),
        "2 processes": lambda folder: by_processes(folder, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    peaks, hashes = dict.fromkeys(fits, 0.0), set()
    for _ in tqdm(range(ROUNDS), "one process and two", unit="round"):
        for name, fit in fits.items():
            model, peak = fit(folder)
            seconds[name] += [step["seconds"] for step in model.history]
            peaks[name] = max(peaks[name], peak)
            hashes.add(sha256(model))
    table = pd.DataFrame({"seconds a sweep": pd.Series(seconds).map(statistics.median)})
    table["peak of a process, GB"] = pd.Series(peaks)
    of_two = table.loc["2 processes"]
    table["times as fast by two"] = table["seconds a sweep"] / of_two.iloc[0]
    table["memory of each of two"] = of_two.iloc[1] / table["peak of a process, GB"]
    faster, smaller = table.loc["1 process"].iloc[2], table.loc["fit"].iloc[3]
    shape = f"{len(model.user_factors):,} x {len(model.item_factors):,}"
    section(
        f"ALS by two processes of one thread compared with one, {shape}",
        f"```\n{table.round(2).to_string()}\n```\n\n"
        f"{faster:.2f} times as fast as one process (mark: {FASTER}), each with {smaller:.0%} of "
        f"the memory of fit (mark: {SMALLER:.0%}); SHA-256 of the factors {', '.join(hashes)}",
    )
    marks = {"speed": faster >= FASTER, "memory": smaller <= SMALLER, "hash": len(hashes) == 1}
    return [name for name, reached in marks.items() if not reached]


def same(folder: Path, likes: sp.csr_matrix) -> list[str]:
    """Hashes by processes and by ``ALS.fit`` -> the settings in which they differ."""
    rows, differ = [], []
    settings = list(itertools.product(("float32", "float64"), SOLVERS))
    for dtype, solver in tqdm(settings, "hashes"):
        options = {"dtype": dtype} | SOLVERS[solver]
        found = [sha256(by_processes(folder, processes, **options)[0]) for processes in PROCESSES]
        found.append(sha256(ALS(iterations=SWEEPS, **options).fit(likes, show_progress=False)))
        rows.append({"": f"{dtype}, {solver}", "SHA-256": ", ".join(dict.fromkeys(found))})
        if len(set(found)) > 1:
            differ.append(f"hashes of {rows[-1]['']}")
    numbers = ", ".join(map(str, PROCESSES))
    title = f"Factors of ALS by {numbers} processes and by fit, {likes.nnz:,} likes"
    section(title, f"```\n{pd.DataFrame(rows).set_index('').to_string()}\n```")
    return differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="take the likes as the large set, too")
    parser.add_argument("--generate", type=Path, help="write the shards of the large set alone")
    arguments = parser.parse_args()
    if arguments.generate:
        write_shards(generated(), arguments.generate)
        return
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as small:
        likes = load_movielens().likes()
        write_shards(likes, Path(small))
        if (
            not arguments.small
        ):  # in a separate process, because its peak would count for its children, too
            subprocess.run([sys.executable, __file__, "--generate", large], check=True)
        missed = cost(Path(small if arguments.small else large)) + same(Path(small), likes)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
