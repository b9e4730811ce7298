"""Open untrusted archives, each in a resource-limited subprocess."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path

from grading.intake.archives import LeftOut, Member, unpacked
from grading.intake.collect import Budget, Opener, wanted
from grading.isolation.bounded_process import BoundError, ProcessLimits, call

OPENING = ProcessLimits(seconds=600, message=2**25)


def spooled(spool: Path) -> Opener:
    """Return an opener that unpacks the wanted files of an archive into a folder in ``spool``."""
    numbers = count()

    def opener(
        source: Path | bytes, name: str, level: int | None, budget: Budget
    ) -> Iterator[Member]:
        place = spool / str(next(numbers))
        place.mkdir(parents=True)
        bounds = replace(OPENING, cpu_seconds=ceil(budget.seconds))
        try:
            found = call(_unpack, source, name, place, level, budget.bytes, bounds=bounds)
        except BoundError:
            budget.seconds = 0
            raise
        budget.seconds -= found["seconds"]
        budget.bytes -= found["bytes"]
        for n, (member, there, problem, date, why) in enumerate(found["members"]):
            file = place / str(n) if there else None
            yield Member(member, file, problem, date, why and LeftOut(why))
        if found["problem"]:
            raise ValueError(found["problem"])

    return opener


def _unpack(source: Path | bytes, name: str, place: Path, level: int | None, most: int) -> dict:
    """Write the wanted files to ``place`` with numbers as names.

    The result has the members as (name, whether it was written, problem, date, why it is left out),
    the problem that ended the reading, and the cost in bytes and CPU seconds.
    """
    members: list[tuple] = []
    taken, problem = 0, ""
    try:
        for n, member in enumerate(unpacked(source, name, wanted, level, most)):
            content = member.content
            if isinstance(content, bytes):
                (place / str(n)).write_bytes(content)
                taken += len(content)
            members.append((member.name, content is not None, *member[2:]))
    except MemoryError:
        raise
    except Exception as error:  # corrupt archives raise many kinds of exceptions
        problem = str(error)[:300] or type(error).__name__
    seconds = sum(os.times()[:2])
    return {"members": members, "problem": problem, "bytes": taken, "seconds": seconds}
