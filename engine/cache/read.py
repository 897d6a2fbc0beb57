"""Reads: which blocks a range of an object lies in, and how their bytes come into one piece.

A range within one block is served as it lies there, and so is one within a file that lies whole. Any other
is gathered into a buffer of its size, hits first, then all misses at once. If the object changes meanwhile
the read begins anew, once, with the new version: bytes of two versions are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from forebay.cache.ahead import Readahead
from forebay.cache.blocks import Block, Gather, Keep, Run, blocks_of, private_view, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher, FirstTouch
from forebay.cache.lookup import Lookup, refuse_directory
from forebay.cache.pool import Kind
from forebay.cache.whole import WholeFiles
from forebay.errors import NotFound, Stale
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.meta import Known
    from forebay.store import View

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object of which something is to be read, with what was looked up of it lately, if anything."""

    attached: Attached
    path: str
    known: Known | None
    offset: int = 0
    length: int | None = None

    @property
    def name(self) -> tuple[str, str]:
        """What it is asked for by."""
        return self.attached.label, self.path

    def end(self, size: int) -> int:
        """Return where the read ends in an object of that size."""
        return size if self.length is None else min(size, self.offset + self.length)


@dataclass(slots=True)
class _Pending:
    """A read that is prepared: blocks to bring, and what makes a view of them then."""

    runs: list[Run]
    finish: Callable[[], View]


class Reader:
    """Reads objects for one process. Threads: any."""

    def __init__(self, lookup: Lookup, fetcher: Fetcher, whole: WholeFiles, max_read_bytes: int) -> None:
        """Use these, all of one process."""
        self._lookup: Final = lookup
        self._fetcher: Final = fetcher
        self._whole: Final = whole
        self._max_read_bytes: Final = max_read_bytes

    def read(self, attached: Attached, path: str, offset: int, length: int | None) -> View:
        """Return a view of length bytes from offset on, or of all from there; fewer at the object's end.

        Raises: ValueError (negative figures; a gathered read above max_read_bytes); as
        UnderStorage.read_range.
        """
        _check_range(offset, length)
        wanted = self._max_read_bytes if length is None else length
        use = partial(self._read_version, attached, offset=offset, length=length)
        return self._with_entry(attached, path, offset, wanted, use)

    def read_known(self, attached: Attached, known: Known, offset: int, length: int | None) -> View:
        """Read as ``read`` what was looked up lately."""
        _check_range(offset, length)
        use = partial(self._read_version, attached, offset=offset, length=length)
        return self._once_more(attached, FirstTouch(known.entry), use)

    def read_many(self, wanted: Sequence[Wanted]) -> list[View]:
        """Return views in the order asked; what is not cached is fetched together.

        Those of one object are of one version. Raises: what the first one in that order raises that cannot be
        read; the others' views are released.
        """
        prepared = self._prepare(wanted)
        self._fetcher.bring([run for each in prepared if isinstance(each, _Pending) for run in each.runs])
        views: list[View] = []
        changed: dict[tuple[str, str], FirstTouch] = {}
        try:
            for asked, each in zip(wanted, prepared, strict=True):
                if asked.name not in changed:
                    try:
                        views.append(self._finish(asked, each))
                        continue
                    except Stale:
                        if asked.attached.manifest is not None or isinstance(each, Exception):
                            raise
                        self._read_anew(asked, wanted, views, changed)
                views.append(self._read_changed(asked, changed[asked.name]))
        except BaseException:
            for view in views:
                view.release()
            raise
        return views

    @property
    def max_read_bytes(self) -> int:
        """What one gathered read has at most."""
        return self._max_read_bytes

    def readinto(self, attached: Attached, path: str, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from offset on; return how many bytes, fewer only at the object's end.

        After an exception the buffer's content means nothing. Raises: as ``read``, whatever the size.
        """
        _check_range(offset, None)
        fill = partial(self._readinto_version, attached, buffer=buffer, offset=offset)
        return self._with_entry(attached, path, offset, len(buffer), fill)

    def readinto_known(self, attached: Attached, known: Known, buffer: memoryview, offset: int) -> int:
        """Fill as ``readinto`` from what was looked up lately."""
        _check_range(offset, None)
        fill = partial(self._readinto_version, attached, buffer=buffer, offset=offset)
        return self._once_more(attached, FirstTouch(known.entry), fill)

    def read_touched(self, attached: Attached, touch: FirstTouch, offset: int, end: int) -> View:
        """Return a view of bytes that an object which was touched has. Raises: Stale; as ``read``."""
        return self._read_version(attached, touch, offset=offset, length=end - offset)

    def entry(self, attached: Attached, path: str) -> Entry:
        """Return what an object is now, for a handle that keeps to that version.

        Raises: as UnderStorage.stat; IsADirectoryError.
        """
        entry = self._lookup.stat(attached, path)
        refuse_directory(attached, entry)
        return entry

    def touch(
        self, attached: Attached, path: str, offset: int, length: int, kind: Kind = Kind.DEMAND
    ) -> tuple[FirstTouch, int]:
        """Return what the object is, and the number of changes from before it was looked up.

        Raises: as UnderStorage.read_range.
        """
        entry, changes = self._lookup.look(attached, path)
        if entry is None:
            self._lookup.raise_if_absent(attached, path)
            asked_ns = self._lookup.now_ns()
            touch = partial(self._fetcher.first_touch, attached, path, offset, length, kind)
            try:
                try:
                    return touch(), changes
                except Stale:
                    # It changed while the answer came.
                    return touch(), changes
            except NotFound:
                self._lookup.note_absent(attached, path, asked_ns)
                raise
        if self._lookup.is_fresh(attached, path, entry.checked_ns):
            return FirstTouch(entry), changes
        now = self._lookup.refresh(attached, path)
        refuse_directory(attached, now)
        return FirstTouch(now, is_changed=now.version != entry.version), changes

    def views(self, attached: Attached, entry: Entry) -> Iterator[View]:
        """Yield the blocks of one version in order, fetching ahead. Raises: Stale; as ``read``."""
        ahead = self.readahead(attached, entry)
        try:
            for block in blocks_of(attached, entry, 0, entry.size, self._fetcher.block_bytes):
                ahead.reads(block.offset, block.end)
                yield self.block_view(attached, block, ahead)
        finally:
            ahead.cancel()

    def readahead(self, attached: Attached, entry: Entry) -> Readahead:
        """Make what fetches ahead of one reader."""
        return Readahead(self._fetcher, self._whole, attached, entry)

    def block_view(self, attached: Attached, block: Block, ahead: Readahead) -> View:
        """Return a block for a reader that has others fetched ahead. Raises: as UnderStorage.read_range."""
        view = ahead.take(block.number)
        if view is not None:
            return view
        try:
            return self._fetcher.view(attached, block)
        except (Stale, NotFound):
            self._lookup.learn(attached, block.entry.path)
            raise

    def _prepare(self, wanted: Sequence[Wanted]) -> list[_Pending | View | Exception]:
        """Look up all, asking for what is not known side by side, and prepare their reads."""
        asked: dict[tuple[str, str], Future[tuple[FirstTouch, int]]] = {}
        touches: dict[int, FirstTouch] = {}
        failed: dict[int, OSError] = {}
        for position, each in enumerate(wanted):
            attached, path, known = each.attached, each.path, each.known
            try:
                entry, changes = (known.entry, 0) if known else self._lookup.look(attached, path)
            except OSError as error:
                failed[position] = error
                continue
            if entry is None or not (known or self._lookup.is_fresh(attached, path, entry.checked_ns)):
                if each.name not in asked:
                    length = self._max_read_bytes if each.length is None else each.length
                    ask = partial(self.touch, attached, path, each.offset, length)
                    asked[each.name] = self._fetcher.pool.submit(Kind.DEMAND, 0, ask)
                continue
            touches[position] = FirstTouch(entry)
            if known is None:
                self._lookup.keep(attached, entry, changes)
        wait(asked.values())
        prepared: list[_Pending | View | Exception] = []
        for position, each in enumerate(wanted):
            try:
                if position in failed:
                    raise failed[position]
                if position not in touches:
                    touches[position], changes = asked[each.name].result()
                    self._lookup.keep(each.attached, touches[position].entry, changes)
            except (OSError, ValueError) as error:
                prepared.append(error)
                continue
            prepared.append(self._planned(each, touches[position]))
        return prepared

    def _planned(self, asked: Wanted, touch: FirstTouch) -> _Pending | View | Exception:
        """Plan the read of an object that was looked up; return what went wrong with that."""
        try:
            return self._plan(asked.attached, touch, asked.offset, asked.end(touch.entry.size))
        except (Stale, NotFound) as error:
            # Found out while the file was brought in one piece: met as if its blocks had been asked for.
            return _Pending([], partial(_raise, error))
        except (OSError, ValueError) as error:
            return error

    def _finish(self, asked: Wanted, prepared: _Pending | View | Exception) -> View:
        """Make the view. Raises: what went wrong with it."""
        if isinstance(prepared, Exception):
            raise prepared
        try:
            return _settle(prepared)
        except NotFound:
            self._lookup.forget(asked.attached, asked.path)
            raise

    def _read_anew(
        self,
        asked: Wanted,
        wanted: Sequence[Wanted],
        views: list[View],
        changed: dict[tuple[str, str], FirstTouch],
    ) -> None:
        """Look up the version that an object has by now, and read in it what was read of another."""
        try:
            touch = FirstTouch(self._ask(asked.attached, asked.path), is_changed=True)
        except NotFound:
            self._lookup.forget(asked.attached, asked.path)
            raise
        changed[asked.name] = touch
        for position, before in enumerate(views):
            if wanted[position].name == asked.name:
                views[position] = self._read_changed(wanted[position], touch)
                before.release()

    def _read_changed(self, asked: Wanted, touch: FirstTouch) -> View:
        """Read in the version that was looked up anew. Raises: as ``read``; Stale (it changed again)."""
        try:
            return self._read_version(asked.attached, touch, offset=asked.offset, length=asked.length)
        except NotFound:
            self._lookup.forget(asked.attached, asked.path)
            raise

    def _with_entry(
        self, attached: Attached, path: str, offset: int, length: int, use: Callable[[FirstTouch], _T]
    ) -> _T:
        """Call use with what the object is, and again, once, if it has changed by then."""
        touch, changes = self.touch(attached, path, offset, length)
        result = self._once_more(attached, touch, use)
        # A version that was replaced meanwhile has raised the number, so it is not found again.
        self._lookup.keep(attached, touch.entry, changes)
        return result

    def _once_more(self, attached: Attached, touch: FirstTouch, use: Callable[[FirstTouch], _T]) -> _T:
        path = touch.entry.path
        try:
            try:
                return use(touch)
            except Stale:
                if attached.manifest is not None:
                    raise
                return use(FirstTouch(self._ask(attached, path), is_changed=True))
        except NotFound:
            self._lookup.forget(attached, path)
            raise

    def _ask(self, attached: Attached, path: str) -> Entry:
        entry = self._lookup.ask(attached, path)
        refuse_directory(attached, entry)
        return entry

    def _read_version(
        self,
        attached: Attached,
        touch: FirstTouch,
        *,
        offset: int,
        length: int | None,
    ) -> View:
        size = touch.entry.size
        end = size if length is None else min(size, offset + length)
        planned = self._plan(attached, touch, offset, end)
        if isinstance(planned, _Pending):
            self._fetcher.bring(planned.runs)
        self._follow(attached, touch.entry, offset, end)
        return _settle(planned)

    def fill(
        self,
        attached: Attached,
        touch: FirstTouch,
        offset: int,
        target: memoryview,
    ) -> None:
        """Fill the target from offset on with bytes that the object has. Raises: as ``read``."""
        sink, end = Gather(target, offset, is_lent=True), offset + len(target)
        missing = self._gather(attached, touch, sink, offset, end)
        if len(missing) == 1:
            first, behind = max(offset, missing[0].offset), min(end, missing[0].end)
            part = self._fetcher.peer_fetch.part(attached, missing[0], first, behind)
            if part is not None:
                target[first - offset : behind - offset] = part
                return
        try:
            self._fetcher.fetch(attached, missing, sink)
        except BaseException:
            sink.leave()
            raise

    def _readinto_version(
        self,
        attached: Attached,
        touch: FirstTouch,
        *,
        buffer: memoryview,
        offset: int,
    ) -> int:
        length = min(len(buffer), max(touch.entry.size - offset, 0))
        self.fill(attached, touch, offset, buffer[:length])
        self._follow(attached, touch.entry, offset, offset + length)
        return length

    def _plan(self, attached: Attached, touch: FirstTouch, offset: int, end: int) -> _Pending | View:
        """Return a view of the range if it can be had without the under storage, else how to get one."""
        if offset >= end:
            return private_view(memoryview(b""))
        if touch.has(offset, end):
            return private_view(touch.bytes_of(offset, end))
        block_bytes = self._fetcher.block_bytes
        if offset // block_bytes == (end - 1) // block_bytes:
            return self._plan_within_block(attached, touch, offset, end)
        whole = self._whole_view(attached, touch.entry, offset, end)
        if whole is not None:
            return whole
        if end - offset > self._max_read_bytes:
            raise ValueError(
                f"{attached.label}/{touch.entry.path}: {end - offset} bytes in one read are more than "
                f"max_read_bytes ({self._max_read_bytes}); read parts of it, or use open, views or readinto"
            )
        buffer = memoryview(bytearray(end - offset))
        sink = Gather(buffer, offset)
        runs = runs_of(attached, self._gather(attached, touch, sink, offset, end), sink)
        return _Pending(runs, lambda: private_view(buffer))

    def _plan_within_block(
        self, attached: Attached, touch: FirstTouch, offset: int, end: int
    ) -> _Pending | View:
        block = self._fetcher.block(attached, touch.entry, offset // self._fetcher.block_bytes)
        view = self._fetcher.store.get(block.key, block.dataset_id, touch.is_changed)
        if view is not None:
            return _part(view, offset - block.offset, end - block.offset)
        part = self._fetcher.peer_fetch.part(attached, block, offset, end)
        if part is not None:
            return private_view(part)
        sink = Keep(end - offset)
        runs = runs_of(attached, [block], sink)
        return _Pending(
            runs, lambda: _part(sink.views[block.number], offset - block.offset, end - block.offset)
        )

    def _whole_view(self, attached: Attached, entry: Entry, offset: int, end: int) -> View | None:
        """Return a view of a file that lies whole, bringing it so if all of it is asked for."""
        view = self._whole.view(attached, entry)
        if view is None and end - offset == entry.size and self._whole.is_worth(attached, entry):
            self._whole.fetch(attached, entry, Kind.DEMAND)
            view = self._whole.view(attached, entry)
        return None if view is None else _part(view, offset, end)

    def _gather(
        self, attached: Attached, touch: FirstTouch, sink: Gather, offset: int, end: int
    ) -> list[Block]:
        """Fill the sink from what is there, and return the blocks that are not."""
        missing = []
        for block in blocks_of(attached, touch.entry, offset, end, self._fetcher.block_bytes):
            if touch.has(block.offset, block.end):
                sink.take(block, touch.bytes_of(block.offset, block.end), admitted=True)
            elif not sink.hit(self._fetcher.store, block, changed=touch.is_changed):
                missing.append(block)
        return missing

    def _follow(self, attached: Attached, entry: Entry, offset: int, end: int) -> None:
        """Bring the file whole if this reader is on its way through it."""
        if end - offset < entry.size and self._whole.is_wanted_whole(attached, entry, offset, end):
            self._whole.fetch_behind(attached, entry)


def _settle(prepared: _Pending | View) -> View:
    """Make the view of what was brought. Raises: what the first run in order ended with."""
    if not isinstance(prepared, _Pending):
        return prepared
    for run in prepared.runs:
        if run.error is not None:
            raise run.error
    return prepared.finish()


def _raise(error: Exception) -> NoReturn:
    raise error


def _part(view: View, start: int, end: int) -> View:
    """Return part of a view; it keeps the view, and with it the lease, for as long as it lives itself."""
    return view if end - start == len(view) else private_view(view[start:end])


def _check_range(offset: int, length: int | None) -> None:
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"offset and length are not negative: offset={offset}, length={length}")
