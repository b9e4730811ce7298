"""Threads that wait without work.

Torch's own threads wait for each other actively: where one has lost its processor to other work,
the rest burn theirs, and a busy machine becomes ten to fifty times as slow. So everything here
computes in one thread of torch, and where more processors pay, in several Python threads of one
each: torch lets go of the interpreter while it computes.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in one thread; afterwards in as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers(number: int) -> ThreadPoolExecutor:
    """So many threads, with one thread of torch each from the first operation on.

    Torch tells a new thread how many it may use when that first asks, which a product of matrices
    does not: it would begin with as many as MKL takes by itself, and have other bits.
    """
    return ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def pool() -> Iterator[ThreadPoolExecutor]:
    """``usable`` threads for independent parts of some work, with one thread of torch each."""
    threads = usable()
    with one_thread(), workers(threads) as executor:
        yield executor


def usable() -> int:
    """How many threads may compute: as many as torch is set to, where there are processors.

    OMP_NUM_THREADS and torch.set_num_threads are so obeyed.
    """
    return min(torch.get_num_threads(), processors())


def processors() -> int:
    """How many processors this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    number = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(number, _quota() + 0.5)))


def _quota() -> float:
    """The processors' worth of time that the control group (version 2 or 1) grants."""
    try:
        if (CGROUP / "cpu.max").exists():
            quota, period = (CGROUP / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (CGROUP / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (CGROUP / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8")
    except OSError:  # no control group
        return float("inf")
    unlimited = quota in ("max", "-1")
    return float("inf") if unlimited else int(quota) / int(period)
