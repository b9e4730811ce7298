"""Run kernels in another process, so that their callers cannot inspect them.

The process is started, and has deleted the kernels' files, before any student's code runs. Its
memory cannot be read by others. Arguments and results are sent as what torch loads without
executing code.
"""

import ctypes
import inspect
import io
import multiprocessing
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals

PR_SET_DUMPABLE = 4


class KernelError(Exception):
    """A kernel has raised an exception, or its process has ended."""


def serve(
    files: Mapping[int, Path], load: Callable[[Path], Callable], cpu_seconds: int
) -> dict[int, Connection]:
    """Start a process that loads and calls the kernels in ``files``.

    Returns
    -------
    dict
        For each file, a connection by which this kernel alone can be called, see ``ask``.
    """
    pipes = {n: multiprocessing.Pipe() for n in files}
    if os.fork() == 0:
        with suppress(BaseException):
            import resource  # missing on Windows, where this is not called

            for ours, _ in pipes.values():
                ours.close()
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            kernels = {}
            for n, file in files.items():
                try:
                    kernels[pipes[n][1]] = load(file)
                finally:
                    file.unlink()
            for connection in kernels:
                connection.send_bytes(b"ready")
            _answer_all(kernels)
        os._exit(0)
    for ours, theirs in pipes.values():
        theirs.close()
        with suppress(EOFError):  # on failed loading, calls raise KernelError
            ours.recv_bytes()
    return {n: ours for n, (ours, _) in pipes.items()}


def _answer_all(kernels: dict[Connection, Callable]) -> None:
    """Serve calls of kernels until all connections are closed."""
    while kernels:
        ready = wait(list(kernels))
        for connection in [connection for connection in kernels if connection in ready]:
            try:
                connection.send_bytes(pack(_answer(kernels[connection], connection.recv_bytes())))
            except (EOFError, OSError):
                del kernels[connection]


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

    with safe_globals([Entries, Block, slice]):  # the types of arguments other than tensors
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
    """Call the kernel of a connection that ``serve`` has returned."""
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
