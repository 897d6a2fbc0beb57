"""What a cache is made of: the parts that are the same everywhere, and those that belong to one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forebay.cache.admission import SPARE, Admission, space_of
from forebay.cache.datasets import Attached, Datasets
from forebay.cache.demand import Demand
from forebay.cache.fetch import Fetcher
from forebay.cache.file import FileSource
from forebay.cache.folder import PrivateFolder
from forebay.cache.loads.jobs import Jobs
from forebay.cache.loads.load import Loads
from forebay.cache.loads.run import LoadParts
from forebay.cache.lookup import Lookup
from forebay.cache.manifests.listed import Listed
from forebay.cache.manifests.manage import Manifests
from forebay.cache.manifests.retire import Retirement
from forebay.cache.paths import split_path
from forebay.cache.peers import Peers
from forebay.cache.policies.book import PolicyBook
from forebay.cache.policies.rules import Rules
from forebay.cache.pool import FetchLimits, FetchPool, Kind
from forebay.cache.read import Reader
from forebay.cache.reclaim import Reclaimer
from forebay.cache.record.traces import Traces
from forebay.cache.schedules.records import ScheduleRecords
from forebay.cache.schedules.schedule import Schedules
from forebay.cache.tree import Tree
from forebay.cache.whole import WholeFiles
from forebay.cache.window import Window
from forebay.cache.writes.knowledge import Knowledge
from forebay.cache.writes.recovery import Recovery
from forebay.cache.writes.staging import Staging
from forebay.cache.writes.tickets import Tickets
from forebay.cache.writes.turns import Turns
from forebay.cache.writes.write import WriteParts, Writes
from forebay.clock import Clock
from forebay.meta import Dataset, Entry, Metadata
from forebay.remote import NoRemote, Remote
from forebay.ufs import RequestKind, StorageFactory

if TYPE_CHECKING:
    from forebay.meta import Recent
    from forebay.store import BlockStore


@dataclass(frozen=True)
class Parts:
    """What a cache is made of, the same in every process."""

    folder: str
    store: BlockStore
    remote: Remote
    clock: Clock
    schemes: Mapping[str, StorageFactory]
    limits: FetchLimits
    recent: Recent
    max_read_bytes: int
    staging_dir: str | None
    staging_max: int
    shared_group: int | None
    read_only: bool


class Runtime:
    """Everything of a cache that belongs to one process: handles, connections, threads."""

    def __init__(self, parts: Parts) -> None:
        """Open what is needed to look up and to read; threads are started when there is work for them."""
        self.parts: Final = parts
        store, group, read_only = parts.store, parts.shared_group, parts.read_only
        with ExitStack() as opened:
            self.metadata: Final = opened.enter_context(
                Metadata(parts.folder, shared_group=group, read_only=read_only)
            )
            self.demand: Final = Demand(parts.folder, shared_group=group, read_only=read_only)
            metadata = self.metadata
            self.datasets: Final = Datasets(
                metadata.catalog,
                metadata.manifests,
                parts.schemes,
                partial(_tell_store, parts),
                partial(count_request, store),
            )
            self.pool: Final = FetchPool(parts.limits)
            entries, peers = metadata.entries, Peers(parts.remote, store)
            make_listed = partial(Listed, metadata.versions, metadata.manifests)
            self.reclaimer: Final = Reclaimer(store, entries, self.pool, make_listed)
            self.lookup: Final = Lookup(
                entries,
                parts.clock,
                parts.recent,
                store.block_bytes,
                self.datasets.is_current,
                self.reclaimer.schedule,
                peers,
            )
            self.fetcher: Final = Fetcher(Admission(store, peers), peers, self.lookup, self.pool, self.demand)
            self.whole: Final = WholeFiles(self.fetcher)
            self.reader: Final = Reader(self.lookup, self.fetcher, self.whole, parts.max_read_bytes)
            self.tree: Final = Tree(store, entries, self.lookup, self.reclaimer)
            self.policies: Final = PolicyBook(metadata.catalog, entries, store, self.tree)
            self.retirement: Final = Retirement(
                store, entries, metadata.versions, metadata.manifests, self.reclaimer
            )
            self.manifests: Final = Manifests(metadata.versions, metadata.manifests, self.retirement)
            self.jobs: Final = Jobs(metadata.catalog, Path(parts.folder, "jobs"), group)
            self.traces: Final = Traces(Path(parts.folder, "traces"), store.block_bytes, group)
            self.loads: Final = self._make_loads()
            # In the reverse order, so that nothing begins anew and nobody waits for a server: loads are told,
            # requests end or are left behind, and with them what loads wait for.
            opened.callback(self.loads.close)
            opened.callback(self.pool.close)
            opened.callback(self.datasets.close)
            opened.callback(self.loads.stop)
            self.schedules: Final = self._make_schedules()
            self.staging: Final = self._make_staging()
            self.writes: Final = self._make_writes(opened)
            if not read_only:
                self._mend()
            self._opened: Final = opened.pop_all()

    def locate(self, path: str) -> tuple[Attached, str]:
        """Return the dataset and the path in it, "" for the dataset itself.

        Raises: NotAttached; ValueError, TypeError (no path).
        """
        name, rest = split_path(path)
        return self.datasets.find(name), rest

    def source(self, attached: Attached, entry: Entry, note: Callable[[int, int], None]) -> FileSource:
        """Return what an open file reads one version of an object from; note is told (offset, length)."""
        return FileSource(attached, entry, self.reader, self.fetcher, self.lookup, note)

    def window(self, window_bytes: int | None) -> Window:
        """Return what is fetched ahead of a reader of many objects; None: as of a reader of one."""
        limit = self.parts.limits.readahead_bytes if window_bytes is None else window_bytes
        return Window(self.locate, self.reader, self.fetcher, self.lookup, self.demand, limit)

    def _mend(self) -> None:
        """Go on with what processes that were killed have left."""
        self.reclaimer.begin()
        for dataset in self.datasets.records():
            self.metadata.entries.settle(dataset.id)
        if self.retirement.is_due:
            self.pool.submit(Kind.READAHEAD, 0, self.retirement.run)

    def _make_loads(self) -> Loads:
        parts = LoadParts(
            self.datasets,
            self.metadata.entries,
            self.lookup,
            self.fetcher,
            self._fetcher_of_own(),
            self.parts.remote.share,
            self.manifests,
            self.demand.is_active,
        )
        return Loads(parts, self.jobs, self.parts.schemes)

    def _fetcher_of_own(self) -> Fetcher:
        """Make what fetches, for a share of a load, without asking peers, and keeps all of it here."""
        store, nobody = self.parts.store, Peers(NoRemote(), self.parts.store)
        return Fetcher(Admission(store, nobody), nobody, self.lookup, self.pool, self.demand)

    def _make_schedules(self) -> Schedules:
        records = ScheduleRecords(self.metadata.catalog)
        folder = Path(self.parts.folder, "schedules")
        return Schedules(records, self.jobs, self.loads, folder, self.parts.shared_group)

    def _make_staging(self) -> Staging:
        parts = self.parts
        folder = Path(parts.folder).with_name("writes") if parts.staging_dir is None else parts.staging_dir
        return Staging(PrivateFolder(Path(folder), parts.shared_group), parts.staging_max)

    def _make_writes(self, opened: ExitStack) -> Writes:
        """Make what writes, and have removed what killed writes have left."""
        parts, entries = self.parts, self.metadata.entries
        folder = PrivateFolder(Path(parts.folder).with_name("writes"), parts.shared_group)
        tickets = Tickets(folder)
        if not parts.read_only:
            recovery = Recovery(tickets, entries, parts.clock, parts.schemes, self.reclaimer.schedule)
            opened.callback(recovery.close)
            recovery.begin()
        writes = Writes(
            WriteParts(
                store=parts.store,
                admission=self.fetcher.admission,
                datasets=self.datasets,
                lookup=self.lookup,
                pool=self.pool,
                knowledge=Knowledge(entries, self.lookup, self.reclaimer.schedule),
                turns=Turns(folder),
                tickets=tickets,
                staging=self.staging,
                views=self.reader.views,
            )
        )
        opened.callback(writes.close)
        return writes

    def close(self) -> None:
        """Close everything: loads are interrupted, requests under way are waited for a moment."""
        self._opened.close()


def count_request(store: BlockStore, dataset_id: int, kind: RequestKind) -> None:
    """Count a request that is about to be sent to an under storage."""
    store.count(f"source_{kind}", 1, dataset_id)


def _tell_store(parts: Parts, dataset: Dataset, rules: Rules) -> None:
    """Tell the store how a dataset gives way, what its policies say otherwise, and what it may have."""
    if parts.read_only:
        return
    parts.store.set_quota(dataset.id, dataset.quota_bytes)
    parts.store.set_retention(dataset.id, dataset.retention)
    if Peers(parts.remote, parts.store).copies_of(dataset) == "if_room":
        parts.store.set_retention(space_of(dataset.id, SPARE), SPARE)
    for retention in {policy.retention for policy in rules.policies.values()} - {None}:
        assert retention is not None
        parts.store.set_retention(space_of(dataset.id, retention), retention)
