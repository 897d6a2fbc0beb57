"""A training-style reader: worker processes that read shuffled samples and verify each one's hash.

As in a DataLoader with spawned workers, every worker reads its share of an epoch with a few reads in flight.
Workers report progress, so that whoever leads them can show it, or kill them in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from perf.demo.dataset import Sample
from perf.demo.sources import Source, SourceSpec

REPORT_TIMEOUT_S = 60.0
REPORT_EVERY_S = 0.02


@dataclass
class Part:
    """What a worker has done of an epoch so far; `over` on its last report."""

    samples: int = 0
    read_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0
    over: bool = False


@dataclass(frozen=True)
class Epoch:
    """What the workers did together; seconds are from the first start to the last end."""

    samples: int
    read_bytes: int
    seconds: float
    wrong: list[str]


class ReaderFailed(Exception):  # noqa: N818  # what happened, in the worker's own words
    """A worker raised; carries its message."""


class Readers:
    """Workers that hold a source open; a context manager. For one thread."""

    def __init__(self, spec: SourceSpec, samples: Sequence[Sample], workers: int, in_flight: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._samples = samples
        self._pipes: list[Connection] = []
        self._workers: list[multiprocessing.process.BaseProcess] = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(spec, samples, in_flight, theirs))
            worker.start()
            theirs.close()
            self._pipes.append(ours)
            self._workers.append(worker)
        self.open_seconds = max(_receive(pipe) for pipe in self._pipes)

    def epoch(self, seed: int, on_progress: Callable[[int], None]) -> Epoch:
        """Read every sample once, in an order of that seed; on_progress hears how many were read since.

        Raises: ReaderFailed (a worker raised or died).
        """
        self._begin(seed)
        parts = self._collect(on_progress, until=len(self._samples))
        return Epoch(
            sum(part.samples for part in parts),
            sum(part.read_bytes for part in parts),
            max(part.end for part in parts) - min(part.start for part in parts),
            [wrong for part in parts for wrong in part.wrong],
        )

    def kill_during_epoch(self, seed: int, after: int, on_progress: Callable[[int], None]) -> int:
        """Begin an epoch, SIGKILL every worker once `after` samples were read; returns how many were."""
        self._begin(seed)
        parts = self._collect(on_progress, until=after)
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
            if worker.exitcode != -signal.SIGKILL:
                raise ReaderFailed(f"a worker ended with {worker.exitcode} before it was killed")
        return sum(part.samples for part in parts)

    def close(self) -> None:
        for pipe in self._pipes:
            with suppress(BrokenPipeError):
                pipe.send(None)
        for worker in self._workers:
            worker.join()
        for pipe in self._pipes:
            pipe.close()

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # they may be anywhere, also stuck
            for worker in self._workers:
                worker.kill()
        self.close()

    def _begin(self, seed: int) -> None:
        order = list(range(len(self._samples)))
        random.Random(seed).shuffle(order)
        for rank, pipe in enumerate(self._pipes):
            pipe.send(order[rank :: len(self._pipes)])

    def _collect(self, on_progress: Callable[[int], None], until: int) -> list[Part]:
        """Take reports until so many samples were read, or, for a whole epoch, until all are over."""
        parts = [Part() for _ in self._pipes]
        whole = until == len(self._samples)
        while not all(part.over for part in parts) if whole else sum(p.samples for p in parts) < until:
            waiting = [pipe for pipe, part in zip(self._pipes, parts, strict=True) if not part.over]
            for pipe in wait(waiting, REPORT_TIMEOUT_S) or waiting[:1]:  # the silent one is then told
                index = self._pipes.index(pipe)  # type: ignore[arg-type]  # wait returns what it was given
                part = _receive(self._pipes[index])
                on_progress(part.samples - parts[index].samples)
                parts[index] = part
        return parts


def _receive(pipe: Connection) -> Any:
    """Take a worker's next message. Raises: ReaderFailed (it raised, died, or took too long)."""
    if not pipe.poll(REPORT_TIMEOUT_S):
        raise ReaderFailed(f"a worker was silent for {REPORT_TIMEOUT_S:.0f} s")
    try:
        message = pipe.recv()
    except EOFError:
        raise ReaderFailed("a worker died") from None
    if isinstance(message, ReaderFailed):
        raise message
    return message


def _work(spec: SourceSpec, samples: Sequence[Sample], in_flight: int, pipe: Connection) -> None:
    """A worker's life: open the source, then read whatever numbers of samples arrive, until None does."""
    try:
        started = time.monotonic()
        source = spec.open()
        pipe.send(time.monotonic() - started)
        with ThreadPoolExecutor(in_flight) as pool:
            while (numbers := pipe.recv()) is not None:
                _read(source, [samples[number] for number in numbers], pool, pipe)
    except Exception as error:  # noqa: BLE001  # to be told where it can be shown
        pipe.send(ReaderFailed(f"{type(error).__name__}: {error}"))


def _read(source: Source, samples: list[Sample], pool: ThreadPoolExecutor, pipe: Connection) -> None:
    """Read the samples of an epoch and report now and then."""
    part = Part(start=time.monotonic())
    reported = part.start
    for sample, digest in zip(samples, pool.map(partial(_digest, source), samples), strict=True):
        part.samples += 1
        part.read_bytes += sample.length
        if digest != sample.sha256:
            part.wrong.append(f"{sample.key} at {sample.offset}: SHA-256 {digest}, expected {sample.sha256}")
        part.end = time.monotonic()
        if part.end - reported >= REPORT_EVERY_S:
            reported = part.end
            pipe.send(part)
    part.over = True
    pipe.send(part)


def _digest(source: Source, sample: Sample) -> str:
    data = source.read(sample)
    return hashlib.sha256(data).hexdigest()
