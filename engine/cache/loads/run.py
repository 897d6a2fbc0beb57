"""One run of a load's job, in threads of one process.

1. The lister's thread walks the under storage, remembers what it sees and spools what matches; a file list
   was spooled when the job was made. Listing does not wait for fetching, so the totals are known early, and
   no list of all files is ever in memory.
2. The run's thread reads the spool, makes batches of small files, and gives them to the pool, never more
   than a few ahead of it.
3. The pool's threads load them, after the readers' requests, and count.
4. The ticker's thread writes the figures down several times a second and looks whether somebody wants the
   run to stop.

A run that is killed leaves the spool; the next one skips what is cached without a request and counts anew.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from forebay.cache.datasets import VERSION_MARK, Attached, Datasets
from forebay.cache.fetch import Fetcher
from forebay.cache.loads.feed import Feeder
from forebay.cache.loads.file import FileLoader, FileResult, LoadItem, LoadStopped, words_of
from forebay.cache.loads.glob import Glob
from forebay.cache.loads.jobs import JobRecord, source_text
from forebay.cache.loads.listing import Lister, Listing, ManifestPages
from forebay.cache.loads.progress import LoadState, Meter, Progress
from forebay.cache.loads.spool import JobFolder, json_line
from forebay.cache.loads.throttle import Turn
from forebay.cache.lookup import Lookup
from forebay.cache.manifests.collect import Collector
from forebay.cache.manifests.manage import Manifests
from forebay.cache.paths import split_path
from forebay.errors import NotAttached
from forebay.meta import Entries, Entry, HeldLock
from forebay.remote import Share

if TYPE_CHECKING:
    from forebay.store import BlockStore

_log = logging.getLogger(__name__)

_TICK_S: Final = 0.25


@dataclass(frozen=True)
class LoadParts:
    """What the loads of one process work with.

    own_fetcher asks no peers: what this host answers for comes from the under storage. share_of says what
    that is among these members.
    """

    datasets: Datasets
    entries: Entries
    lookup: Lookup
    fetcher: Fetcher
    own_fetcher: Fetcher
    share_of: Callable[[Sequence[str]], Share]
    manifests: Manifests
    readers_wait: Callable[[], bool]


# Called with how a run ended, unless it was interrupted, before it gives up the job's lock.
EndOfRun = Callable[[LoadState, str, Progress], None]


class LoadRun:
    """Runs one job once. Threads: any."""

    def __init__(
        self, parts: LoadParts, record: JobRecord, folder: JobFolder, lock: HeldLock, on_end: EndOfRun
    ) -> None:
        """Take the job's lock, which is given up when the run ends; ``start`` begins."""
        self._parts: Final = parts
        self._record: Final = record
        self._request: Final = record.request
        self._fetcher: Final = parts.fetcher if record.request.share is None else parts.own_fetcher
        self._folder: Final = folder
        self._lock: Final = lock
        self._on_end: Final = on_end
        self.pid: Final = os.getpid()
        self._meter: Final = Meter()
        self._stop: Final = threading.Event()
        self._stop_state: LoadState = "interrupted"
        self._stop_reason = ""
        self._ended: Final = threading.Event()
        self._end: tuple[LoadState, str, Progress] | None = None
        self._failures_lock: Final = threading.Lock()

    def start(self) -> None:
        """Begin, in threads that do not keep the interpreter from ending."""
        threading.Thread(target=self._run, name=f"forebay-load-{self._record.id}", daemon=True).start()

    def stop(self, state: LoadState, reason: str = "") -> None:
        """Ask it to end soon: cancelled, failed, or interrupted for a later run to go on."""
        self._stop_state, self._stop_reason = state, reason
        self._stop.set()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the end and return whether it came."""
        return self._ended.wait(timeout_s)

    @property
    def end(self) -> tuple[LoadState, str, Progress] | None:
        """State, reason and figures once it has ended."""
        return self._end

    def progress(self) -> Progress:
        """Return the figures as they are now."""
        end = self._end
        return self._meter.progress() if end is None else end[2]

    def _run(self) -> None:
        state, reason = self._stop_state, ""
        try:
            with self._ticking():
                state, reason = self._work()
        except LoadStopped:
            state, reason = self._stop_state, self._stop_reason or self._stop_state
        except Exception as error:  # noqa: BLE001  (it is the job's end, told in its record)
            state, reason = "failed", _whole_words(error)
        finally:
            self._finish(state, reason)

    @contextmanager
    def _ticking(self) -> Iterator[None]:
        ending = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(ending,), name="forebay-load-tick", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ending.set()
            ticker.join()

    def _tick(self, ending: threading.Event) -> None:
        """Write down how far it is, for other processes, and look whether one of them has it stop."""
        while True:
            try:
                self._folder.put("progress", self._meter.progress().to_json())
                if self._folder.get("cancel") is not None:
                    self.stop("cancelled")
                self._attached()
            except NotAttached as error:
                self.stop("failed", words_of(error))
            except OSError as error:
                # A full disk costs the figures, not the load: they are written at the next tick.
                _log.info("load %s: the figures could not be written: %s", self._record.id, error)
            if ending.wait(_TICK_S):
                return

    def _finish(self, state: LoadState, reason: str) -> None:
        progress = self._meter.progress(state)
        try:
            self._folder.put("progress", progress.to_json())
            if state != "interrupted":
                self._on_end(state, reason, progress)
        except Exception as error:  # noqa: BLE001  (as in _run; by its record the job is interrupted then)
            state, reason = "interrupted", f"the end could not be recorded: {_whole_words(error)}"
        finally:
            self._end = (state, reason, progress)
            self._lock.release()
            self._ended.set()

    def _work(self) -> tuple[LoadState, str]:
        attached, path = self._attached()
        with ExitStack() as stack:
            collector = self._collector(attached)
            if collector is not None:
                stack.enter_context(collector)
            failures = stack.enter_context(self._folder.create("failures"))
            verifier = stack.enter_context(self._open_verifier()) if self._request.verify else None
            loader = FileLoader(
                attached,
                self._request,
                fetcher=self._fetcher,
                share=None if self._request.share is None else self._parts.share_of(self._request.share),
                lookup=self._parts.lookup,
                meter=self._meter,
                stop=self._stop,
                turn=Turn(self._request.rate_limit, self._parts.readers_wait),
                verifier=verifier,
                on_cached=None if collector is None else collector.add,
                on_problem=lambda result: self._note(result, failures),
            )
            if self._request.listed:
                self._meter.set_totals(self._record.files_listed, None)
                self._load_pages(lambda: self._listed_pages(path), loader)
            else:
                self._list_and_load(attached, path, loader, collector)
            state, reason = self._verdict()
            if collector is not None and state == "done":
                collector.publish(use=self._request.use_manifest)
        return state, reason

    def _collector(self, attached: Attached) -> Collector | None:
        """Begin the manifest, if one is asked for and no earlier run of this job came so far.

        Raises: ConfigError (somebody else made one of that version).
        """
        version, manifests, dataset = self._request.manifest, self._parts.manifests, attached.record
        if version is None or manifests.made_by(dataset, version, self._record.id):
            return None
        source = source_text(self._request)
        return Collector(manifests.build(dataset, version, source, job=self._record.id))

    def _attached(self) -> tuple[Attached, str]:
        """Return the dataset and the path in it: the live one where a manifest is to be made of it.

        Raises: NotAttached (also where another has its name).
        """
        dataset, path = split_path(self._request.target)
        is_live = self._request.manifest is not None and VERSION_MARK not in dataset
        attached = self._parts.datasets.live(dataset) if is_live else self._parts.datasets.find(dataset)
        if attached.record.id != self._record.dataset_id:
            raise NotAttached(f"dataset {dataset!r} was detached since, and attached anew")
        return attached, path

    def _open_verifier(self) -> BlockStore:
        """Open the same store to check every block that is read, which other readers need not do."""
        from forebay.store import BlockStore

        return BlockStore(self._fetcher.store.path, checksum="read", maintainer=False)

    def _verdict(self) -> tuple[LoadState, str]:
        """Say how it ended, having gone through."""
        progress = self._meter.progress()
        causes = [
            f"{count} {words}"
            for count, words in (
                (progress.files_failed, "failed"),
                (progress.files_not_admitted, "were not admitted to the cache"),
                (progress.files_evicted, "were evicted again to make room for others"),
            )
            if count
        ]
        if not causes:
            return "done", ""
        return "incomplete", f"of {progress.files_total} files {', '.join(causes)}"

    def _listed_pages(self, path: str) -> Iterator[list[LoadItem]]:
        """Yield what a file list named, from the spool."""
        prefix = f"{path}/" if path else ""
        count = 0
        for page in self._folder.lines("names"):
            count += len(page)
            yield [LoadItem(prefix + name, None, line, error) for line, name, error in page]
        if count != self._record.files_listed:
            cause = f"holds {count} names of the {self._record.files_listed} that were given; load them anew"
            raise OSError(errno.EIO, cause, str(self._folder.path / "names"))

    def _list_and_load(
        self, attached: Attached, path: str, loader: FileLoader, collector: Collector | None
    ) -> None:
        request, parts = self._request, self._parts
        glob = None if request.glob is None else Glob(request.glob)
        if attached.manifest is not None:
            listed = ManifestPages(attached, attached.manifest, path, glob)
            self._load_listed(listed, loader, collector)
            return
        entries = None if request.dry_run else parts.entries
        lister = Lister(attached, path, glob, parts.lookup, entries, self._folder)
        if request.metadata_only:
            self._list_only(lister.pages(self._stop.is_set), collector)
            return
        listing = Listing(self._folder, self._stop)
        is_usable = listing.is_usable(lambda listed_ns: parts.lookup.is_fresh(attached, path, listed_ns))
        if is_usable:
            self._meter.set_totals(*listing.totals)
        else:
            listing.fill(lister, on_end=self._meter.set_totals)
        try:
            if not (is_usable or request.dry_run):
                # While the first page is under way: the first files would wait for it.
                self._fetcher.prepare(attached)
            self._load_pages(lambda: map(_items, listing.pages()), loader)
        finally:
            listing.close()

    def _load_listed(self, listed: ManifestPages, loader: FileLoader, collector: Collector | None) -> None:
        """Load what a manifest lists: it is gone through as often as need be, for it never changes."""
        if self._request.metadata_only:
            self._list_only(listed.pages(), collector)
            return
        self._meter.set_totals(*listed.totals())
        self._load_pages(lambda: map(_items, listed.pages()), loader)

    def _list_only(self, pages: Iterable[list[Entry]], collector: Collector | None) -> None:
        files = size_bytes = 0
        for page in pages:
            if self._stop.is_set():
                break
            if collector is not None:
                collector.add_page(page)
            page_bytes = sum(entry.size for entry in page)
            self._meter.settled("done", 0, files=len(page))
            files, size_bytes = files + len(page), size_bytes + page_bytes
        if self._stop.is_set():
            raise LoadStopped
        self._meter.set_totals(files, size_bytes)

    def _load_pages(self, pages: Callable[[], Iterator[list[LoadItem]]], loader: FileLoader) -> None:
        """Load all files, and look once more for each if any block of the cache was evicted meanwhile."""
        store, is_dry = self._fetcher.store, self._request.dry_run
        evicted = _evicted(store)
        Feeder(self._fetcher.pool, loader, dry_run=is_dry, stop=self._stop).run(pages())
        if is_dry or self._request.metadata_only or _evicted(store) == evicted:
            return
        told = {value["path"] for value in self._folder.lines("failures")}
        for page in pages():
            loader.check_stopped()
            for item in page:
                loader.look_again(item, told)

    def _note(self, result: FileResult, failures: IO[str]) -> None:
        with self._failures_lock:
            try:
                failures.write(json_line(result.to_json()))
                failures.flush()
            except OSError as error:
                # Not the file's error, but the end of the run: nobody would be told.
                raise RuntimeError(f"{self._folder.path}: {words_of(error)}") from error


def _items(page: list[Entry]) -> list[LoadItem]:
    return [LoadItem(entry.path, entry) for entry in page]


def _evicted(store: BlockStore) -> int:
    return int(store.status()["counters"]["evicted"])


def _whole_words(error: BaseException) -> str:
    """Say what an exception says, with the name that it is about."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {words_of(error)}"
    return words_of(error)
