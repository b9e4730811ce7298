"""Archives of strangers, each opened in a process of its own, with bounds."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from archives import Member, unpacked
from bounded import Bounds, call
from package import Opener, wanted

OPENING = Bounds(cpu_seconds=30, seconds=600, message=2**24)
INNER = 2**27  # bytes of all that is taken out of an archive in an archive


def spooled(spool: Path) -> Opener:
    """Takes what is wanted of an archive out into numbered files in ``spool``."""
    numbers = count()

    def opener(source: Path | bytes, name: str) -> Iterator[Member]:
        place = spool / str(next(numbers))
        place.mkdir(parents=True)
        most = {"most": INNER} if spool in source.parents else {}
        found = call(_take_out, source, name, place, most, bounds=OPENING)
        for n, (member, there, problem) in enumerate(found["members"]):
            yield Member(member, place / str(n) if there else None, problem)
        if found["problem"]:
            raise ValueError(found["problem"])

    return opener


def _take_out(source: Path, name: str, place: Path, most: dict) -> dict:
    """The members as (name, whether its content was taken out, problem), and why it ended early."""
    members: list[tuple[str, bool, str]] = []
    try:
        for n, member in enumerate(unpacked(source, name, wanted, **most)):
            there = member.content is not None
            if there:
                (place / str(n)).write_bytes(member.content)
            members.append((member.name, there, member.problem))
    except MemoryError:
        raise
    except Exception as error:  # the readers of archives raise many kinds on a corrupt one
        return {"members": members, "problem": str(error)[:300] or type(error).__name__}
    return {"members": members, "problem": ""}
