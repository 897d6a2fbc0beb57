"""Processes that measure at the same moment.

Each member builds its state once (`make(*args)` returns the measurement), then runs it whenever the
crew is told to; a barrier lines the members up. Start and end are read from the monotonic clock, which
all processes share, so the throughput of a crew is its work over the span from first start to last end.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from types import TracebackType
from typing import Any

from perf.harness import collector_off

Measurement = Callable[[], int]  # does the work and returns how much it was
READY_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Span:
    """One member's part of a round, in seconds of the monotonic clock."""

    start: float
    end: float
    count: int


class Crew:
    """A fixed number of spawned processes, each pinned to a core of its own; a context manager."""

    def __init__(self, make: Callable[..., Measurement], args: Sequence[tuple[Any, ...]]) -> None:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(len(args))
        cores = sorted(os.sched_getaffinity(0))
        self._pipes: list[Connection] = []
        self._members: list[multiprocessing.process.BaseProcess] = []
        for index, arguments in enumerate(args):
            ours, theirs = context.Pipe()
            core = cores[index % len(cores)]
            member = context.Process(target=_member, args=(make, arguments, core, barrier, theirs))
            member.start()
            theirs.close()
            self._pipes.append(ours)
            self._members.append(member)
        self._await_ready()

    def run(self) -> list[Span]:
        """Run one round; blocks until every member is done."""
        for pipe in self._pipes:
            pipe.send(True)
        return [pipe.recv() for pipe in self._pipes]

    def throughput(self) -> float:
        """Run one round and return its work per second."""
        spans = self.run()
        seconds = max(span.end for span in spans) - min(span.start for span in spans)
        return sum(span.count for span in spans) / seconds

    def close(self) -> None:
        for pipe, member in zip(self._pipes, self._members, strict=True):
            if member.is_alive():
                pipe.send(False)
            member.join()
            pipe.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await_ready(self) -> None:
        for pipe in self._pipes:
            if not pipe.poll(READY_TIMEOUT_S):
                raise TimeoutError("a measuring process was not ready in time")
            pipe.recv()


def _member(
    make: Callable[..., Measurement], args: tuple[Any, ...], core: int, barrier: Barrier, pipe: Connection
) -> None:
    os.sched_setaffinity(0, {core})
    measure = make(*args)
    pipe.send("ready")
    while pipe.recv():
        with collector_off():
            barrier.wait()
            start = time.monotonic()
            count = measure()
            end = time.monotonic()
        pipe.send(Span(start, end, count))
