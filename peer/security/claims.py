"""What a token allows: verbs, on which datasets, from which networks, and from when to when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from forebay.cache.paths import check_dataset_name, check_version_name, split_path
from forebay.errors import ConfigError
from forebay.peer.paths import encoded

Network = IPv4Network | IPv6Network

# In place of the prefixes: all datasets there are and will be, and the group itself.
ALL: Final = "*"

_ITEMS_MAX: Final = 64
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TIME_MAX: Final = 1 << 40


class Verb(StrEnum):
    """What somebody may do. The table of permissions says which call takes which."""

    READ = "read"
    LIST = "list"
    WRITE = "write"
    LOAD = "load"
    MANAGE = "manage"
    ADMIN = "admin"
    PEER = "peer"


_OF_THE_GROUP: Final = frozenset({Verb.ADMIN, Verb.PEER})


@dataclass(frozen=True, slots=True)
class Claims:
    """What one token says; times are seconds since 1970. No networks: from anywhere.

    signer is no claim but the public key, raw, that a token was verified with; empty where none was.
    A prefix is a dataset or a path in one, ``imagenet/train``, and means it and all below it; that of a
    dataset holds for its versions too. Raises, when made: ConfigError (says which claim is no good).
    """

    id: str
    datasets: tuple[str, ...]
    verbs: frozenset[Verb]
    networks: tuple[Network, ...]
    not_before: int
    expires: int
    signer: bytes = field(default=b"", compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check every claim."""
        if not _ID.fullmatch(self.id):
            raise ConfigError("a token's id: use 1 to 64 letters, digits, '.', '_' and '-'")
        if not self.datasets:
            raise ConfigError(f"a token names at least one dataset, or {ALL!r} for all")
        if not self.verbs:
            raise ConfigError(f"a token has at least one verb; there are {', '.join(Verb)}")
        for verb in _OF_THE_GROUP & self.verbs:
            if self.datasets != (ALL,):
                raise ConfigError(f"a token with the verb {verb} is for all datasets: {ALL!r}")
        if max(len(self.datasets), len(self.networks)) > _ITEMS_MAX:
            raise ConfigError(f"a token names at most {_ITEMS_MAX} datasets, and as many networks")
        for prefix in self.datasets:
            _check_prefix(prefix)
        for time in (self.not_before, self.expires):
            if not 0 <= time < _TIME_MAX:
                raise ConfigError(f"a token's time: {time!r} is none in seconds since 1970")
        if self.expires <= self.not_before:
            raise ConfigError("a token expires after it has begun")

    @classmethod
    def of(
        cls,
        *,
        id: str,
        datasets: Iterable[str],
        verbs: Iterable[str],
        networks: Iterable[str],
        not_before: int,
        expires: int,
    ) -> Claims:
        """Make claims of plain text and numbers. Raises: ConfigError."""
        return cls(
            id,
            tuple(_texts(datasets, "datasets")),
            frozenset(map(_verb, _texts(verbs, "verbs"))),
            tuple(map(_network, _texts(networks, "networks"))),
            not_before,
            expires,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the claims as plain values."""
        return {
            "id": self.id,
            "datasets": list(self.datasets),
            "verbs": sorted(self.verbs),
            "networks": list(map(str, self.networks)),
            "not_before": self.not_before,
            "expires": self.expires,
        }

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Claims:
        """Read what ``to_bytes`` wrote; an unknown claim is refused, for it may be a restriction.

        Raises: ConfigError.
        """
        try:
            values = json.loads(encoded)
        except (ValueError, RecursionError):
            raise ConfigError("a token's claims are not JSON") from None
        claims = [each.name for each in fields(cls) if each.compare]
        if not isinstance(values, dict) or values.keys() != set(claims):
            raise ConfigError(f"a token has the claims {', '.join(claims)} and no others")
        for claim, kind in (("id", str), ("not_before", int), ("expires", int)):
            if type(values[claim]) is not kind:
                raise ConfigError(f"a token's {claim}: not of the kind that it has to be")
        return cls.of(**values)

    def to_bytes(self) -> bytes:
        """Return the claims in the form that is signed."""
        return json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True).encode("ascii")

    def may(self, verbs: frozenset[Verb]) -> bool:
        """Say whether the token has one of these verbs; ``peer`` stands for all of them."""
        return Verb.PEER in self.verbs or not verbs.isdisjoint(self.verbs)

    def covers(self, dataset: str, path: bytes) -> bool:
        """Say whether the path, whole and plain, is at or below one of the prefixes."""
        if ALL in self.datasets:
            return True
        name = dataset.partition("@")[0]
        for prefix in self.datasets:
            of, below = _split_prefix(prefix)
            if of in (dataset, name) and (not below or path == below or path.startswith(below + b"/")):
                return True
        return False

    def covers_group(self) -> bool:
        """Say whether the token holds for all datasets and what belongs to none."""
        return ALL in self.datasets

    def allows_from(self, address: str) -> bool:
        """Say whether it may be used from this address; one that is no IP address is in no network."""
        if not self.networks:
            return True
        found = ip_of(address)
        return found is not None and any(found in network for network in self.networks)


def ip_of(address: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a text is; one of IPv4 in the form of IPv6 as what it is."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


@lru_cache(maxsize=1024)
def _split_prefix(prefix: str) -> tuple[str, bytes]:
    dataset, _, rest = prefix.partition("/")
    return dataset, encoded(rest)


def _check_prefix(prefix: str) -> None:
    if prefix == ALL:
        return
    try:
        dataset, _ = split_path(prefix)
        name, at, version = dataset.partition("@")
        check_dataset_name(name)
        if at:
            check_version_name(version)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a token's dataset: {error}") from None
    if prefix.endswith("/"):
        raise ConfigError(f"a token's dataset: {prefix!r} ends in a slash; leave it away")


def _texts(value: Iterable[str], claim: str) -> list[str]:
    items = list(value) if isinstance(value, list | tuple | set | frozenset) else [None]
    if not all(isinstance(item, str) for item in items):
        raise ConfigError(f"a token's {claim}: expected a list of texts")
    return [str(item) for item in items]


def _verb(text: str) -> Verb:
    try:
        return Verb(text)
    except ValueError:
        raise ConfigError(f"a token's verb: {text!r} is unknown; there are {', '.join(Verb)}") from None


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"a token's network: {error}; write for example 10.0.0.0/8") from None
