"""What a dataset has cached, may have, and was counted for: exactly, while calls come one after another.

Each object is one block, so that whether it is admitted follows from the quota and from what is cached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.property._cache_source import Version

# What is counted exactly; "misses" is held by its sum where the cause of one is left open.
COUNTED: Final = (
    "hits_mem",
    "hit_bytes_mem",
    "misses_cold",
    "misses_not_admitted",
    "source_bytes",
    "load_bytes",
    "admitted",
    "admitted_bytes",
    "not_admitted",
    "not_admitted_bytes",
    "writes",
    "write_bytes",
)


@dataclass
class DatasetModel:
    """One attachment of a dataset, and all that is promised of its room and its account."""

    name: str
    uri: str
    is_cached_when_written: bool
    quota: int | None = None
    cached: dict[str, Version] = field(default_factory=dict)
    pins: dict[str, bool] = field(default_factory=dict)
    # What was refused once is told apart from what was never there; open: which of the two is not known.
    refused: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    counted: Counter[str] = field(default_factory=Counter)
    has_open_cause: bool = False
    # Counted, and not sent: by processes that were killed between the two.
    unsent: Counter[str] = field(default_factory=Counter)

    @property
    def cached_bytes(self) -> int:
        """The bytes of all that is cached."""
        return sum(length_of(version) for version in self.cached.values())

    @property
    def pinned_bytes(self) -> int:
        """The bytes of what is cached and pinned: a pin is of what is there, and of what comes."""
        return sum(length_of(version) for path, version in self.cached.items() if self.is_pinned(path))

    def is_pinned(self, path: str) -> bool:
        """Say whether the deepest word says so."""
        said = [word for place, word in sorted(self.pins.items()) if is_at_or_below(path, place)]
        return bool(said) and said[-1]

    def pin(self, place: str, *, is_pinned: bool) -> None:
        """Say it of all at and below a place."""
        self.pins = {other: word for other, word in self.pins.items() if not is_at_or_below(other, place)}
        if self.is_pinned(place) != is_pinned:
            self.pins[place] = is_pinned

    def has_room(self, versions: Iterable[Version]) -> bool:
        """Say whether all of these fit beside what is cached."""
        wanted_bytes = sum(map(length_of, versions))
        return self.quota is None or not wanted_bytes or self.cached_bytes + wanted_bytes <= self.quota

    def look_up(self, wanted: Mapping[str, Version]) -> dict[str, Version]:
        """Count looking for objects; return those that are not cached."""
        missing = {path: version for path, version in wanted.items() if path not in self.cached}
        for path, version in wanted.items():
            if path not in missing:
                self.counted["hits_mem"] += 1
                self.counted["hit_bytes_mem"] += length_of(version)
            elif version.etag in self.open:
                self.counted["misses_cold"] += 1
                self.has_open_cause = True
            elif version.etag in self.refused:
                self.counted["misses_not_admitted"] += 1
            else:
                self.counted["misses_cold"] += 1
        return missing

    def offer(self, path: str, version: Version) -> None:
        """Admit an object, or refuse it for want of room."""
        outcome = "admitted" if self.has_room([version]) else "not_admitted"
        self.counted[outcome] += 1
        self.counted[f"{outcome}_bytes"] += length_of(version)
        if outcome == "admitted":
            self.cached[path] = version
        else:
            self.refused.add(version.etag)

    def take_over(self, cached: Mapping[str, Version], missing: Mapping[str, Version]) -> None:
        """Go on with what is cached after offers in an order that nobody knows.

        What was cached stays. What was refused had no room at that time, and so has none beside all of it.
        """
        assert self.cached.items() <= cached.items(), (self.cached, cached)
        new = {path: version for path, version in cached.items() if path not in self.cached}
        assert new.keys() <= missing.keys(), (new, missing)
        if self.quota is not None and new:
            assert sum(map(length_of, cached.values())) <= self.quota
        refused = {path: version for path, version in missing.items() if path not in new}
        self.cached = dict(cached)
        assert not any(self.has_room([version]) for version in refused.values()), (refused, cached)
        self.counted["admitted"] += len(new)
        self.counted["admitted_bytes"] += sum(map(length_of, new.values()))
        self.open |= {version.etag for version in refused.values()}

    def drop(self, place: str) -> None:
        """Free all at and below a place."""
        for path in [path for path in self.cached if is_at_or_below(path, place)]:
            del self.cached[path]

    def write(self, path: str, version: Version) -> None:
        """Count a write; the old version goes once the new one was offered."""
        self.counted["writes"] += 1
        self.counted["write_bytes"] += length_of(version)
        old = self.cached.pop(path, None)
        if self.is_cached_when_written:
            # The old version is still there when the new one is offered.
            kept = {} if old is None else {f"{path} before": old}
            self.cached |= kept
            self.offer(path, version)
            for name in kept:
                del self.cached[name]

    def judge(self, status: Mapping[str, Any], sent: Mapping[str, int]) -> None:
        """Hold a status, and the account in it, to the model; sent: requests by the storage's own log."""
        (record,) = (each for each in status["attached"] if each["name"] == self.name)
        found = status["datasets"][record["id"]]
        assert (found["committed_bytes"], found["blocks"]) == (self.cached_bytes, len(self.cached))
        assert found["pinned_bytes"] == self.pinned_bytes
        assert found["quota_bytes"] == record["quota_bytes"] == self.quota
        counters = found["counters"]
        if self.has_open_cause:
            causes = ("misses_cold", "misses_not_admitted")
            assert sum(counters[name] for name in causes) == sum(self.counted[name] for name in causes)
            for name in causes:
                self.counted[name] = counters[name]
            self.has_open_cause = False
        differing = [name for name in COUNTED if counters[name] != self.counted[name]]
        assert not differing, {name: (counters[name], self.counted[name]) for name in differing}
        self._judge_account(status["accounts"][self.name], sent)

    def _judge_account(self, account: Mapping[str, Any], sent: Mapping[str, int]) -> None:
        requests = {kind: sent[kind] + self.unsent[kind] for kind in account["requests"]}
        assert account["requests"] == requests
        assert account["class_a"] == requests["lists"] + requests["puts"]
        assert account["class_b"] == requests["gets"] + requests["heads"]
        counted = self.counted
        assert account["bytes"]["MEM"] == counted["hit_bytes_mem"]
        assert account["bytes"]["source"] == counted["source_bytes"]
        assert account["written_bytes"] == counted["write_bytes"]
        assert account["hits"] == counted["hits_mem"]
        misses = counted["misses_cold"] + counted["misses_not_admitted"]
        assert sum(account["misses"].values()) == misses
        assert account["saved_requests"] == counted["hits_mem"] + misses - requests["gets"]
        assert account["saved_bytes"] == counted["hit_bytes_mem"] - counted["load_bytes"]


def length_of(version: Version) -> int:
    """Return the length of an object."""
    assert version.length is not None
    return version.length


def is_at_or_below(path: str, place: str) -> bool:
    """Say whether a path is a place or lies below it."""
    return path == place or path.startswith(f"{place}/")
