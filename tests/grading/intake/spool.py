"""Archives of strangers, each opened in a process of its own, with bounds."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path

from grading.intake.archives import Member, unpacked
from grading.intake.collect import Budget, Opener, wanted
from grading.isolation.bounded_process import BoundError, Bounds, call

OPENING = Bounds(seconds=600, message=2**25)


def spooled(spool: Path) -> Opener:
    """Takes what is wanted of an archive out into numbered files in ``spool``."""
    numbers = count()

    def opener(
        source: Path | bytes, name: str, share: Callable[[str], str], budget: Budget
    ) -> Iterator[Member]:
        place = spool / str(next(numbers))
        place.mkdir(parents=True)
        bounds = replace(OPENING, cpu_seconds=ceil(budget.seconds))
        try:
            found = call(_take_out, source, name, place, share, budget.bytes, bounds=bounds)
        except BoundError:
            budget.seconds = 0
            raise
        budget.seconds -= found["seconds"]
        budget.bytes -= found["bytes"]
        for n, (member, there, problem) in enumerate(found["members"]):
            yield Member(member, place / str(n) if there else None, problem)
        if found["problem"]:
            raise ValueError(found["problem"])

    return opener


def _take_out(source: Path, name: str, place: Path, share: Callable[[str], str], most: int) -> dict:
    """The members as (name, whether its content was taken out, problem), why it ended early, cost.

    Bytes on disk, seconds of the processor.
    """
    members: list[tuple[str, bool, str]] = []
    taken, problem = 0, ""
    try:
        for n, member in enumerate(unpacked(source, name, wanted, share, most)):
            there = member.content is not None
            if there:
                (place / str(n)).write_bytes(member.content)
                taken += len(member.content)
            members.append((member.name, there, member.problem))
    except MemoryError:
        raise
    except Exception as error:  # the readers of archives raise many kinds on a corrupt one
        problem = str(error)[:300] or type(error).__name__
    seconds = sum(os.times()[:2])
    return {"members": members, "problem": problem, "bytes": taken, "seconds": seconds}
