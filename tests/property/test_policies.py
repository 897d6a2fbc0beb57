"""Policies against dictionaries: what is said, what holds, and what becomes of what is cached by it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from forebay.cache import Cache
from forebay.cache.policies.policy import NAMES, Policy
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound
from forebay.testing.faulty import FaultyStorage

# Each object is one block; an object and a directory of one name, and a name that begins as another does.
OBJECTS: Final = {"a": 100, "ab": 2_000, "d/a": 5_000, "d/e/f": 300, "d/e": 40_000}
PLACES: Final = ["", "a", "ab", "d", "d/a", "d/e", "d/e/f", "absent"]
SETTLES_S_MAX: Final = 120.0

which = st.integers(0, 1)
paths = st.sampled_from(sorted(OBJECTS))
places = st.sampled_from(PLACES)
# So long that it matters to none how long a test takes, and no sum of the steps comes near to one.
times = st.sampled_from([0.0, 10_000.0, 100_000.0])
steps = st.sampled_from([3_700.0, 21_100.0])
values: Final[dict[str, st.SearchStrategy[Any]]] = {
    "pin": st.booleans(),
    "skip": st.booleans(),
    "read_bytes_max": st.sampled_from([200, 3_000]),
    "ttl_s": times,
    "max_age": st.sampled_from([0.0, 5.0, "immutable"]),
    "retention": st.sampled_from(["epoch", "s3fifo", "lru"]),
    "medium": st.sampled_from(["MEM", "SSD"]),
}
fields = st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in values.items()})

Said = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Cached:
    """An object that is cached: whether it is pinned, and when it expires."""

    is_pinned: bool
    expires_at_s: float | None


class PolicyMachine(RuleBasedStateMachine):
    """Two users of one cache directory, and what both must find said."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="forebay-policies-", dir="/dev/shm"))
        self.storage = FaultyStorage({path: bytes(size) for path, size in OBJECTS.items()})
        self.said: Said = {}
        self.cached: dict[str, Cached] = {}
        self.now_s = 0.0
        self.caches: list[Cache] = []

    @initialize()
    def begin(self) -> None:
        self.caches = [self.open(), self.open()]
        self.caches[0].attach("d", "faulty://x", max_age=None)

    def open(self) -> Cache:
        tiers = [Tier(str(self.folder / "tier"), 64 * MIB, "MEM")]
        return Cache(self.folder / "cache", tiers, block_bytes=64 * KIB, schemes=self.storage.schemes())

    def teardown(self) -> None:
        try:
            for cache in self.caches:
                assert cache.check().ok
                cache.close()
        finally:
            shutil.rmtree(self.folder)

    # ---- the model

    def holds(self, path: str) -> dict[str, Any]:
        """Return what holds for a path: of each thing the deepest word."""
        found: dict[str, Any] = {}
        for place in sorted(self.said, key=len):
            if is_at_or_below(path, place):
                found |= self.said[place]
        return found

    def say(self, place: str, new: dict[str, Any]) -> None:
        said = self.said.get(place, {}) | new
        self.said[place] = {name: value for name, value in said.items() if value is not None}
        self.said = {place: said for place, said in self.said.items() if said}

    def say_all(self, place: str, name: str, value: Any) -> None:
        """Say one thing of all at and below a place; what would hold anyway is not said."""
        for each in list(self.said):
            if is_at_or_below(each, place):
                self.say(each, {name: None})
        if value or self.holds(place).get(name):
            self.say(place, {name: value})

    def there(self, place: str) -> list[str]:
        """Return what is cached at and below a place and has not expired."""
        return [
            path
            for path, cached in self.cached.items()
            if is_at_or_below(path, place)
            and (cached.expires_at_s is None or cached.expires_at_s > self.now_s)
        ]

    def offer(self, path: str, asked_bytes: int | None) -> None:
        """Admit an object on the terms that hold for it, or not."""
        held = self.holds(path)
        most = held.get("read_bytes_max")
        is_too_much = asked_bytes is not None and most is not None and asked_bytes > most
        if not held.get("skip") and not is_too_much:
            seconds = held.get("ttl_s")
            expires_at_s = self.now_s + seconds if seconds else None
            self.cached[path] = Cached(bool(held.get("pin")), expires_at_s)

    # ---- what is said

    @rule(by=which, place=places, new=fields)
    def set_policy(self, by: int, place: str, new: dict[str, Any]) -> None:
        """Of one path; what is cached stays as it is, and deeper words as they are."""
        found = self.caches[by].set_policy(label(place), **new)
        self.say(place, new)
        assert found.to_json() == self.said.get(place, {})

    @rule(place=places, one=fields, other=fields)
    def set_at_once(self, place: str, one: dict[str, Any], other: dict[str, Any]) -> None:
        """Nothing that only one of them says is lost; where they conflict, one of them wins."""
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(cache.set_policy, label(place), **new)
                for cache, new in zip(self.caches, (one, other), strict=True)
            ]
            for job in jobs:
                job.result()
        found = self.caches[0].policies(label(place)).get(label(place), Policy()).to_json()
        for name in one.keys() & other.keys():
            assert found.get(name) in (one[name], other[name])
        conflicts = {name: found.get(name) for name in one.keys() & other.keys()}
        self.say(place, one | other | conflicts)

    @rule(by=which, place=places)
    def clear(self, by: int, place: str) -> None:
        self.caches[by].clear_policy(label(place))
        self.said = {each: said for each, said in self.said.items() if not is_at_or_below(each, place)}

    @rule(by=which, place=places, is_pinned=st.booleans())
    def pin(self, by: int, place: str, is_pinned: bool) -> None:
        cache, there = self.caches[by], self.there(place)
        count = cache.pin(label(place)) if is_pinned else cache.unpin(label(place))
        assert count == len(there)
        self.say_all(place, "pin", is_pinned)
        self.cached |= {path: replace(self.cached[path], is_pinned=is_pinned) for path in there}

    @rule(by=which, place=places, seconds=times)
    def ttl(self, by: int, place: str, seconds: float) -> None:
        """0 is said of an object that is to stay for ever, below others that are not."""
        there = self.there(place)
        assert self.caches[by].ttl(label(place), seconds or None) == len(there)
        self.say_all(place, "ttl_s", seconds)
        expires_at_s = self.now_s + seconds if seconds else None
        self.cached |= {path: replace(self.cached[path], expires_at_s=expires_at_s) for path in there}

    # ---- what is cached

    @rule(by=which, path=paths, part=st.booleans())
    def read(self, by: int, path: str, part: bool) -> None:
        length = min(150, OBJECTS[path]) if part else OBJECTS[path]
        with self.caches[by].read(f"d/{path}", 0, 150 if part else None) as view:
            assert view == bytes(length)
        if path not in self.there(path):
            self.offer(path, length)

    @rule(by=which, place=places)
    def load(self, by: int, place: str) -> None:
        there = self.there("")
        wanted = [path for path in OBJECTS if is_at_or_below(path, place) and path not in there]
        try:
            result = self.caches[by].load(label(place)).wait()
        except NotFound:
            assert place == "absent"
            return
        # It tells of all that is never admitted, cached from earlier times or not.
        skipped = [path for path in OBJECTS if is_at_or_below(path, place) and self.holds(path).get("skip")]
        assert place == "absent" or result.state == ("incomplete" if skipped else "done")
        for path in wanted:
            self.offer(path, None)

    @rule(by=which, place=places)
    def free(self, by: int, place: str) -> None:
        """Pinned or not; what is said is left as it is."""
        self.caches[by].free(label(place))
        for path in self.there(place):
            del self.cached[path]

    @rule(seconds=steps)
    def pass_time(self, seconds: float) -> None:
        """A TTL beats a pin."""
        self.caches[0]._store.advance_clock(seconds)
        self.now_s += seconds

    @rule(by=which)
    def open_anew(self, by: int) -> None:
        self.caches[by].close()
        self.caches[by] = self.open()

    # ---- what must hold

    @invariant()
    def both_find_it(self) -> None:
        if not self.caches:
            return
        there = self.there("")
        for cache in self.caches:
            found = {place: policy.to_json() for place, policy in cache.policies("d").items()}
            assert found == {label(place): said for place, said in self.said.items()}
            for place in PLACES:
                policy = cache.policy(label(place))
                assert {name: getattr(policy, name) for name in NAMES} == {
                    **dict.fromkeys(NAMES),
                    **self.holds(place),
                }
            for path, size in OBJECTS.items():
                cached_bytes = cache._store.contains(self.key(cache, path)) * size
                assert cached_bytes == (size if path in there else 0), path
        pinned_bytes = sum(OBJECTS[path] for path in there if self.cached[path].is_pinned)
        self.wait_until(lambda: self.figure("pinned_bytes") == pinned_bytes, f"{pinned_bytes} bytes pinned")
        cached_bytes = sum(OBJECTS[path] for path in there)
        self.wait_until(lambda: self.figure("committed_bytes") == cached_bytes, f"{cached_bytes} bytes")

    def key(self, cache: Cache, path: str) -> bytes:
        """Return the key of an object's only block."""
        from forebay.cache.paths import block_key

        version = self.storage.stat(path).version
        return block_key(cache.datasets()[0].id, path, version, 0, 64 * KIB)

    def figure(self, name: str) -> int:
        return sum(int(tier[name]) for tier in self.caches[0].status()["tiers"])

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for the maintainer, who takes away what has expired."""
        gives_up_at = time.monotonic() + SETTLES_S_MAX
        while not condition():
            assert time.monotonic() < gives_up_at, what
            if not self.caches[0]._store.maintain():
                time.sleep(0.001)


def label(place: str) -> str:
    """Return the path of a place, that of the dataset itself for ""."""
    return f"d/{place}" if place else "d"


def is_at_or_below(path: str, place: str) -> bool:
    """Say whether a path is a place or lies below it."""
    return not place or path == place or path.startswith(f"{place}/")


def test_policies_against_a_dictionary() -> None:
    run_state_machine_as_test(
        PolicyMachine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
