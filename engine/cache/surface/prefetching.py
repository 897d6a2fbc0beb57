"""Orders of reading: one that is known beforehand, and one that is recorded to be known the next time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from forebay.cache.manifests.manage import ManifestStatus
from forebay.cache.prefetch import Prefetcher
from forebay.cache.record.order import create_manifests
from forebay.cache.record.traces import Trace
from forebay.cache.surface.reads import Reads
from forebay.config import GIB, parse_bytes
from forebay.errors import ConfigError

_TRACE_BYTES_MAX: Final = GIB


class Prefetching(Reads):
    """The verbs for orders of reading."""

    def prefetch(self, paths: Iterable[str], *, window_bytes: int | str | None = None) -> Prefetcher:
        """Yield (path, view of the whole object) in the order of the paths, fetching ahead of the reader.

        paths may be endless, and is asked for as many as are fetched ahead. window_bytes: bytes ahead at
        most, readahead_max by default, within what fetch_memory leaves. Each view is what ``read`` would
        return at that moment; so is what is raised, and the next call goes on with the path behind. Leaving
        the loop, or ``close``, ends it. Raises: ConfigError (no size).
        """
        size_bytes = None if window_bytes is None else parse_bytes(window_bytes, "window_bytes")
        return Prefetcher(paths, lambda: self._runtime().window(size_bytes), self.read, self._note)

    @contextmanager
    def record(
        self, name: str, *, manifests: bool = True, max_bytes: int | str = _TRACE_BYTES_MAX
    ) -> Iterator[Trace]:
        """Record what is read through this cache, in order, as the trace of that name.

        A context manager. What processes read that are forked meanwhile, or that are given this cache
        meanwhile, is recorded as well: the workers of a DataLoader. manifests: at a clean end each dataset
        of which something was read gets a manifest of that name, of the objects in the order in which they
        were read first, for ``load(order=...)``. max_bytes: what each process may write. Whatever keeps a
        process from writing ends its recording with a warning, and no read fails for it.
        Raises: ConfigError (a bad name, or one that is taken; this cache is being recorded); OSError.
        """
        runtime = self._runtime()
        if self._recorder is not None:
            raise ConfigError(f"{self.path}: this cache is being recorded already")
        for dataset in runtime.datasets.records() if manifests else ():
            runtime.manifests.check_new(dataset, name)
        with runtime.traces.begin(name, parse_bytes(max_bytes, "max_bytes")) as recording:
            self._recorder = recorder = runtime.traces.join(name)
            self._arguments["record"] = name
            try:
                yield recording.trace
            finally:
                self._recorder = self._arguments["record"] = None
                if recorder is not None:
                    recorder.close()
        if manifests and recording.is_own:
            self.create_manifests(name)

    def create_manifests(self, trace: str) -> list[ManifestStatus]:
        """Make a manifest with an order of access for each dataset of which a trace has objects.

        It has the trace's name, and lists what is known now of these objects; nobody is asked. ``record``
        does this at its end. Raises: TraceNotFound; ConfigError (a bad name, or one that a manifest has).
        """
        runtime = self._runtime()
        found = runtime.traces.find(trace)
        return create_manifests(found, runtime.manifests, runtime.lookup, runtime.locate)

    def traces(self) -> list[Trace]:
        """Return the traces of this cache, by name."""
        return self._runtime().traces.all()

    def trace(self, name: str) -> Trace:
        """Return one trace. Raises: TraceNotFound; ConfigError (a bad name)."""
        return self._runtime().traces.find(name)

    def delete_trace(self, name: str) -> None:
        """Delete a trace; who records it stops. Raises: TraceNotFound; ConfigError (a bad name); OSError."""
        self._runtime().traces.delete(name)
