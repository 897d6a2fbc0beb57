"""The reference: a dict that knows, for every key, what a get may return by now."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.property._process import Digest, Value, digest_of

# An expiry is rounded up to a second, and the clock that it is compared with down.
_EXPIRY_BLUR_S = 2.0


@dataclass
class Expected:
    """What may be found under one key: one of the values, or nothing unless it is surely there."""

    values: set[Value] = field(default_factory=set)
    surely: bool = False
    dataset: int = 0
    deadline: tuple[float, float] | None = None  # surely there before, surely gone after
    pinned: bool = False
    pin_unsure: bool = False
    # What a killed writer may have left, complete but unpublished: found again when the index is rebuilt.
    leftovers: set[Value] = field(default_factory=set)


class Model:
    """Promises of the store, weakened where eviction, expiry, a crash or a rebuild allow it.

    roomy: everything fits, so that what is put is there until it is deleted or expires.
    """

    def __init__(self, roomy: bool) -> None:
        self.roomy = roomy
        self.rebuilding = False
        self._keys: dict[bytes, Expected] = {}
        self._began = time.monotonic()
        self._advanced_s = 0.0

    def now(self) -> float:
        return time.monotonic() - self._began + self._advanced_s

    def advance(self, seconds: float) -> None:
        self._advanced_s += seconds

    def known(self) -> list[bytes]:
        return list(self._keys)

    def of(self, key: bytes) -> Expected:
        return self._keys.setdefault(key, Expected())

    def put(
        self,
        key: bytes,
        value: Value,
        dataset: int,
        ttl_s: float | None,
        began: float,
        *,
        pinned: bool = False,
    ) -> None:
        before = self.of(key)
        # A replaced block stays pinned, if it had not expired and the pin still fits.
        unsure = before.pin_unsure or (before.pinned and (before.deadline is not None or not self.roomy))
        if pinned:
            unsure = not self.roomy
        pinned = (pinned or before.pinned) and not unsure
        self._keys[key] = Expected(
            values={value},
            surely=self.roomy or pinned,
            dataset=dataset,
            deadline=self._deadline(ttl_s, began),
            pinned=pinned,
            pin_unsure=unsure,
            leftovers=before.leftovers,
        )

    def delete(self, key: bytes) -> None:
        self._keys[key] = Expected(leftovers=self.of(key).leftovers)

    def free(self, dataset: int) -> None:
        for key, expected in self._keys.items():
            if expected.dataset == dataset:
                self.delete(key)

    def expire(self, key: bytes, ttl_s: float | None, began: float) -> None:
        self.of(key).deadline = self._deadline(ttl_s, began)

    def pin(self, key: bytes, pinned: bool) -> None:
        expected = self.of(key)
        expected.pinned = pinned
        expected.pin_unsure = False
        expected.surely = self.roomy or pinned

    def may_expire(self, key: bytes, ttl_s: float | None, began: float) -> None:
        """It was given a time if it was there, which nobody said."""
        expected = self.of(key)
        if self.must_be_there(key):
            self.expire(key, ttl_s, began)
        elif expected.values:
            before, after = expected.deadline, self._deadline(ttl_s, began)
            soonest = min(limit[0] if limit is not None else math.inf for limit in (before, after))
            latest = max(limit[1] if limit is not None else math.inf for limit in (before, after))
            expected.deadline = None if soonest == math.inf else (soonest, latest)
            expected.leftovers |= expected.values  # it may have no time after all, and survive a rebuild

    def may_pin(self, key: bytes, pinned: bool) -> None:
        """It was pinned or unpinned if it was there, which nobody said."""
        expected = self.of(key)
        if self.must_be_there(key):
            self.pin(key, pinned)
        elif expected.values:
            expected.pin_unsure = expected.pin_unsure or expected.pinned != pinned
            expected.pinned = expected.pinned and pinned
            expected.surely = self.roomy and expected.surely

    def crash_amid(self, changes: Iterable[tuple[bytes, Value | None]]) -> None:
        """Any of these changes happened, or none; a slot that was being written may be lost."""
        for key, value in changes:
            expected = self.of(key)
            expected.surely = False
            expected.pin_unsure = expected.pin_unsure or expected.pinned
            expected.pinned = False
            if expected.deadline is not None:
                # It is over, or still that of the value before.
                expected.deadline = (expected.deadline[0], math.inf)
            if value is not None:
                expected.values.add(value)
            expected.leftovers |= expected.values

    def lose_index(self) -> None:
        """What had a TTL is given up; all else comes back, and what a killed writer had left with it."""
        self.rebuilding = True
        for expected in self._keys.values():
            if expected.deadline is not None:
                expected.values = set()
                expected.surely = expected.pinned = False
                expected.deadline = None
            if expected.leftovers:
                expected.values |= expected.leftovers
                expected.surely = False

    def must_be_there(self, key: bytes) -> bool:
        expected = self.of(key)
        in_time = expected.deadline is None or self.now() < expected.deadline[0]
        return expected.surely and in_time and not self.rebuilding

    def must_be_gone(self, key: bytes, began: float) -> bool:
        expected = self.of(key)
        late = expected.deadline is not None and began > expected.deadline[1]
        return not expected.values or late

    def how_many(self, keys: Iterable[bytes], began: float) -> tuple[int, int]:
        """Return how many of some keys are there at least, and at most."""
        asked = list(keys)
        gone = sum(self.must_be_gone(key, began) for key in asked)
        return sum(map(self.must_be_there, asked)), len(asked) - gone

    def may_have_expired(self) -> bool:
        """Whether something may have expired that the maintainer has not taken away yet."""
        deadlines = (expected.deadline for expected in self._keys.values())
        return any(deadline is not None and self.now() >= deadline[0] for deadline in deadlines)

    def observe(self, key: bytes, found: Digest | None, began: float) -> None:
        """Judge what a get returned, and remember what it told of an uncertain key."""
        expected = self.of(key)
        if found is None:
            assert not self.must_be_there(key), f"{key!r} is gone: {expected}"
            return
        assert not self.must_be_gone(key, began), f"{key!r} is there, though nothing should be"
        matching = {value for value in expected.values if digest_of(value.data()) == found}
        assert matching, f"{key!r} has other bytes than were put: {found[0]} of them, not {expected.values}"
        expected.values = matching

    def _deadline(self, ttl_s: float | None, began: float) -> tuple[float, float] | None:
        return None if ttl_s is None else (began + ttl_s, self.now() + ttl_s + _EXPIRY_BLUR_S)
