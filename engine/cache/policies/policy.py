"""What can be said of a path, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from forebay.cache.attach import RETENTIONS
from forebay.config import MEDIA, nearest, parse_bytes
from forebay.errors import ConfigError

IMMUTABLE: Final = "immutable"
_REPLICAS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """What is said of one path; None: nothing, so that what is said further up holds, or the dataset's own.

    pin: kept from eviction. skip: never admitted. read_bytes_max: only what reads of at most so many bytes
    ask for is admitted, and what loads bring. ttl_s: freed so many seconds after it was admitted; 0 is never.
    max_age: seconds for which an answer of the under storage holds, or "immutable". retention and medium: how
    it gives way, and the tier that is tried first. replicas_at_least, replicas_at_most: on how many members
    of a group each block is to lie, and may.
    """

    pin: bool | None = None
    skip: bool | None = None
    read_bytes_max: int | None = None
    ttl_s: float | None = None
    max_age: float | str | None = None
    retention: str | None = None
    medium: str | None = None
    replicas_at_least: int | None = None
    replicas_at_most: int | None = None

    @property
    def replicas(self) -> int:
        """On how many members of a group a block is to lie."""
        return self.replicas_at_least or 1

    def over(self, above: Policy) -> Policy:
        """Return what holds here, given what holds one level further up."""
        said, further_up = self.to_json(), above.to_json()
        return Policy(**{**further_up, **said})

    def without(self, *names: str) -> Policy:
        """Return it with nothing said of these."""
        return replace(self, **dict.fromkeys(names))

    def to_json(self) -> dict[str, Any]:
        """Return what is said as plain data."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}


NAMES: Final = tuple(one.name for one in fields(Policy))
NOTHING: Final = Policy()


def checked(values: Mapping[str, Any]) -> Policy:
    """Return a policy of what a user gave. Raises: ConfigError (names the field and what it takes)."""
    for name in values:
        if name not in NAMES:
            raise ConfigError(f"{name}: a policy has no such field{nearest(name, NAMES)}")
    given = {name: _CHECKS[name](name, value) for name, value in values.items() if value is not None}
    policy = Policy(**given)
    if policy.replicas > (policy.replicas_at_most or policy.replicas):
        raise ConfigError(
            f"replicas_at_most: {policy.replicas_at_most} is less than the {policy.replicas} there are to be"
        )
    return policy


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: {value!r} is neither true nor false")
    return value


def _size(name: str, value: int | str) -> int:
    return parse_bytes(value, name)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigError(f"{name}: {value!r} is no number of seconds, 0 or more")
    return float(value)


def _age(name: str, value: object) -> float | str:
    if value == IMMUTABLE:
        return IMMUTABLE
    try:
        return _seconds(name, value)
    except ConfigError:
        raise ConfigError(f"{name}: {value!r} is neither {IMMUTABLE!r} nor seconds, 0 or more") from None


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _REPLICAS_MAX:
        raise ConfigError(f"{name}: {value!r} is no number of members from 1 to {_REPLICAS_MAX}")
    return value


def _retention(name: str, value: object) -> str:
    return _one_of(name, value, RETENTIONS)


def _medium(name: str, value: object) -> str:
    return _one_of(name, value, MEDIA)


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(
            f"{name}: {value!r} is unknown{nearest(str(value), known)}; there are {', '.join(known)}"
        )
    return str(value)


_CHECKS: Final[Mapping[str, Any]] = {
    "pin": _flag,
    "skip": _flag,
    "read_bytes_max": _size,
    "ttl_s": _seconds,
    "max_age": _age,
    "retention": _retention,
    "medium": _medium,
    "replicas_at_least": _count,
    "replicas_at_most": _count,
}
