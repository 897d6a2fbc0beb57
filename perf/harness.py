"""Interleaved measurement: contenders take turns, each figure is a ratio, each ratio a median.

Invariant: two figures are divided only when they were taken in the same round of the same run, so
that what the machine does meanwhile (frequency, neighbours, page cache) falls on both alike.
Not a profiler: why a bar is missed is found elsewhere.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

ORDER_SEED = 1

Facts = dict[str, Any]
Samples = dict[str, list[float]]
Sense = Literal["at least", "at most"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Contender:
    """One side of a comparison; measure() runs one round and returns its figure."""

    name: str
    measure: Callable[[], float]


@dataclass(frozen=True)
class Bar:
    """A ratio, round by round, with the target that it is held to; without one it is there to be seen."""

    name: str
    target: float | None
    rounds: list[float]
    sense: Sense = "at least"

    @property
    def ratio(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Lower and upper quartile of the rounds; the extremes when there are fewer than four."""
        if len(self.rounds) < 4:
            return min(self.rounds), max(self.rounds)
        lower, _, upper = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return lower, upper

    @property
    def met(self) -> bool | None:
        """Whether it meets its target; None without one."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.sense == "at least" else self.ratio <= self.target

    @property
    def margin(self) -> float | None:
        """The ratio as a multiple of its target, above 1 is better; None without a target above 0."""
        if not self.target or self.target < 0:
            return None
        return self.ratio / self.target if self.sense == "at least" else self.target / self.ratio

    def as_json(self) -> Facts:
        return {
            "name": self.name,
            "ratio": self.ratio,
            "spread": list(self.spread),
            "target": self.target,
            "sense": self.sense,
            "met": self.met,
            "rounds": self.rounds,
        }

    @classmethod
    def from_json(cls, data: Facts) -> Bar:
        return cls(data["name"], data["target"], list(data["rounds"]), data["sense"])


@dataclass(frozen=True)
class Outcome:
    """What a case found: figures of each contender by round, bars made of them, facts beside them."""

    unit: str
    samples: Samples
    bars: list[Bar]
    workload: Facts = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A measurement that can run alone. run(quick) takes under a minute, quick a few seconds."""

    name: str
    title: str
    limit: str
    run: Callable[[bool], Outcome]


def interleave(contenders: Sequence[Contender], rounds: int, warm_ups: int = 1) -> Samples:
    """Run every contender once a round, in an order drawn anew, and collect the figures.

    Drawn, not rotated: whoever always follows the same one always finds what that one left in the
    processor's caches. The warm-up rounds (first touches, lazy imports) are not kept. The garbage
    collector is off during a measurement, as it is in timeit.
    """
    samples: Samples = {contender.name: [] for contender in contenders}
    for contender, kept in turns(contenders, rounds, warm_ups):
        with collector_off():
            figure = contender.measure()
        if kept:
            samples[contender.name].append(figure)
    return samples


def turns(contenders: Sequence[_T], rounds: int, warm_ups: int = 1) -> Iterator[tuple[_T, bool]]:
    """Say who is next, and whether the figure is to be kept: for those whose turn gives several figures."""
    draw = random.Random(ORDER_SEED)
    for index in range(warm_ups + rounds):
        for contender in draw.sample(contenders, len(contenders)):
            yield contender, index >= warm_ups


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def compare(
    name: str, samples: Samples, ours: str, theirs: str, target: float | None, sense: Sense = "at least"
) -> Bar:
    """Make the bar `ours / theirs` from the rounds that they shared. A target of None: only to be seen."""
    return Bar(name, target, ratios(samples[ours], samples[theirs]), sense)


def compare_with_best(
    name: str,
    samples: Samples,
    ours: str,
    rivals: Sequence[str],
    target: float | None,
    sense: Sense = "at least",
) -> Bar:
    """Make the bar `ours / best rival`, the rival with the best median: the highest for `at least`."""
    choose = max if sense == "at least" else min
    best = choose(rivals, key=lambda rival: statistics.median(samples[rival]))
    return compare(name, samples, ours, best, target, sense)


def within_limit(name: str, figures: Sequence[float], limit: float) -> Bar:
    """Make the bar `figure / limit`, at most 1, for what has a limit instead of a rival."""
    return Bar(name, 1.0, [figure / limit for figure in figures], "at most")


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from running inside a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def stopwatch(into: Callable[[float], None]) -> Iterator[None]:
    """Hand the seconds that the body took to `into`."""
    started = time.perf_counter()
    yield
    into(time.perf_counter() - started)
