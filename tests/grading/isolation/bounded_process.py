"""Run a function in a resource-limited forked process, for reading untrusted files.

A forked process inherits the parent's imported modules and computed values. It sends its results
through a pipe, as JSON of limited size. If it dies, the parent continues and gets the reason.
"""

import ctypes
import json
import multiprocessing.connection
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

FORK = multiprocessing.get_context("fork")
PR_SET_PDEATHSIG = 1
Send = Callable[[dict], None]


class BoundError(Exception):
    """The process ended without a result; the message gives the reason."""


class MachineError(RuntimeError):
    """A fault of the machine that is unrelated to the submission."""


@dataclass(frozen=True)
class ProcessLimits:
    """Limits of one process; those of the sandbox that it starts are in monitor.Limits."""

    memory: int = 512 * 2**20  # bytes, in addition to memory shared with the parent
    cpu_seconds: int = 60
    seconds: float = 4 * 3600  # wall time
    message: int = 2**21  # bytes


class BoundedProcess:
    """Runs ``function(send, *arguments)``; ``send`` takes dictionaries that JSON can hold."""

    def __init__(
        self, function: Callable, *arguments: object, bounds: ProcessLimits = ProcessLimits()
    ):
        self.bounds, self.deadline = bounds, time.monotonic() + bounds.seconds
        self.ended: str | None = None  # why the process failed, if it did
        self.killed = False  # from outside, for example because the machine is out of memory
        self.connection, theirs = FORK.Pipe(duplex=False)
        whole = (function, arguments, bounds, theirs, os.getpid())
        self.process = FORK.Process(target=_inside, args=whole)
        self.process.start()
        theirs.close()

    def message(self) -> dict[str, Any] | None:
        """Return the next message, or None at the end, when ``ended`` gives the reason."""
        try:
            return self._receive()
        except EOFError:
            self._end()
        except BoundError as error:
            self._end(str(error))
        return None

    def _receive(self) -> dict[str, Any]:
        """Return a message; raise EOFError after the last one, BoundError if the process failed."""
        if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
            raise BoundError(f"took more than {self.bounds.seconds:.0f} s of wall time")
        try:
            found = json.loads(self.connection.recv_bytes(self.bounds.message))
        except OSError as error:
            if not self.connection.closed:  # the process died while it was sending
                raise EOFError from error
            raise BoundError(f"sent more than {self.bounds.message} bytes of results") from error
        except (ValueError, RecursionError) as error:
            raise BoundError(f"sent an unreadable message: {error}") from error
        if not isinstance(found, dict):
            what = f"expected an object, got {type(found).__name__}"
            raise BoundError(f"sent an unreadable message: {what}")
        if "end" in found:
            raise EOFError if found["end"] is None else BoundError(str(found["end"]))
        return found

    def _end(self, why: str | None = None) -> None:
        """Wait for the process to end; kill it first if there is a reason why it failed."""
        self.ended = why
        if why is not None:
            self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.connection.close()
        if code == -signal.SIGXCPU:
            self.ended = f"took more than {self.bounds.cpu_seconds} s of CPU time"
        elif code and why is None:
            self.killed = code == -signal.SIGKILL
            self.ended = f"was killed by signal {-code}" if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        """Kill the process."""
        if self.process.is_alive():
            self._end("was stopped")


def call(
    function: Callable, *arguments: object, bounds: ProcessLimits = ProcessLimits()
) -> dict[str, Any]:
    """Call ``function(*arguments)`` in its own process; raise BoundError if that dies."""
    child = BoundedProcess(_once, function, arguments, bounds=bounds)
    found = child.message()
    if found is not None:
        child.message()
    if found is None or child.ended is not None:
        raise BoundError(child.ended or "ended without a result")
    return found


def _once(send: Send, function: Callable, arguments: tuple) -> None:
    send(function(*arguments))


def _inside(
    function: Callable,
    arguments: tuple,
    bounds: ProcessLimits,
    connection: multiprocessing.connection.Connection,
    parent: int,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # drop the parent's handlers
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has already died
        os._exit(1)
    # Set only the soft limits: the programs around the sandbox set their own limits.
    used = psutil.Process().memory_info().vms
    for what, bound in (
        (resource.RLIMIT_AS, used + bounds.memory),
        (resource.RLIMIT_CPU, bounds.cpu_seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (bound, resource.getrlimit(what)[1]))

    def send(message: dict) -> None:
        connection.send_bytes(json.dumps(message).encode())

    try:
        function(send, *arguments)
        send({"end": None})
    except MachineError as error:
        send({"end": f"had to stop: {error}"})
    except MemoryError:
        send({"end": f"needed more than {bounds.memory // 2**20} MiB of memory"})
    except Exception:
        send({"end": f"failed:\n{traceback.format_exc()[-1500:]}"})
