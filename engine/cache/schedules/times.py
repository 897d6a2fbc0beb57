"""Times of the wall clock: cron expressions and times of day in a time zone, as seconds since 1970.

Cron expressions are read by cronsim, which does as Debian's cron: five fields, Sunday is 0 and 7, days of the
month and of the week are alternatives where both are restricted. Where summer time begins, a time that the
clock leaves out comes right after it; where it ends, a time of day comes once, and "every so often" goes on
by the time that passes. (APScheduler's triggers take 0 for Monday and have a time of day twice.)
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from forebay.errors import ConfigError

_UTC_NAME: Final = "UTC"
# cronsim has a sixth for seconds, by other rules.
_CRON_FIELDS: Final = 5


def local_zone() -> str:
    """Return the name of the machine's time zone, from TZ or /etc; UTC where none is set.

    Raises: ConfigError (it has no name that could be kept).
    """
    from tzlocal import get_localzone_name

    try:
        name = get_localzone_name() or _UTC_NAME
        zone = zone_of(name)
    except (LookupError, ValueError, OSError) as error:
        raise ConfigError(f"the machine's time zone: {error}; name one with timezone") from error
    now = datetime.now(UTC)
    # TZ may hold rules in place of a name, and /etc/localtime be a file of its own.
    if now.astimezone(zone).utcoffset() != now.astimezone().utcoffset():
        raise ConfigError(
            f"the machine's time zone, {now.astimezone():%Z}, has no name; name one with timezone"
        )
    return name


def zone_of(name: str) -> tzinfo:
    """Return the time zone of that name. Raises: ConfigError."""
    if name == _UTC_NAME:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"timezone: no {name!r} is known here; write a name such as 'Europe/Berlin', "
            "and where that is not known either, install tzdata"
        ) from error


def moment_of(at: datetime, timezone: str | None) -> float:
    """Return a time, one without an offset being of the time zone, or of the machine's.

    Raises: ConfigError.
    """
    if at.tzinfo is not None:
        if timezone is not None:
            raise ConfigError(f"timezone: {at.isoformat()} has an offset of its own; leave one of them out")
        return at.timestamp()
    return at.replace(tzinfo=zone_of(timezone or local_zone())).timestamp()


def next_time(expression: str, timezone: str, after: float) -> float:
    """Return the first time later than after at which a cron expression comes due.

    Raises: ConfigError (no such expression, or one that never comes due; no such time zone).
    """
    from cronsim import CronSim, CronSimError

    if len(expression.split()) != _CRON_FIELDS:
        raise ConfigError(
            f"cron: {expression!r}: write five fields, minute hour day month weekday, as in '0 3 * * *'"
        )
    try:
        # It may give a time of the hour that comes twice, where that has begun again.
        for found in CronSim(expression, datetime.fromtimestamp(after, zone_of(timezone))):
            if found.timestamp() > after:
                return found.timestamp()
    except CronSimError as error:
        words = str(error).lower()
        raise ConfigError(f"cron: {expression!r}: {words}") from error
    raise ConfigError(f"cron: {expression!r} never comes due")
