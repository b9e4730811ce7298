"""Parse times and deadlines, and determine which deadline a submission has missed.

After the soft deadline students get a mark and remarks. They may submit corrections until the hard
deadline. A submission after the soft deadline gets at most ``cap`` points, one after the hard
deadline none.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from grading.csv_tables import read_table
from grading.intake.names import squeezed
from grading.result import Missed

DAY = "%Y-%m-%d"
# Moodle's English formats, international and US, with 12 or 24 hours.
MOODLE = tuple(
    f"{date}, {hour}"
    for date in ("%A, %d %B %Y", "%A, %B %d, %Y", "%d %B %Y", "%B %d, %Y")
    for hour in ("%I:%M %p", "%H:%M")
)
FILES = "the dates of files, which can be forged"


def timezone(name: str) -> ZoneInfo:
    """Return the time zone with this name; raise ValueError if it is unknown."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: name is a folder
        raise ValueError(f"expected a time zone such as Europe/Berlin, got {name!r}") from None


def moment(text: str, zone: tzinfo | None = None) -> datetime:
    """Parse a time in ISO 8601 or in Moodle's English format; raise ValueError otherwise.

    A time without a zone ("…Z", "…+02:00", "… Europe/Berlin") is in ``zone`` or, if that is None,
    in this machine's zone.
    """
    text = " ".join(text.split())
    front, _, last = text.rpartition(" ")
    if front and ("/" in last or last == "UTC"):
        text, zone = front, timezone(last)
    found = _parsed(text)
    if found is None:
        expected = "a time such as 2026-01-31T18:00, 2026-01-31T18:00+01:00 or in Moodle's format"
        raise ValueError(f"expected {expected} (in English), got {text!r}")
    return found if found.tzinfo else local(found, zone)


def local(time: datetime, zone: tzinfo | None) -> datetime:
    """Attach ``zone``, or this machine's zone, to a time without a zone."""
    return time.astimezone() if zone is None else time.replace(tzinfo=zone)


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in MOODLE:
        try:
            return datetime.strptime(text, form)  # the caller adds the zone
        except ValueError:
            continue
    return None


def deadline(text: str, zone: tzinfo | None = None) -> datetime:
    """Parse a time or a day; a day stands for its end."""
    try:
        day = datetime.strptime(text.strip(), DAY) + timedelta(days=1)
    except ValueError:
        return moment(text, zone)
    end = day.astimezone() if zone is None else day.replace(tzinfo=zone)
    return (end.astimezone(UTC) - timedelta(microseconds=1)).astimezone(zone)


class HandedIn(NamedTuple):
    """The time of a submission and the source of that time."""

    time: datetime
    source: str


@dataclass(frozen=True)
class Deadlines:
    soft: datetime | None = None
    hard: datetime | None = None
    cap: float = 80.0  # the maximum of points for a late submission
    zone: tzinfo | None = None  # the zone of displayed times

    def __post_init__(self) -> None:
        if self.soft and self.hard and self.soft > self.hard:
            raise ValueError(
                f"expected the soft deadline ({self.shown(self.soft)}) before the hard one "
                f"({self.shown(self.hard)})"
            )
        if not 0 <= self.cap <= 100:
            raise ValueError(f"expected a cap from 0 to 100 points, got {self.cap:g}")

    def shown(self, time: datetime) -> str:
        return f"{time.astimezone(self.zone):%Y-%m-%d %H:%M %Z}"

    def missed(self, time: datetime) -> Missed | None:
        """Return the last deadline before ``time``."""
        for missed, limit in ((Missed.HARD, self.hard), (Missed.SOFT, self.soft)):
            if limit and time.astimezone(UTC) > limit.astimezone(UTC):
                return missed
        return None

    def most(self, missed: Missed | None) -> float:
        """Return the maximum of points for a submission."""
        return {None: 100.0, Missed.SOFT: self.cap, Missed.HARD: 0.0}[missed]


def read_times(file: Path, zone: tzinfo | None = None) -> list[tuple[str, str, datetime]]:
    """Read a table with the columns name and time; return file and line, name and time of each row.

    Raise ValueError with the line for an invalid time and for a name without letters or digits,
    which would match every name.
    """
    table, found = read_table(file, ("name", "time")), []
    for row in table.rows:
        at, name = table.at(row), row.cells["name"]
        if not squeezed(name):
            raise ValueError(f"{at}: expected a name with letters or digits, got {name!r}")
        try:
            found.append((at, name, moment(row.cells["time"], zone)))
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from None
    return found
