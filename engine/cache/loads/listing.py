"""What lies below a path of a dataset, listed into the entries and handed on page by page.

A directory that a walk has seen as a whole is noted as listed, so that it is not asked for again; where
directories exist by themselves (a local folder) a walk of objects does not see the empty ones, so they are
not noted.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, Final

from forebay.cache.datasets import Attached
from forebay.cache.loads.glob import Glob
from forebay.cache.loads.spool import JobFolder, json_line
from forebay.cache.lookup import Lookup
from forebay.clock import boot_id
from forebay.errors import NotFound
from forebay.meta import Entries, Entry, Manifest, entries_of
from forebay.ufs import ObjectInfo

_PREFIX_WORKERS: Final = 8
_DIRECTORIES_SEEN_MAX: Final = 10_000


class Lister:
    """Lists for one run. For one thread."""

    def __init__(
        self,
        attached: Attached,
        path: str,
        glob: Glob | None,
        lookup: Lookup,
        entries: Entries | None,
        folder: JobFolder,
    ) -> None:
        """List what is below path, and path itself if it is an object; entries None: remember nothing."""
        self._attached: Final = attached
        self._path: Final = path
        self._glob: Final = glob
        self._lookup: Final = lookup
        self._entries: Final = entries
        self._folder: Final = folder
        self._all_kept = True
        self.started_ns: Final = lookup.now_ns()

    def pages(self, is_stopped: Callable[[], bool]) -> Iterator[list[Entry]]:
        """Yield what matches, page by page, remembered before it is yielded; may be empty pages.

        Raises: as UnderStorage.walk; NotFound (neither an object nor a directory).
        """
        if self._entries is None:
            for infos in self._infos():
                yield self._matching(entries_of(infos, self.started_ns))
                if is_stopped():
                    return
            return
        with self._folder.create("directories") as output:
            directories = _Directories(self._root(), output)
            for infos in self._infos():
                entries = entries_of(infos, self.started_ns)
                found = directories.of(entries, self.started_ns)
                self._all_kept &= self._lookup.remember_page(self._attached, entries + found)
                yield self._matching(entries)
                if is_stopped():
                    return
        if self._all_kept and not self._attached.storage.has_directories:
            self._finish_directories(self._entries, is_stopped)

    def _matching(self, entries: list[Entry]) -> list[Entry]:
        return _matching(self._path, self._glob, entries)

    def _finish_directories(self, entries: Entries, is_stopped: Callable[[], bool]) -> None:
        """Note every directory that was seen as listed: all that is in it has been remembered."""
        seen = itertools.takewhile(lambda _: not is_stopped(), self._folder.lines("directories"))
        entries.finish_listings(self._attached.record.id, seen, self.started_ns)

    def _infos(self) -> Iterator[Sequence[ObjectInfo]]:
        storage, root = self._attached.storage, self._root()
        own = self._object(root)
        pages = storage.walk(root, _PREFIX_WORKERS)
        try:
            first = next(pages, ())
        except NotFound:
            if own is None and root == self._path:
                raise
            first = ()
        if own is not None:
            yield [own]
        yield from itertools.chain([first], pages)

    def _object(self, root: str) -> ObjectInfo | None:
        """Return the path itself if it is an object, which a walk below it does not show."""
        if not root:
            return None
        try:
            info = self._attached.storage.stat(root)
        except NotFound:
            return None
        return None if info.is_dir else info

    def _root(self) -> str:
        """Return where to begin: a pattern whose first parts are plain names needs no more than those."""
        below = self._glob.root if self._glob else ""
        return "/".join(part for part in (self._path, below) if part)


class ManifestPages:
    """What a manifest lists at or below a path, as a lister would show it; nobody is asked."""

    def __init__(self, attached: Attached, manifest: Manifest, path: str, glob: Glob | None) -> None:
        """Go through this manifest. Raises: NotFound (it does not list the path)."""
        if path and manifest.find(path) is None:
            raise attached.not_listed(path)
        self._attached: Final = attached
        self._manifest: Final = manifest
        self._path: Final = path
        self._glob: Final = glob

    def totals(self) -> tuple[int, int]:
        """Return how many objects match, and their bytes."""
        listed = self._attached.listed
        if listed is not None and not self._path and self._glob is None:
            return listed.objects, listed.bytes
        files = size_bytes = 0
        for page in self.pages():
            files += len(page)
            size_bytes += sum(entry.size for entry in page)
        return files, size_bytes

    def pages(self) -> Iterator[list[Entry]]:
        """Yield what matches, page by page; may be empty pages."""
        return (_matching(self._path, self._glob, page) for page in self._manifest.pages(self._path))


class _Directories:
    """The directories of a walk: each is told of as it is first seen, or seen again after a long time."""

    def __init__(self, root: str, output: IO[str]) -> None:
        """Tell of directories at or below root by writing them to a list."""
        self._root = root
        self._output = output
        # In order of being seen, so that the oldest is forgotten.
        self._seen: dict[str, None] = {}

    def of(self, entries: Iterable[Entry], checked_ns: int) -> list[Entry]:
        """Return entries of the directories, below the walk's own, that these lie in."""
        found: list[Entry] = []
        for directory in {entry.path.rpartition("/")[0] for entry in entries}:
            while len(directory) > len(self._root) and directory not in self._seen:
                self._note(directory)
                found.append(Entry(directory, 0, 0, "", True, checked_ns))
                directory = directory.rpartition("/")[0]
            # An object that the walk was asked about itself lies further up.
            if len(directory) == len(self._root) and directory not in self._seen:
                self._note(directory)
        return found

    def _note(self, directory: str) -> None:
        self._seen[directory] = None
        if len(self._seen) > _DIRECTORIES_SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._output.write(json_line(directory))


class Listing:
    """The listing of one run in the job's folder: written by one thread, read behind it by another."""

    def __init__(self, folder: JobFolder, stop: threading.Event) -> None:
        self._folder = folder
        self._stop = stop
        self._changed = threading.Condition()
        self._pages = 0
        self._is_whole = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._listed_ns = 0
        self.totals = (0, 0)

    def is_usable(self, is_fresh: Callable[[int], bool]) -> bool:
        """Say whether an earlier run left a whole listing that still holds."""
        found = self._folder.get("listing.end")
        if found is None or found.get("boot_id") != boot_id() or not is_fresh(found["listed_ns"]):
            return False
        self._pages, self._listed_ns, self._is_whole = found["pages"], found["listed_ns"], True
        self.totals = (found["files"], found["bytes"])
        return True

    def fill(self, lister: Lister, on_end: Callable[[int, int], None]) -> None:
        """List anew, in a thread."""
        self._folder.drop("listing.end")
        self._listed_ns = lister.started_ns
        output = self._folder.create("listing")
        self._thread = threading.Thread(
            target=self._list, args=(lister, output, on_end), name="forebay-load-list", daemon=True
        )
        self._thread.start()

    def _list(self, lister: Lister, output: IO[str], on_end: Callable[[int, int], None]) -> None:
        files = size_bytes = 0
        try:
            with output:
                for page in lister.pages(self._stop.is_set):
                    if page:
                        output.write(json_line([_row(entry) for entry in page]))
                        output.flush()
                        files += len(page)
                        size_bytes += sum(entry.size for entry in page)
                        self._grow(1)
            if not self._stop.is_set():
                self._note_end(files, size_bytes)
                on_end(files, size_bytes)
        except Exception as error:  # noqa: BLE001  (the reader raises it)
            self._error = error
        finally:
            self._grow(0, is_whole=True)

    def _note_end(self, files: int, size_bytes: int) -> None:
        end = {"boot_id": boot_id(), "listed_ns": self._listed_ns, "pages": self._pages}
        self._folder.put("listing.end", {**end, "files": files, "bytes": size_bytes})

    def _grow(self, pages: int, *, is_whole: bool = False) -> None:
        with self._changed:
            self._pages += pages
            self._is_whole = self._is_whole or is_whole
            self._changed.notify_all()

    def pages(self) -> Iterator[list[Entry]]:
        """Yield what was listed, page by page, waiting for more until it is whole.

        Raises: what ended the listing early.
        """
        lines = self._folder.lines("listing")
        number = 0
        while self._wait_for(number):
            number += 1
            yield [_entry(row, self._listed_ns) for row in next(lines)]
        if self._error is not None:
            raise self._error

    def _wait_for(self, number: int) -> bool:
        """Wait until there is a page of that number; False: there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: number < self._pages or self._is_whole)
            return number < self._pages

    def close(self) -> None:
        """Wait for the thread, which a stopped run ends soon."""
        if self._thread is not None:
            self._thread.join()


def _matching(root: str, glob: Glob | None, entries: list[Entry]) -> list[Entry]:
    """Return the objects below a path that match a pattern relative to it; all if there is none."""
    if glob is None:
        return entries
    skipped = len(root) + 1 if root else 0
    return [entry for entry in entries if entry.path != root and glob.matches(entry.path[skipped:])]


def _row(entry: Entry) -> list[Any]:
    return [entry.path, entry.size, entry.mtime_ns, entry.version]


def _entry(row: list[Any], listed_ns: int) -> Entry:
    path, size, mtime_ns, version = row
    return Entry(path, size, mtime_ns, version, False, listed_ns)
