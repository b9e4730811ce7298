"""Execute several notebooks in parallel: one per core, if memory allows."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import psutil
from fresh_kernel import stop_kernels
from jupyter_core.utils import ensure_event_loop

from mflib.training import available_processors

KERNEL_GIGABYTES = {"ml-1m": 2.0, "ml-100k": 1.0}  # memory that one notebook may take
CGROUP, PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
Result = TypeVar("Result")


def free_gigabytes() -> float:
    """Return the available memory, within the limits of control groups (version 2)."""
    free = psutil.virtual_memory().available
    for group in control_groups():
        limit = group / "memory.max"
        if limit.exists() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
            used = int((group / "memory.current").read_text(encoding="utf-8"))
            stat = dict(map(str.split, (group / "memory.stat").read_text("utf-8").splitlines()))
            cache = int(stat.get("inactive_file", 0))  # the file cache, which is freed on demand
            free = min(free, int(text) - used + cache)
    return free / 1e9


def control_groups() -> list[Path]:
    """Return the control groups around this process; batch systems limit an outer one."""
    lines = PROCESS.read_text(encoding="utf-8").splitlines() if PROCESS.exists() else []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = CGROUP / own.strip("/")
    return [group for group in (folder, *folder.parents) if group.is_relative_to(CGROUP)]


def at_once(notebooks: int, dataset: str) -> int:
    """Return how many notebooks to execute in parallel: one per core, if memory allows."""
    fitting = int(free_gigabytes() / KERNEL_GIGABYTES[dataset])
    return max(1, min(notebooks, available_processors(), fitting))


def side_by_side(
    files: list[Path], dataset: str, task: Callable[[Path, dict[str, str]], Result]
) -> Iterator[tuple[Path, Result]]:
    """Yield each file and the result of ``task`` as soon as it is available.

    A task gets the file and variables for its kernel, which divide the cores among the kernels.
    The last file, the experiments, takes as long as all others, so it starts first.
    """
    count = at_once(len(files), dataset)
    order = [*files[-1:], *files[:-1]] if count > 1 else files
    share = {} if "OMP_NUM_THREADS" in os.environ else threads_each(count)

    def in_thread(file: Path) -> Result:
        try:
            return task(file, share)
        finally:
            ensure_event_loop().close()  # nbclient creates one for each thread

    with ThreadPoolExecutor(count) as pool:
        tasks = {pool.submit(in_thread, file): file for file in order}
        try:
            for done in as_completed(tasks):
                yield tasks[done], done.result()
        except BaseException:  # interrupts, also while the caller processes a result
            pool.shutdown(wait=False, cancel_futures=True)
            stop_kernels()
            raise


def threads_each(kernels: int) -> dict[str, str]:
    return (
        {"OMP_NUM_THREADS": str(max(1, available_processors() // kernels))} if kernels > 1 else {}
    )
