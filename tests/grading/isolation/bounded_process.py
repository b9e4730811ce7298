"""A process of its own, with bounds, for whatever reads what strangers wrote.

It is forked, so that what was imported and computed before is there at once. What it finds comes
over a pipe as JSON of a bounded size; if it dies, whoever started it goes on and knows why.
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

import psutil

FORK = multiprocessing.get_context("fork")
PR_SET_PDEATHSIG = 1
Send = Callable[[dict], None]


class BoundError(Exception):
    """The process ended before it was done; the message says why."""


class MachineError(RuntimeError):
    """The machine is at fault, so nothing follows about what was handed in."""


@dataclass(frozen=True)
class Bounds:
    """Of one process; what it starts in the sandbox has bounds of its own."""

    memory: int = 512 * 2**20  # bytes, besides what it shares with whoever started it
    cpu_seconds: int = 60
    seconds: float = 4 * 3600  # by the clock
    message: int = 2**21  # bytes


class Child:
    """``function(send, *arguments)`` in a process; ``send`` takes dicts of what JSON can hold."""

    def __init__(self, function: Callable, *arguments: object, bounds: Bounds = Bounds()):
        self.bounds, self.deadline = bounds, time.monotonic() + bounds.seconds
        self.ended = ""  # why it ended badly
        self.killed = False  # from outside: not what it was doing, but the machine
        self.connection, theirs = FORK.Pipe(duplex=False)
        whole = (function, arguments, bounds, theirs, os.getpid())
        self.process = FORK.Process(target=_inside, args=whole)
        self.process.start()
        theirs.close()

    def message(self) -> dict | None:
        """The next message, waited for; None when there are no more, and ``ended`` says how."""
        if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
            return self._end(f"took more than {self.bounds.seconds:.0f} s by the clock")
        try:
            found = json.loads(self.connection.recv_bytes(self.bounds.message))
        except EOFError:
            return self._end("")
        except OSError as error:
            if "end of file" in str(error):  # it died while it was saying this
                return self._end("")
            return self._end(f"found more than {self.bounds.message} bytes of results")
        if "end" not in found:
            return found
        return self._end(found["end"])

    def _end(self, why: str) -> None:
        self.ended = why
        if why:
            self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.connection.close()
        if code == -signal.SIGXCPU:
            self.ended = f"took more than {self.bounds.cpu_seconds} s of the processor"
        elif code and not why:
            self.killed = code == -signal.SIGKILL
            self.ended = f"was killed by signal {-code}" if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.is_alive():
            self._end("was stopped")


def call(function: Callable, *arguments: object, bounds: Bounds = Bounds()) -> dict:
    """What ``function(*arguments)`` returns in a process of its own; BoundError if it dies."""
    child = Child(_once, function, arguments, bounds=bounds)
    found = child.message()
    if found is not None:
        child.message()
    if found is None or child.ended:
        raise BoundError(child.ended or "nothing came out")
    return found


def _once(send: Send, function: Callable, arguments: tuple) -> None:
    send(function(*arguments))


def _inside(
    function: Callable,
    arguments: tuple,
    bounds: Bounds,
    connection: multiprocessing.connection.Connection,
    parent: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked to die with it
        os._exit(1)
    # The soft limits only: programs in the sandbox set their own.
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
        send({"end": ""})
    except MachineError as error:
        send({"end": f"had to stop: {error}"})
    except MemoryError:
        send({"end": f"needed more than {bounds.memory // 2**20} MiB of memory"})
    except Exception:
        send({"end": f"failed:\n{traceback.format_exc()[-1500:]}"})
