"""The guard's protocol as a small model, in every interleaving of a reader and writers that may die.

The steps are those of the table in engine/meta/guard.py. LMDB is what that page says of it: two meta pages in
turn, each readable by its number before it is whole, and pages of the snapshots up to w - 3 overwritten by
commit w. Each rule of the protocol is left out once, and then a violation has to be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest

FIRST: Final = 4  # the last commit at the start
COMMITS: Final = 5
READS: Final = 2
ALL: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Rules:
    """What the protocol does; each can be left out."""

    upper: bool = True  # W3: nobody locks the commit that is being made
    lower: bool = True  # W4: wait for readers of older snapshots
    strict: bool = True  # W4 waits for w - 2 as well, though its pages are spared
    check: bool = True  # R2: the snapshot is the commit that is locked
    settle: bool = True  # the wait before a commit is read whose writer has not returned


@dataclass(frozen=True, slots=True)
class State:
    """Both meta pages as (number, whole); the snapshots overwritten; the writer; the reader."""

    metas: tuple[tuple[int, bool], ...] = ((FIRST, True), (FIRST - 1, True))
    overwritten: int = FIRST - 3
    made: int = 0
    writing: str = "idle"
    excluded: tuple[tuple[int, int], ...] = ()
    reading: str = "lock"
    commit: int = FIRST
    pin: int = -1
    snapshot: int = -1
    torn: bool = False
    settling: bool = False
    reads: int = 0

    @property
    def newest(self) -> int:
        """The number that whoever begins now is given."""
        return max(number for number, _ in self.metas)

    @property
    def violated(self) -> bool:
        """Tell whether the reader uses what it must not."""
        return self.reading in ("use", "still use") and (self.torn or self.snapshot <= self.overwritten)

    def may_pin(self, commit: int) -> bool:
        return not any(first <= commit <= last for first, last in self.excluded)

    def may_exclude(self, first: int, last: int) -> bool:
        return not first <= self.pin <= last


def write_meta(state: State, number: int, whole: bool) -> tuple[tuple[int, bool], ...]:
    metas = list(state.metas)
    metas[number % 2] = (number, whole)
    return tuple(metas)


def writer_steps(state: State, rules: Rules) -> Iterator[State]:
    """Yield what the writer may do next; dying is the last of it."""
    now = state.newest + (state.writing not in ("whole", "unlock"))
    lower = (0, now - 2 if rules.strict else now - 3)
    match state.writing:
        case "idle" if state.made < COMMITS:
            yield replace(state, writing="upper", made=state.made + 1)
        case "upper" if not rules.upper:
            yield replace(state, writing="lower")
        case "upper" if state.may_exclude(now, ALL):
            yield replace(state, writing="lower", excluded=((now, ALL),))
        case "lower" if not rules.lower:
            yield replace(state, writing="pages")
        case "lower" if state.may_exclude(*lower):
            yield replace(state, writing="pages", excluded=(*state.excluded, lower))
        case "pages":
            yield replace(state, writing="meta", overwritten=now - 3)
        case "meta":
            yield replace(state, writing="whole", metas=write_meta(state, now, False))
        case "whole":
            # Nobody dies here: the kernel ends a write within one page.
            yield replace(state, writing="unlock", metas=write_meta(state, now, True))
            return
    if state.writing != "idle":
        yield replace(state, writing="idle", excluded=())  # W6, or dead


def reader_steps(state: State, rules: Rules) -> Iterator[State]:
    """Yield what the reader may do next."""
    match state.reading:
        case "lock":
            pin = state.commit - state.settling
            if state.may_pin(pin):
                yield replace(state, reading="pick", pin=pin)
            else:
                yield replace(state, reading="look", settling=False)
        case "pick":
            yield replace(state, reading="copy", snapshot=state.newest)
        case "copy":
            torn = state.metas[state.snapshot % 2] != (state.snapshot, True)
            if state.snapshot == state.commit or not rules.check:
                yield replace(state, reading="use", torn=torn)
            else:
                yield replace(state, reading="look", pin=-1, settling=False)
        case "look" if state.newest != state.commit:
            yield replace(state, reading="lock", commit=state.newest)
        case "look" if not rules.settle or (state.newest, True) in state.metas:
            yield replace(state, reading="lock", settling=True)
        case "look":
            yield replace(state, reading="lock")
        case "use":
            yield replace(state, reading="still use")
        case "still use":
            fresh = replace(state, pin=-1, torn=False, settling=False, reads=state.reads + 1)
            yield replace(fresh, reading="lock" if fresh.reads < READS else "done")


def explore(rules: Rules) -> tuple[int, bool]:
    """Return how many states there are, and whether any of them is a violation."""
    seen: set[State] = set()
    ahead = [State()]
    while ahead:
        state = ahead.pop()
        if state in seen:
            continue
        seen.add(state)
        if state.violated:
            return len(seen), True
        ahead += writer_steps(state, rules)
        ahead += reader_steps(state, rules)
    return len(seen), False


def test_no_interleaving_shows_a_wrong_page() -> None:
    count, violated = explore(Rules())
    assert not violated
    assert count > 1_000


@pytest.mark.parametrize("rule", ["upper", "lower", "strict", "check", "settle"])
def test_each_rule_is_needed(rule: str) -> None:
    assert explore(replace(Rules(), **{rule: False}))[1]
