"""What a load does with one file: find out what it is, fetch what is not cached, verify it.

A file is cached when every one of its blocks is in the store. Whoever is told that it is not admitted has
waited for the maintainer to make room; once many files in a row were not, the cache is taken to be full and
the under storage is only asked now and then whether that has changed.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from forebay.cache.blocks import PART_BYTES, Block, Sink, blocks_of, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher, FirstTouch
from forebay.cache.filling import Filling
from forebay.cache.loads.jobs import LoadRequest
from forebay.cache.loads.progress import Meter, Outcome
from forebay.cache.loads.throttle import Turn
from forebay.cache.lookup import Lookup, as_entry
from forebay.cache.pool import Kind
from forebay.errors import NotFound, Stale
from forebay.meta import Entry
from forebay.remote import PLACEMENT_BYTES, Share

if TYPE_CHECKING:
    from forebay.store import BlockStore

_ROOM_PAUSES_S: Final = (0.02, 0.1, 0.3)
_FULL_AFTER: Final = 16
_FULL_PROBE_S: Final = 1.0
# A block that somebody else fetches is waited for so long, in such steps; a reader fetches within seconds.
_OTHERS_STEP_S: Final = 0.02
_OTHERS_WAIT_MAX_S: Final = 30.0
# A larger file is brought in parts, side by side.
LARGE_BYTES: Final = PART_BYTES
_VERSIONS_TRIED_MAX: Final = 2


class LoadStopped(Exception):  # noqa: N818  (nothing went wrong)
    """The run is to stop; the file that it is at counts as not begun."""


class LoadItem(NamedTuple):
    """One file to load: path is that in the dataset; line is its place in a file list; error: a bad line.

    entry is None where it has yet to be asked what the file is; tries counts versions that were tried.
    """

    path: str
    entry: Entry | None = None
    line: int | None = None
    error: str | None = None
    tries: int = 0

    @property
    def is_large(self) -> bool:
        """Whether it is known to be so large that it is brought in parts."""
        return self.entry is not None and self.entry.size > LARGE_BYTES


@dataclass(frozen=True, slots=True)
class FileResult:
    """How one file ended; path is dataset/path, line its place in the file list, error says why not."""

    path: str
    outcome: Outcome
    size: int = 0
    line: int | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "path": self.path,
            "outcome": self.outcome,
            "size": self.size,
            "line": self.line,
            "error": self.error,
        }


class FullGuard:
    """Knows when the cache is full, so that a load does not fetch all that nobody will keep. Threads: any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with room."""
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._refused = 0
        self._probe_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether so many in a row were not admitted that the next will not be either."""
        return self._refused >= _FULL_AFTER

    def may_fetch(self) -> bool:
        """Say whether to try: always while there is room, now and then when there is none."""
        if not self.is_full:
            return True
        with self._lock:
            now = self._clock()
            if now < self._probe_at:
                return False
            self._probe_at = now + _FULL_PROBE_S
            return True

    def admitted(self) -> None:
        """Note that there was room."""
        self._refused = 0

    def refused(self) -> None:
        """Note that there was none."""
        with self._lock:
            self._refused += 1
            self._probe_at = self._clock() + _FULL_PROBE_S


class FileLoader:
    """Loads files for one run, in threads of the pool."""

    def __init__(
        self,
        attached: Attached,
        request: LoadRequest,
        *,
        fetcher: Fetcher,
        share: Share | None = None,
        lookup: Lookup,
        meter: Meter,
        stop: threading.Event,
        turn: Turn,
        verifier: BlockStore | None,
        on_cached: Callable[[Entry], None] | None,
        on_problem: Callable[[FileResult], None],
    ) -> None:
        """Use these; verifier is a store of the same blocks that checks every one that it reads.

        share: what of the files is to be loaded; a file counts where its beginning is.
        on_cached is called with each object that is as it was asked for, on_problem with each file that is
        not cached in the end, by any thread.
        """
        self._attached: Final = attached
        self._request: Final = request
        self._fetcher: Final = fetcher
        self._share: Final = share
        self._store: Final = fetcher.store
        self._lookup: Final = lookup
        self._meter: Final = meter
        self._stop: Final = stop
        self._turn: Final = turn
        self._verifier: Final = verifier
        self._on_cached: Final = on_cached
        self._on_problem: Final = on_problem
        self._full: Final = FullGuard()

    def declines(self, item: LoadItem) -> bool:
        """Say whether a file is not to be cached here, by its policy; it is settled then."""
        if not self._concerns(item):
            return True
        if item.error is not None or self._request.metadata_only:
            return False
        if not self._fetcher.admission.refuses(self._attached, item.path):
            return False
        self.settle(item, "not_admitted", "its policy says that it is not cached")
        return True

    def load(self, item: LoadItem, *, permitted: bool) -> LoadItem | None:
        """Load a file and count it; return it, knowing more, where it has to be tried again or is large.

        permitted: the caller holds a permit of the pool for the whole file. Raises: LoadStopped; NotNow (it
        is to be called again); Closed (the store is).
        """
        if item.error is not None:
            self.settle(item, "failed", item.error)
            return None
        try:
            touched = None
            if item.entry is None:
                entry, touched = self._resolve(item.path)
                item = item._replace(entry=entry)
                if item.is_large:
                    return item
            assert item.entry is not None
            self.settle(item, self._outcome(item.entry, touched, permitted=permitted), permitted=permitted)
        except OSError as error:
            return self.failed(item, error)
        return None

    def _outcome(self, entry: Entry, touched: FirstTouch | None, *, permitted: bool) -> Outcome:
        """Bring what is missing of a file."""
        if self._request.metadata_only:
            return "done"
        missing = self.missing(entry, 0, entry.size)
        if touched is not None and touched.data:
            # The first block came with the answer to what the file is.
            self._meter.fetched(len(touched.data))
            if missing and missing[0].number == 0 and not self.put_again(missing[0], touched.data):
                self._full.refused()
                return "not_admitted"
            missing = [block for block in missing if block.number]
        elif not missing:
            return "skipped"
        if missing and not self._request.dry_run and not self.bring(missing, permitted=permitted):
            return "not_admitted"
        return "done"

    def failed(self, item: LoadItem, error: OSError) -> LoadItem | None:
        """Settle a file that could not be read, or return it for one more try with its new version."""
        is_fixed = self._attached.manifest is not None
        if isinstance(error, Stale) and item.tries + 1 < _VERSIONS_TRIED_MAX and not is_fixed:
            try:
                return item._replace(entry=self._ask(item.path), tries=item.tries + 1)
            except OSError as now:
                error = now
        if isinstance(error, NotFound) and not self._request.dry_run:
            self._lookup.forget(self._attached, item.path)
        self.settle(item, "failed", words_of(error))
        return None

    def settle(
        self, item: LoadItem, outcome: Outcome, error: str | None = None, *, permitted: bool = False
    ) -> None:
        """Count a file, once it was verified if that was asked for, and tell of it if it is not cached."""
        size = sum(length for _, length in self._parts(item.entry)) if item.entry else 0
        if outcome == "not_admitted":
            error = error or "found no room in the cache"
        elif self._verifier is not None and outcome != "failed" and item.entry is not None:
            error = self._verify(item.entry, self._verifier, permitted=permitted)
            outcome = outcome if error is None else "failed"
        files = 1 if self._is_first(item.path) else 0
        self._meter.settled(outcome, 0 if self._request.metadata_only else size, files=files)
        if error is None and self._on_cached is not None and item.entry is not None:
            self._on_cached(item.entry)
        if error is not None:
            name = f"{self._attached.label}/{item.path}"
            self._on_problem(FileResult(name, outcome, size, item.line, error))

    def look_again(self, item: LoadItem, told: Container[str]) -> None:
        """Count and tell of a file that was cached and no longer is, unless it was told of already."""
        name = f"{self._attached.label}/{item.path}"
        entry = item.entry or self._lookup.known(self._attached, item.path)
        if entry is None or name in told:
            return
        if not all(self._has(block) for block in self.blocks(entry, 0, entry.size)):
            self._meter.evicted()
            error = "was cached, and evicted again to make room"
            self._on_problem(FileResult(name, "evicted", entry.size, item.line, error))

    def blocks(self, entry: Entry, offset: int, end: int) -> Iterator[Block]:
        """Return the blocks of a part of a file to load: those of the share, or all that are kept here."""
        blocks = blocks_of(self._attached, entry, offset, end, self._fetcher.block_bytes)
        share, name = self._share, self._attached.record.name
        if share is None:
            return self._fetcher.admission.kept(self._attached, blocks)
        return (block for block in blocks if share(name, entry.path, block.offset))

    def bring(self, missing: list[Block], *, permitted: bool, filling: Filling | None = None) -> bool:
        """Fetch missing blocks of one file that are not too many for one part; return whether all are cached.

        permitted: the caller holds a permit of the pool for them. filling: where they go, those that are
        cached by themselves as well. What another fetches is waited for. Raises: LoadStopped; NotNow; as
        UnderStorage.read_range; TimeoutError (another who fetches it gets no further).
        """
        if filling is None and not self._full.may_fetch():
            return False
        sink = _LoadSink(self) if filling is None else filling
        waited_s = 0.0
        while missing:
            for run in runs_of(self._attached, missing, sink):
                self.check_stopped()
                with self._turn.of(run.size_bytes), self._permit(run.size_bytes, permitted):
                    self._fetcher.prefetch(run, Kind.LOAD)
                if sink.has_failed:
                    self._full.refused()
                    return False
            missing = [
                block for block in missing if not (sink.has(block) or sink.from_store(self._store, block))
            ]
            if missing and waited_s > _OTHERS_WAIT_MAX_S:
                raise TimeoutError(errno.ETIMEDOUT, "another process that fetches it gets no further")
            if missing:
                self.pause(_OTHERS_STEP_S)
                waited_s += _OTHERS_STEP_S
        self._full.admitted()
        return True

    def _permit(self, size_bytes: int, permitted: bool) -> AbstractContextManager[None]:
        return nullcontext() if permitted else self._fetcher.pool.permit(Kind.LOAD, size_bytes)

    def put_again(self, block: Block, data: memoryview) -> bool:
        """Offer a block that found no room once more, after the maintainer had time to make some."""
        if self._store.read_only:
            return False
        for pause_s in () if self._full.is_full else _ROOM_PAUSES_S:
            self.pause(pause_s)
            if self._fetcher.admission.put(self._attached, block, data):
                return True
        return False

    def begin_whole(self, entry: Entry) -> Filling | None:
        """Return a place for a file in one piece, if there is one and most of the file is yet to come."""
        if self._store.read_only or self._full.is_full:
            return None
        if sum(length for _, length in self._parts(entry)) < entry.size:
            return None
        missing_bytes = 0
        for block in self.blocks(entry, 0, entry.size):
            missing_bytes += 0 if self._has(block) else block.length
            if 2 * missing_bytes >= entry.size:
                admission = self._fetcher.admission
                return Filling.begin(
                    self._store, admission, self._attached, entry, on_fetched=self._meter.fetched
                )
        return None

    def fetched(self, count_bytes: int) -> None:
        """Count bytes that came."""
        self._meter.fetched(count_bytes)

    def _resolve(self, path: str) -> tuple[Entry, FirstTouch | None]:
        """Return what a listed name is, from the entries if they are fresh, and what came with the answer."""
        known, _ = self._lookup.look(self._attached, path)
        if known is not None and self._lookup.is_fresh(self._attached, path, known.checked_ns):
            return known, None
        if known is not None or self._request.metadata_only or self._request.dry_run or self._full.is_full:
            return self._ask(path), None
        if not self._is_first(path):
            return self._ask(path), None
        # One request instead of two, where nothing of it is likely to be cached.
        self.check_stopped()
        with self._turn.of(0):
            touched = self._fetcher.first_touch(self._attached, path, 0, 1, Kind.LOAD)
        self._turn.owe(len(touched.data))
        return touched.entry, touched

    def _concerns(self, item: LoadItem) -> bool:
        """Say whether anything of a file is to be loaded here, or, of one that is not known, may be."""
        if self._share is None or item.entry is None:
            return self._is_first(item.path) or (item.error is None and not self._request.metadata_only)
        return any(True for _ in self._parts(item.entry)) or self._is_first(item.path)

    def _is_first(self, path: str) -> bool:
        """Say whether the beginning of a file is in the share."""
        return self._share is None or self._share(self._attached.record.name, path, 0)

    def _parts(self, entry: Entry) -> Iterator[tuple[int, int]]:
        """Yield offset and length of the runs of a file that are to be loaded."""
        if self._share is None:
            yield 0, entry.size
            return
        for offset in range(0, entry.size, PLACEMENT_BYTES):
            if self._share(self._attached.record.name, entry.path, offset):
                yield offset, min(PLACEMENT_BYTES, entry.size - offset)

    def _ask(self, path: str) -> Entry:
        self.check_stopped()
        if self._request.dry_run:
            entry = as_entry(self._attached.storage.stat(path), self._lookup.now_ns())
        else:
            entry = self._lookup.ask(self._attached, path)
        if entry.is_dir:
            raise IsADirectoryError(errno.EISDIR, "is a directory", f"{self._attached.label}/{path}")
        return entry

    def missing(self, entry: Entry, offset: int, end: int) -> list[Block]:
        """Return the blocks of a part of a file that are not cached."""
        return [block for block in self.blocks(entry, offset, end) if not self._has(block)]

    def _has(self, block: Block) -> bool:
        return self._store.contains(block.key)

    def _verify(self, entry: Entry, verifier: BlockStore, *, permitted: bool) -> str | None:
        """Read every block back against its checksum; one that is bad is fetched again, once.

        Returns what is wrong with the first that is bad even so. Raises: LoadStopped.
        """
        for block in self.blocks(entry, 0, entry.size):
            self.check_stopped()
            if _is_good(verifier, block):
                continue
            try:
                self._store.delete(block.key)
                if self.bring([block], permitted=permitted) and _is_good(verifier, block):
                    continue
            except OSError as error:
                return words_of(error)
            return f"the block at {block.offset} is not in the cache or does not pass its checksum"
        return None

    def pause(self, seconds: float) -> None:
        """Wait. Raises: LoadStopped."""
        if self._stop.wait(seconds):
            raise LoadStopped

    def check_stopped(self) -> None:
        """Raise LoadStopped if the run is to stop."""
        if self._stop.is_set():
            raise LoadStopped


class _LoadSink(Sink):
    """Keeps nothing but what became of the blocks. For one thread at a time."""

    def __init__(self, loader: FileLoader) -> None:
        self._loader = loader
        self._admitted: set[int] = set()
        self.has_failed = False

    def has(self, block: Block) -> bool:
        """Say whether a block was admitted."""
        return block.number in self._admitted

    def from_store(self, store: BlockStore, block: Block) -> bool:
        return store.contains(block.key)

    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        self._loader.fetched(len(data))
        if admitted or (not self.has_failed and self._loader.put_again(block, data)):
            self._admitted.add(block.number)
        else:
            self.has_failed = True


def _is_good(verifier: BlockStore, block: Block) -> bool:
    view = verifier.get(block.key)
    if view is None:
        return False
    with view:
        return len(view) == block.length


def words_of(error: BaseException) -> str:
    """Say what an exception says, without the name of the file that stands beside it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
