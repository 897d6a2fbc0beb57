"""The passes of the demo: who reads, and what the proxy counted meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from forebay.testing.proxy_process import ProxyProcess
from perf.demo import commands
from perf.demo.dataset import Dataset
from perf.demo.progress import phase
from perf.demo.reader import Epoch, Readers
from perf.demo.sources import ForebaySpec, S3Spec, SourceSpec

HITS, MISSES = "hits_", "misses_"  # counters by tier and by cause


@dataclass(frozen=True)
class Pass:
    """One epoch, what went through the proxy meanwhile, and forebay's own counts where it was asked."""

    name: str
    epoch: Epoch
    s3_requests: int
    s3_bytes: int
    hits: int = 0
    misses: dict[str, int] = field(default_factory=dict)  # by cause

    @property
    def hit_ratio(self) -> float | None:
        look_ups = self.hits + sum(self.misses.values())
        return self.hits / look_ups if look_ups else None

    @property
    def samples_per_s(self) -> float:
        return self.epoch.samples / self.epoch.seconds

    @property
    def bytes_per_s(self) -> float:
        return self.epoch.read_bytes / self.epoch.seconds

    @property
    def saved_bytes(self) -> int:
        return max(0, self.epoch.read_bytes - self.s3_bytes)


@dataclass(frozen=True)
class Stage:
    """What every pass needs. The endpoint of both specs is the proxy."""

    console: Console
    data: Dataset
    load: dict[str, Any]
    proxy: ProxyProcess
    s3: S3Spec
    cache: ForebaySpec
    loaded: ForebaySpec  # another, for what is loaded ahead

    def passes(self) -> Iterator[Pass]:
        """Run them one after another. Raises: ReaderFailed (a worker raised or died unasked)."""
        with self._readers(self.s3) as readers:
            yield self._measure("straight from S3", lambda advance: readers.epoch(self._seed(0), advance))
        with self._readers(self.cache) as readers:
            yield self._measure_cached("forebay, cold", readers, self._seed(1))
            yield self._measure_cached("forebay, warm", readers, self._seed(2))
            self._kill(readers)
        with self._readers(self.cache) as readers:
            self.console.print(
                f"new workers, the same cache directory: opened in {readers.open_seconds:.2f} s"
            )
            yield self._measure_cached("warm after SIGKILL", readers, self._seed(4))
        commands.load(self.console, self.loaded, self.proxy, self.load["bandwidth_mb_s"])
        with self._readers(self.loaded) as readers:
            read = partial(readers.epoch, self._seed(5))
            yield self._measure("first after a load", read, self.loaded.cache_dir)
        with commands.mounted(self.loaded) as files, self._readers(files) as readers:
            read = partial(readers.epoch, self._seed(6))
            yield self._measure("through a mount", read, self.loaded.cache_dir)

    def _readers(self, spec: SourceSpec) -> Readers:
        return Readers(spec, self.data.samples, self.load["workers"], self.load["reads_in_flight"])

    def _seed(self, epoch: int) -> int:
        return int(self.load["seed"]) + epoch

    def _measure_cached(self, name: str, readers: Readers, seed: int) -> Pass:
        return self._measure(name, lambda advance: readers.epoch(seed, advance), self.cache.cache_dir)

    def _measure(
        self, name: str, read: Callable[[Callable[[int], None]], Epoch], cache_dir: Path | None = None
    ) -> Pass:
        before = _counters(cache_dir) if cache_dir else {}
        self.proxy.stats(reset=True)
        with phase(self.console, name, len(self.data.samples)) as advance:
            epoch = read(advance)
        moved = self.proxy.stats()
        after = _counters(cache_dir) if cache_dir else {}
        grown = {name: count - before[name] for name, count in after.items()}
        hits = sum(count for name, count in grown.items() if name.startswith(HITS))
        misses = {name.removeprefix(MISSES): n for name, n in grown.items() if name.startswith(MISSES) and n}
        return Pass(name, epoch, moved["requests"], moved["bytes_to_client"], hits, misses)

    def _kill(self, readers: Readers) -> None:
        """Kill all who have the cache open in the middle of an epoch."""
        after = int(self.load["kill_at"] * len(self.data.samples))
        with phase(self.console, "an epoch that SIGKILL ends", after) as advance:
            read = readers.kill_during_epoch(self._seed(3), after, advance)
        self.console.print(f"SIGKILL to every process that had the cache open, after {read:,} samples")


def _counters(cache_dir: Path) -> dict[str, int]:
    """Ask `forebay status`, a process that ends before the next pass begins."""
    command = [sys.executable, "-m", "forebay", "--cache-dir", str(cache_dir), "status", "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    counters: dict[str, int] = json.loads(answer)["counters"]
    return counters
