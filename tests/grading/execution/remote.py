"""Kernels in processes of their own: code that calls such a kernel can read nothing of it.

Each process is started, and has deleted the kernel's file, before any student's code runs. Its
memory cannot be read by others. Arguments and results are sent as what torch loads without
executing code.
"""

import ctypes
import inspect
import io
import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals

PR_SET_DUMPABLE = 4


class KernelError(Exception):
    """A kernel has raised an exception, or its process has ended."""


def serve(file: Path, load: Callable[[], Callable], cpu_seconds: int) -> Connection:
    """Start a process that loads and calls the kernel in ``file``; return the connection to it."""
    ours, theirs = multiprocessing.Pipe()
    if os.fork() == 0:
        with suppress(BaseException):
            import resource  # not on Windows, where this is not called

            ours.close()
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            try:
                kernel = load()
            finally:
                file.unlink()
            theirs.send_bytes(b"ready")
            while True:
                theirs.send_bytes(pack(_answer(kernel, theirs.recv_bytes())))
        os._exit(0)
    theirs.close()
    with suppress(EOFError):  # it cannot be loaded; then calling it raises KernelError
        ours.recv_bytes()
    return ours


def _answer(kernel: Callable, content: bytes) -> Any:
    """Return the changed arguments by place and the result, or a message."""
    try:
        values = unpack(content)
        before = {p: v.clone() for p, v in enumerate(values) if isinstance(v, torch.Tensor)}
        returned = kernel(*values)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    changed = [p for p, old in before.items() if not torch.equal(values[p], old)]
    return {p: values[p].detach() for p in changed}, _plain(returned)


def _plain(value: Any) -> Any:
    """Return a result as tensors without gradients and numbers."""
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    if isinstance(value, np.ndarray | np.generic):
        return torch.as_tensor(value)
    return value.detach() if isinstance(value, torch.Tensor) else value


def pack(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def unpack(content: bytes) -> Any:
    from mflib.als import Block
    from mflib.sparse import Entries

    with safe_globals([Entries, Block, slice]):  # all that arguments are, besides tensors
        return torch.load(io.BytesIO(content), weights_only=True)


def as_step(call: Callable[[list], Any], empty: Callable) -> Callable:
    """Return a function with the arguments of ``empty``, by position or by name."""
    signature = inspect.signature(empty)

    def step(*arguments: Any, **named: Any) -> Any:
        values = signature.bind(*arguments, **named).arguments.values()
        return call([v.item() if isinstance(v, np.generic) else v for v in values])

    return step


def direct(kernel: Callable, values: list) -> Any:
    """Call a kernel in this process."""
    try:
        return kernel(*values)
    except Exception as error:
        raise KernelError(f"{type(error).__name__}: {error}") from None


def ask(connection: Connection, values: list) -> Any:
    """Call the kernel in a process that ``serve`` has started."""
    try:
        connection.send_bytes(pack(values))
        answer = unpack(connection.recv_bytes())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise KernelError("its process has ended") from None
    if isinstance(answer, str):
        raise KernelError(answer)
    changed, returned = answer
    with torch.no_grad():
        for place, value in changed.items():
            values[place].copy_(value)
    return returned
