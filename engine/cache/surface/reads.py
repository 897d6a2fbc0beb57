"""Reading: views, buffers, open files, and what a path names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from forebay.cache.blocks import private_view
from forebay.cache.file import CachedFile, FileSource
from forebay.cache.node_file import NodeFile
from forebay.cache.ranges import Span, joined
from forebay.cache.read import Wanted
from forebay.cache.snapshot import Ranges
from forebay.cache.status import FileStatus, status_of_known
from forebay.cache.surface.base import CacheBase, object_at, object_to_write, objects_at
from forebay.cache.writes.file import WritableFile
from forebay.errors import NotFound
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.cache._snapshot import Snapshot
    from forebay.meta import Known
    from forebay.store import View


class Reads(CacheBase):
    """The verbs that read objects."""

    def read(self, path: str, offset: int = 0, length: int | None = None) -> View:
        """Return a read-only view of length bytes from offset on, or of all; fewer at the object's end.

        What lies in one block of a memory tier, or in a file that lies there whole, is not copied. A longer
        range is gathered into a buffer, up to max_read_bytes. Blocking: what is not cached is fetched.
        Raises: ValueError (negative figures, or too long).
        """
        known = self._recent.get(path)
        key = known.key if known is not None and offset == 0 and length is None else None
        if key is not None:
            view = self._store.peek(key)
            if view is not None:
                if self._recorder is not None:
                    self._note(path, 0, len(view))
                return view
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        if known is None or known.is_dir or not attached.shows(known.entry):
            view = runtime.reader.read(attached, rest, offset, length)
        else:
            view = runtime.reader.read_known(attached, known, offset, length)
        self._note(path, offset, len(view))
        return view

    def peek(self, path: str, *, bytes_max: int | None = None) -> View | None:
        """Return a view of a whole object of one block if it was looked up lately and is cached, else None.

        bytes_max: None of a larger one. Asks nobody and waits for nobody, but for a disk tier.
        """
        known = self._known_object(path)
        is_wanted = known is not None and (bytes_max is None or known.size <= bytes_max)
        view = self._peek(known) if is_wanted else None
        if view is not None:
            self._note(path, 0, len(view))
        return view

    def read_many(self, paths: Iterable[str]) -> list[View]:
        """Return views of whole objects, in the order of the paths; what is not cached is fetched together.

        Raises: what the first of the paths raises that cannot be read.
        """
        names = list(paths)
        knowns = [self._known_object(path) for path in names]
        peeked = [self._peek(known) for known in knowns]
        views = [view for view in peeked if view is not None]
        if not names or len(views) < len(names) or not self._hold_still(names, knowns):
            views = self._read_rest(names, knowns, peeked)
        if self._recorder is not None:
            for path, view in zip(names, views, strict=True):
                self._note(path, 0, len(view))
        return views

    def read_ranges(self, ranges: Iterable[tuple[str, int, int | None]]) -> list[View]:
        """Return views of ranges, each a path, an offset and a length or None, in their order.

        As ``read_many`` of parts of objects. Ranges of one object that share a block are read as one.
        Raises: as ``read``, what the first of them raises that cannot be read.
        """
        asked = list(ranges)
        runtime = self._runtime()
        positions: dict[str, list[int]] = {}
        for position, (path, _, _) in enumerate(asked):
            positions.setdefault(path, []).append(position)
        wanted: list[Wanted] = []
        places: dict[int, tuple[int, int]] = {}
        for path, attached, rest in objects_at(runtime, positions):
            known = self._known_object(path)
            known = known if known and attached.shows(known.entry) else None
            spans = [Span(asked[position][1], asked[position][2]) for position in positions[path]]
            wide, owners = joined(spans, self._store.block_bytes, runtime.reader.max_read_bytes)
            for position, span, owner in zip(positions[path], spans, owners, strict=True):
                places[position] = len(wanted) + owner, span.offset - wide[owner].offset
            wanted += [Wanted(attached, rest, known, span.offset, span.length) for span in wide]
        views = runtime.reader.read_many(wanted)
        found: list[View] = []
        for position, (path, offset, length) in enumerate(asked):
            owner, start = places[position]
            view = views[owner]
            end = len(view) if length is None else min(start + length, len(view))
            # Each is a view of its own, to be released by itself.
            is_whole = start == 0 and end == len(view) and len(views) == len(asked)
            found.append(view if is_whole else private_view(view[start:end]))
            self._note(path, offset, len(found[-1]))
        return found

    def readinto(self, path: str, buffer: Any, offset: int = 0) -> int:
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end.

        The buffer is writable and C-contiguous; after an exception its content means nothing.
        Raises: TypeError (another buffer).
        """
        target = memoryview(buffer).cast("B")
        if target.readonly:
            raise TypeError("readinto needs a writable buffer")
        known = self._recent.get(path)
        key = known.key if known is not None and offset == 0 and len(target) >= known.size else None
        if key is not None:
            copied = self._store.readinto(key, target, quiet=True)
            if copied is not None:
                if self._recorder is not None:
                    self._note(path, 0, copied)
                return copied
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        if known is None or known.is_dir or not attached.shows(known.entry):
            copied = runtime.reader.readinto(attached, rest, target, offset)
        else:
            copied = runtime.reader.readinto_known(attached, known, target, offset)
        self._note(path, offset, copied)
        return copied

    def views(self, path: str) -> Iterator[View]:
        """Yield an object's blocks in order, each a view, fetching ahead: for what is too large for `read`.

        All are of one version. Raises: while it is iterated, Stale (the object has another version by now).
        """
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        entry = runtime.reader.entry(attached, rest)
        return self._noted(path, runtime.reader.views(attached, entry))

    @overload
    def open(self, path: str, mode: Literal["r", "rb"] = "rb") -> CachedFile: ...

    @overload
    def open(self, path: str, mode: Literal["wb", "xb", "ab"]) -> WritableFile: ...

    def open(self, path: str, mode: str = "rb") -> CachedFile | WritableFile:
        """Open an object as a binary file that seeks: to read the version that it has now, or to write it.

        What is written ("wb", or "xb" for a new object) is staged on local disk, and put as by ``put`` when
        the file is closed; an exception in its ``with`` block leaves everything as it was. "ab" writes on at
        the end of an object: all of it is staged and put anew, unless another wrote it meanwhile. Raises:
        ValueError (another mode); for writing as ``put``; UnderStorageError with EOPNOTSUPP ("xb": the under
        storage would not refuse to replace what another has written); Stale, when it is closed ("ab").
        """
        if mode in ("wb", "xb"):
            runtime = self._runtime()
            return runtime.writes.open(path, *object_to_write(runtime, path), exclusive=mode == "xb")
        if mode == "ab":
            runtime = self._runtime()
            return runtime.writes.append(path, *object_to_write(runtime, path))
        if mode not in ("r", "rb"):
            raise ValueError(f"mode {mode!r}: objects are binary files, opened as 'rb', 'wb', 'xb' or 'ab'")
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        entry = runtime.reader.entry(attached, rest)
        # In a forked child too it is the version that was opened.
        fixed_path = f"{attached.fixed_label}/{rest}"
        return CachedFile(path, entry, lambda entry: self._source(path, fixed_path, entry))

    def snapshot(self, path: str) -> Snapshot:
        """Return an object in the version that it has now, to be read by ranges, by any thread.

        Of this process alone. Raises: as ``open``.
        """
        known = self.known_snapshot(path)
        if known is not None:
            return known
        runtime = self._runtime()
        entry = runtime.reader.entry(*object_at(runtime, path))
        return self._snapshots.of(path, entry, self._ranges, None if self._recorder is None else self._note)

    def known_snapshot(self, path: str) -> Snapshot | None:
        """Return as ``snapshot`` an object that was looked up lately, and still is as it was; else None.

        Never waits, and raises nothing.
        """
        if self._closed:
            return None
        return self._snapshots.known(path, self._ranges, None if self._recorder is None else self._note)

    def stat(self, path: str) -> FileStatus:
        """Describe an object or a directory. Raises: NotFound."""
        known = self._recent.get(path)
        if known is not None and not self._closed:
            return status_of_known(known)
        runtime = self._runtime()
        return runtime.tree.status(*runtime.locate(path))

    def exists(self, path: str) -> bool:
        """Say whether there is such an object or directory.

        Raises: all that ``stat`` raises but NotFound.
        """
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def _peek(self, known: Known | None) -> View | None:
        """Return a view of an object that was looked up lately and is one cached block; counts no miss."""
        key = None if known is None else known.key
        return None if key is None else self._store.peek(key)

    def _hold_still(self, paths: list[str], knowns: list[Known | None]) -> bool:
        """Say whether no dataset has begun to show something else since the first of these was looked up."""
        for path, known in zip(paths, knowns, strict=True):
            now = self._recent.get(path)
            if known is None or now is None or now.key != known.key:
                return False
        return True

    def _read_rest(
        self, paths: list[str], knowns: list[Known | None], peeked: list[View | None]
    ) -> list[View]:
        """Return what was peeked at, and the rest read together, all of what each dataset shows now.

        Raises: what the first of the paths raises that cannot be read.
        """
        runtime = self._runtime()
        wanted: list[Wanted] = []
        found: list[View | None] = []
        for (_, attached, rest), known, view in zip(objects_at(runtime, paths), knowns, peeked, strict=True):
            is_shown = known is not None and attached.shows(known.entry)
            found.append(view if is_shown else None)
            if found[-1] is None:
                wanted.append(Wanted(attached, rest, known if is_shown else None))
        read = iter(runtime.reader.read_many(wanted))
        return [next(read) if view is None else view for view in found]

    def _known_object(self, path: str) -> Known | None:
        """Return what was looked up lately of an object."""
        known = self._recent.get(path)
        return None if known is None or known.is_dir else known

    def _source(self, path: str, fixed_path: str, entry: Entry) -> FileSource:
        """Return what an open file reads from, in the calling process."""
        runtime = self._runtime()
        return runtime.source(runtime.locate(fixed_path)[0], entry, partial(self._note, path))

    def _ranges(self, path: str, entry: Entry) -> Ranges:
        """Return what reads parts of a snapshot, and what is not cached."""
        runtime = self._runtime()
        attached = object_at(runtime, path)[0]
        note = None if self._recorder is None else partial(self._note, path)
        return Ranges(
            entry.size,
            partial(runtime.source, attached, entry, partial(self._note, path)),
            partial(NodeFile, attached, entry, runtime.fetcher, runtime.reader, runtime.lookup, note),
        )

    def _note(self, path: str, offset: int, length: int) -> None:
        """Tell the recorder, if there is one, what was read."""
        if self._recorder is not None:
            self._recorder.note(path, offset, length, self._size_of(path, offset + length))

    def _size_of(self, path: str, read_bytes: int) -> int:
        """Return the size of an object of which so much was read just now."""
        known = self._known_object(path)
        if known is not None:
            return known.size
        runtime = self._runtime()
        with suppress(OSError, LookupError):
            entry = runtime.lookup.known(*runtime.locate(path))
            if entry is not None:
                return entry.size
        # Forgotten meanwhile.
        return read_bytes

    def _noted(self, path: str, views: Iterator[View]) -> Iterator[View]:
        """Yield the views, each of which begins where the one before ends, telling the recorder."""
        offset = 0
        for view in views:
            self._note(path, offset, len(view))
            offset += len(view)
            yield view
