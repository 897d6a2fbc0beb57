"""One dataset as a tree of numbered nodes, for frontends that speak of inodes and not of paths.

A node's number is its entry's inode, which every process and every mount of the cache knows, so nothing here
grows with the number of files: paths of numbers that are no longer among those used lately are found by the
entries' own table. What no entry could be written for has a number for the time, from a small table. A name
that is both an object and a directory is the directory here: a file system has room for one.

Every question comes in two forms: at once, by what lies in memory and in the metadata, or None if the under
storage would have to be asked; and the one that asks it.
"""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from forebay.cache.bound import Bound
from forebay.cache.datasets import Attached
from forebay.cache.node_file import NodeFile
from forebay.cache.pages import pages_of
from forebay.cache.paths import block_keys
from forebay.cache.writes.node_writer import NodeWriter
from forebay.config import check_platform
from forebay.errors import Stale
from forebay.meta import Entry, Recent, manifest_of_inode
from forebay.meta.rows import DIRECTORY, OBJECT

if TYPE_CHECKING:
    from forebay.cache.runtime import Runtime

check_platform()

ROOT_INODE: Final = 1
# Numbers below are the frontends' own; entries have theirs from 1 << 33 on.
TRANSIENT_INODE_FIRST: Final = 1 << 32
_TRANSIENT_INODE_END: Final = 1 << 33

# The dataset is looked up so often at most: that takes longer than what a look-up takes besides.
_ATTACHED_KEPT_NS: Final = 10_000_000
_PATHS_KEPT: Final = 32_768
_TRANSIENT_KEPT: Final = 65_536
_BOUND_KEPT: Final = 65_536


class Node(NamedTuple):
    """An object or a directory, as it was looked up; valid_s: for how long that holds, None for ever."""

    inode: int
    entry: Entry
    attached: Attached
    valid_s: float | None


class State(NamedTuple):
    """A dataset as it was at one moment, and how often something known of it had become different by then."""

    attached: Attached
    changes: int


class Figures(NamedTuple):
    """Bytes that the tiers may hold for a dataset, and hold of it, and that are still free for it."""

    quota_bytes: int
    used_bytes: int
    free_bytes: int


class Nodes:
    """The nodes of one dataset, or of one version of it, for the process that made it. Threads: any.

    Every method raises NotAttached (it was detached), Closed; those that take an inode, Stale where it
    stands for nothing any more.
    """

    def __init__(self, runtime: Runtime, label: str, note: Callable[[str, int, int], None] | None) -> None:
        """Use the parts of this process; note, if any, is told path, offset and length of what is read.

        Raises: NotAttached.
        """
        self._runtime: Final = runtime
        self._entries: Final = runtime.metadata.entries
        self._label: Final = label
        self._note: Final = note
        self._recent: Final = Recent(runtime.parts.recent.bytes_max)
        self._lookup: Final = runtime.lookup.remembering(self._recent)
        self._paths: Final = _Paths(_PATHS_KEPT)
        self._transient: Final = _Transient(_TRANSIENT_KEPT)
        self._bound: Final = Bound(_BOUND_KEPT)
        self._kept: tuple[int, Attached] = (0, self._find())
        dataset_id = self._kept[1].record.id
        if self._entries.counter(dataset_id).load() == 0:
            # Whatever is written first counts as a change, and would be taken for one.
            self._entries.announce(dataset_id)

    @property
    def block_bytes(self) -> int:
        """How much is fetched at a time."""
        return self._runtime.fetcher.block_bytes

    def attached(self) -> Attached:
        """Return the dataset as it is now, or was a moment ago."""
        until_ns, attached = self._kept
        return attached if time.monotonic_ns() < until_ns else self.attached_now()

    def attached_now(self) -> Attached:
        """Return the dataset as it is now, and from now on."""
        attached = self._find()
        self._kept = (time.monotonic_ns() + _ATTACHED_KEPT_NS, attached)
        return attached

    def _find(self) -> Attached:
        return self._runtime.datasets.find(self._label)

    def state(self) -> State:
        """Return what stays as it is for as long as everything does that was looked up and still holds."""
        attached = self.attached()
        return State(attached, self._lookup.changes(attached))

    def is_still(self, state: State) -> bool:
        """Say whether a state is the one there is now."""
        attached, changes = state
        return self.attached() is attached and self._lookup.changes(attached) == changes

    def root(self) -> Node:
        """Return the dataset's own node."""
        attached = self.attached()
        return Node(ROOT_INODE, Entry("", 0, 0, "", True, 0, ROOT_INODE), attached, None)

    def writer(self) -> NodeWriter:
        """Return what changes the dataset."""
        return NodeWriter(self._runtime.writes, self._runtime.staging, self.attached)

    def path_of(self, inode: int) -> str:
        """Return the path of a node. Raises: Stale."""
        return self._path_of(self.attached(), inode)

    def path_in(self, parent: int, name: str) -> str:
        """Return the path of a name in a directory. Raises: Stale."""
        return self._path_in(self.attached(), parent, name)

    def bind(self, path: str, inode: int | None = None) -> int:
        """Let a path keep a number, None: one of its own, whatever is found there, and return it."""
        number = self._bound.number_of(path)
        if number is None:
            number = self._transient.number_of(path) if inode is None else inode
            self._bound.bind(path, number)
        return number

    def moved(self, path: str, target: str, inode: int) -> None:
        """Let what is at the target, and below it, have the numbers that it had at a path."""
        below = self._bound.below(path)
        self._paths.clear()
        self.removed(path)
        self._bound.bind(target, inode)
        for each, number in below:
            self._bound.bind(f"{target}{each[len(path) :]}", number)

    def removed(self, path: str) -> None:
        """Let a number that was given to a path stand for nothing any more."""
        self._bound.release(path)
        self._transient.forget(path)

    def known_child(self, parent: int, name: str) -> Node | None:
        """Return what is known of a name in a directory, if that holds.

        Raises: NotFound, where no more need be asked to say so.
        """
        attached = self.attached()
        return self._known(attached, self._path_in(attached, parent, name))

    def child(self, parent: int, name: str) -> Node:
        """Return what a name in a directory is. Raises: as UnderStorage.stat."""
        return self.node_at(self.path_in(parent, name))

    def node_at(self, path: str) -> Node:
        """Return what a path is. Raises: as UnderStorage.stat."""
        attached = self.attached()
        return self._known(attached, path) or self._asked(attached, path)

    def known(self, inode: int) -> Node | None:
        """Return what is known of a node, if that holds."""
        if inode == ROOT_INODE:
            return self.root()
        attached = self.attached()
        node = self._known(attached, self._path_of(attached, inode))
        return None if node is None else _same(node, inode)

    def node(self, inode: int) -> Node:
        """Return what a node is. Raises: as UnderStorage.stat."""
        if inode == ROOT_INODE:
            return self.root()
        attached = self.attached()
        path = self._path_of(attached, inode)
        return _same(self._known(attached, path) or self._asked(attached, path), inode)

    def valid_s(self, attached: Attached, entry: Entry) -> float | None:
        """Return for how many seconds from now on an entry holds, None for ever."""
        return self._lookup.valid_s(attached, entry)

    def known_children(self, inode: int) -> Iterator[list[Entry]] | None:
        """Yield what lies in a directory, some hundreds at a time, if all of that is known and holds.

        Directories first, each kind in the order of names. Raises: while it is iterated, OSError.
        """
        attached = self.attached()
        directory = self._path_of(attached, inode)
        if attached.manifest is not None:
            if directory and attached.manifest.shown(directory) is None:
                raise attached.not_listed(directory)
            return self._pages(attached, directory)
        listed_ns = self._entries.listed_ns(attached.record.id, directory)
        if not self._lookup.is_listing_fresh(attached, directory, listed_ns):
            return None
        return self._pages(attached, directory)

    def children(self, inode: int) -> Iterator[list[Entry]]:
        """Yield as ``known_children``, asking if need be. Raises: as UnderStorage.list."""
        pages = self.known_children(inode)
        if pages is not None:
            return pages
        attached = self.attached()
        directory = self._path_of(attached, inode)
        unwritten = self._lookup.list_anew(attached, directory)
        return self._pages(attached, directory) if unwritten is None else iter([self._numbered(unwritten)])

    def open(self, node: Node) -> NodeFile:
        """Return an object that keeps to the version of that node."""
        runtime, (_, entry, attached, _) = self._runtime, node
        note = None if self._note is None else partial(self._note, f"{attached.label}/{entry.path}")
        return NodeFile(attached, entry, runtime.fetcher, runtime.reader, self._lookup, note)

    def cached_bytes(self, node: Node) -> int:
        """Return how many bytes of an object are cached."""
        entry, block_bytes, store = node.entry, self.block_bytes, self._runtime.parts.store
        found = 0
        number = 0
        wanted = [(entry.path, entry.version, entry.size)]
        for keys in block_keys(node.attached.record.id, wanted, block_bytes):
            for is_there in store.contains_many(keys):
                if is_there:
                    found += min(block_bytes, entry.size - number * block_bytes)
                number += 1
        return found

    def is_pinned(self, node: Node) -> bool:
        """Say whether a policy keeps what is cached of a path from eviction."""
        return bool(node.attached.rules.of(node.entry.path).pin)

    def figures(self) -> Figures:
        """Return what the tiers hold. Blocking: they are counted."""
        record = self.attached().record
        status = self._runtime.parts.store.status()
        tiers = status["tiers"]
        quota = sum(tier["quota_bytes"] for tier in tiers)
        used = status["committed_bytes"]
        of_dataset = status["datasets"].get(record.id, {})
        held = of_dataset.get("committed_bytes", 0)
        free = max(quota - used, 0)
        if record.quota_bytes is not None:
            quota = min(quota, record.quota_bytes)
            free = min(free, max(quota - held, 0))
        return Figures(quota, held, free)

    def _path_in(self, attached: Attached, parent: int, name: str) -> str:
        directory = self._path_of(attached, parent)
        return f"{directory}/{name}" if directory else name

    def _path_of(self, attached: Attached, inode: int) -> str:
        """Return the path of a node. Raises: Stale."""
        if inode == ROOT_INODE:
            return ""
        path = self._bound.path_of(inode) or self._paths.get(inode)
        if path is not None:
            return path
        if inode < _TRANSIENT_INODE_END:
            path = self._transient.path_of(inode)
        elif manifest_of_inode(inode):
            manifest = attached.manifest
            is_ours = manifest is not None and manifest.number == manifest_of_inode(inode)
            entry = manifest.by_inode(inode) if manifest is not None and is_ours else None
            path = None if entry is None else entry.path
        else:
            found = self._entries.by_inode(inode)
            path = None if found is None or found[0] != attached.record.id else found[1].path
        if path is None:
            raise _forgotten(self._label, inode)
        self._paths.put(inode, path)
        return path

    def _known(self, attached: Attached, path: str) -> Node | None:
        known = self._recent.get(f"{attached.label}/{path}")
        if known is not None and attached.shows(entry := known.entry):
            return self._made(attached, entry)
        if attached.manifest is not None:
            # The number first, as in Lookup.
            changes = self._entries.changes(attached.record.id)
            found = attached.manifest.shown(path)
            if found is None:
                raise attached.not_listed(path)
        else:
            found, changes = self._entries.shown(attached.record.id, path)
            if found is None:
                self._lookup.raise_if_absent(attached, path)
                return None
            if not self._lookup.is_fresh(attached, path, found.checked_ns):
                return None
        self._lookup.keep(attached, found, changes)
        return self._made(attached, found)

    def _asked(self, attached: Attached, path: str) -> Node:
        entry = self._lookup.refresh(attached, path)
        for find in (self._entries.shown, self._find_object):
            kept, changes = find(attached.record.id, path)
            # As new as the answer: another may have asked since, or a directory of that name is known.
            if kept is not None and kept.checked_ns >= entry.checked_ns:
                self._lookup.keep(attached, kept, changes)
                return self._made(attached, kept)
        # It could not be written down.
        return self._made(attached, entry._replace(inode=self._transient.number_of(path)))

    def _find_object(self, dataset_id: int, path: str) -> tuple[Entry | None, int]:
        return self._entries.seen(dataset_id, path, directories=True)

    def _made(self, attached: Attached, entry: Entry) -> Node:
        path = entry.path
        inode = self._bound.number_of(path) or entry.inode
        if self._paths.get(inode) != path:
            self._paths.put(inode, path)
        valid_s = None if attached.lasts else self._lookup.valid_s(attached, entry)
        return Node(inode, entry, attached, valid_s)

    def _pages(self, attached: Attached, directory: str) -> Iterator[list[Entry]]:
        directories: set[str] = set()
        for page in pages_of(self._entries, attached, directory, DIRECTORY):
            directories.update(entry.path for entry in page)
            yield self._as_bound(page)
        for page in pages_of(self._entries, attached, directory, OBJECT):
            if directories and not directories.isdisjoint(entry.path for entry in page):
                for entry in page:
                    if entry.path in directories:
                        self._recent.forget(f"{attached.label}/{entry.path}")
                page = [entry for entry in page if entry.path not in directories]
            yield self._as_bound(page)

    def _as_bound(self, page: list[Entry]) -> list[Entry]:
        if not self._bound:
            return page
        number_of = self._bound.number_of
        return [entry._replace(inode=number_of(entry.path) or entry.inode) for entry in page]

    def _numbered(self, entries: Sequence[Entry]) -> list[Entry]:
        """Give numbers for the time to what was listed and could not be written down."""
        by_path = {entry.path: entry for entry in sorted(entries, key=lambda entry: entry.is_dir)}
        return self._as_bound(
            [entry._replace(inode=self._transient.number_of(path)) for path, entry in by_path.items()]
        )


class _Paths:
    """Number -> path, of those that were looked up last. Threads: any."""

    def __init__(self, count_max: int) -> None:
        self._count_max: Final = count_max
        self._lock: Final = Lock()
        self._paths: Final[OrderedDict[int, str]] = OrderedDict()

    def get(self, inode: int) -> str | None:
        return self._paths.get(inode)

    def put(self, inode: int, path: str) -> None:
        with self._lock:
            self._paths[inode] = path
            if len(self._paths) > self._count_max:
                self._paths.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._paths.clear()


class _Transient:
    """Numbers of what has no entry, each given once; the oldest give way. Threads: any."""

    def __init__(self, count_max: int) -> None:
        self._count_max: Final = count_max
        self._lock: Final = Lock()
        self._next: Final = count(TRANSIENT_INODE_FIRST)
        self._numbers: Final[OrderedDict[str, int]] = OrderedDict()
        self._paths: Final[dict[int, str]] = {}

    def number_of(self, path: str) -> int:
        """Return the number of a path, the same while it is among those that were asked for lately."""
        with self._lock:
            number = self._numbers.pop(path, None)
            if number is None:
                number = next(self._next)
                self._paths[number] = path
            self._numbers[path] = number
            if len(self._numbers) > self._count_max:
                del self._paths[self._numbers.popitem(last=False)[1]]
            return number

    def path_of(self, number: int) -> str | None:
        """Return the path that has a number."""
        return self._paths.get(number)

    def forget(self, path: str) -> None:
        """Let a path have another number from now on."""
        with self._lock:
            number = self._numbers.pop(path, None)
            if number is not None:
                del self._paths[number]


def _same(node: Node, inode: int) -> Node:
    """Return the node if it is the one with that number. Raises: Stale."""
    if node.inode != inode:
        raise _forgotten(node.attached.label, inode)
    return node


def _forgotten(label: str, inode: int) -> Stale:
    return Stale(errno.ESTALE, f"nothing has the number {inode} any more", label)
