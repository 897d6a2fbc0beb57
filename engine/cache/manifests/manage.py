"""Manifests of attached datasets: which there are, making one, putting one in use, deleting one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from forebay.cache.manifests.retire import Retirement
from forebay.cache.paths import check_version_name
from forebay.errors import ConfigError, StoreBusy
from forebay.meta import (
    Dataset,
    Entry,
    ManifestBuilder,
    ManifestFiles,
    ManifestRecord,
    Versions,
    refuse_existing,
)


@dataclass(frozen=True, slots=True)
class ManifestStatus:
    """A manifest: what it lists, when (in seconds since 1970) and of what it was made, how it is used.

    is_ordered: an order of access lies beside it. is_in_use: its dataset shows it; is_before: it did before,
    and a rollback puts it in use again.
    """

    dataset: str
    version: str
    objects: int
    bytes: int
    created: float
    source: str
    is_ordered: bool
    is_in_use: bool
    is_before: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


class Manifests:
    """The manifests of one cache, for one process. Threads: any."""

    def __init__(self, versions: Versions, files: ManifestFiles, retirement: Retirement) -> None:
        """Use these, all of one process."""
        self._versions: Final = versions
        self._files: Final = files
        self._retirement: Final = retirement

    def all(self, name: str) -> list[ManifestStatus]:
        """Describe the manifests of a dataset, the oldest first. Raises: NotAttached."""
        dataset = self._versions.dataset(name)
        records = sorted(self._versions.of(dataset.id).values(), key=lambda record: record.number)
        return [_status_of(dataset, record) for record in records]

    def dataset(self, name: str) -> Dataset:
        """Return a dataset. Raises: NotAttached."""
        return self._versions.dataset(name)

    def status(self, name: str, version: str) -> ManifestStatus:
        """Describe one manifest. Raises: NotAttached, ManifestNotFound."""
        return _status_of(self._versions.dataset(name), self._versions.find(name, version))

    def made_by(self, dataset: Dataset, version: str, job: str) -> bool:
        """Say whether a load has made that version before. Raises: ConfigError (somebody else has)."""
        record = self._versions.of(dataset.id).get(version)
        if record is not None and record.job == job:
            return True
        refuse_existing(dataset, self._versions.of(dataset.id), version)
        return False

    def check_new(self, dataset: Dataset, version: str) -> None:
        """Hold the name of a new version to its form, and to what there is. Raises: ConfigError."""
        check_version_name(version)
        refuse_existing(dataset, self._versions.of(dataset.id), version)

    def build(self, dataset: Dataset, version: str, source: str, *, job: str | None = None) -> Building:
        """Begin a manifest; source says in words what it is made of, job which load makes it.

        Raises: ConfigError (a bad name; there is such a version); as Versions; OSError.
        """
        self.check_new(dataset, version)
        draft = ManifestRecord(version, dataset.id, self._versions.new_number(), 0, 0, 0.0, source, job)
        return Building(self._versions, dataset, draft, self._files.build(draft))

    def use(self, name: str, version: str | None) -> None:
        """Put a manifest in use; None: none. Raises: as Versions.use."""
        self._versions.use(name, version)

    def roll_back(self, name: str) -> str:
        """Put the manifest in use that was before, and return its version. Raises: as Versions.roll_back."""
        return self._versions.roll_back(name)

    def delete(self, name: str, version: str) -> None:
        """Delete a manifest, and drop blocks that nothing else needs. Raises: as Versions.delete."""
        record = self._versions.delete(name, version)
        # What a stopped process is in the way of is left to whoever opens the cache next.
        with suppress(StoreBusy):
            self._retirement.retire(record)

    def entries(self, name: str, version: str) -> Iterator[Entry]:
        """Yield the objects of a manifest, in the order of access if it has one.

        Raises while it is iterated: NotAttached, ManifestNotFound; ConfigError, OSError (it cannot be read).
        """
        record = self._versions.find(name, version)
        manifest = self._files.open(record)
        if not record.is_ordered:
            for page in manifest.pages(""):
                yield from page
            return
        for path in self._files.order(record):
            entry = manifest.find(path)
            if entry is None:
                raise ConfigError(f"the order of manifest {version!r} is damaged; make it anew")
            yield entry

    def order(self, name: str, version: str) -> Iterator[str]:
        """Return the paths of a manifest in the order of access.

        Raises: NotAttached, ManifestNotFound; ConfigError (there is no order); OSError.
        """
        record = self._versions.find(name, version)
        if not record.is_ordered:
            raise ConfigError(f"manifest {version!r} of dataset {name!r} has no order of access")
        return self._files.order(record)


class DuplicateEntry(ValueError):  # noqa: N818  (says what was found)
    """Two entries of one path; checked_ns is the time of the first."""

    def __init__(self, checked_ns: int) -> None:
        """Tell which one."""
        super().__init__("a path comes more than once")
        self.checked_ns: Final = checked_ns


class Building:
    """A manifest on its way; a context manager that leaves nothing behind unless it was published.

    For one thread at a time.
    """

    def __init__(
        self, versions: Versions, dataset: Dataset, draft: ManifestRecord, builder: ManifestBuilder
    ) -> None:
        """Build with this builder what the draft says of it already."""
        self._versions: Final = versions
        self._dataset: Final = dataset
        self._draft: Final = draft
        self._builder: Final = builder

    def add(self, entries: Iterable[Entry]) -> None:
        """List objects. Raises: as ManifestBuilder.add."""
        self._builder.add(entries)

    def add_order(self, paths: Iterable[str], *, as_read: bool = False) -> None:
        """Lay down the order of access of all that was added. As ManifestBuilder.add_order."""
        self._builder.add_order(paths, as_read=as_read)

    def check_count(self, first_ns: int, count: int) -> None:
        """Hold what is listed to the number of entries added, which have these times one after another.

        Raises: DuplicateEntry (the path of one comes again).
        """
        if self._builder.size().objects != count:
            lost_ns = self._builder.first_lost(first_ns, count)
            if lost_ns is not None:
                raise DuplicateEntry(lost_ns)

    def publish(self, *, use: bool = False) -> ManifestStatus:
        """Let the manifest come into being, and with use be shown, at once for everybody.

        Raises: ConfigError (there is one of that version by now); as Versions.add and ManifestBuilder.finish.
        """
        size = self._builder.finish()
        record = replace(
            self._draft,
            objects=size.objects,
            bytes=size.bytes,
            created=time.time(),
            is_ordered=self._builder.is_ordered,
        )
        self._versions.add(self._dataset, record, use=use)
        self._builder.keep()
        return _status_of(self._versions.dataset(self._dataset.name), record)

    def __enter__(self) -> Self:
        """Return this building."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Take away what was not published."""
        self._builder.close()


def _status_of(dataset: Dataset, record: ManifestRecord) -> ManifestStatus:
    return ManifestStatus(
        dataset=dataset.name,
        version=record.version,
        objects=record.objects,
        bytes=record.bytes,
        created=record.created,
        source=record.source,
        is_ordered=record.is_ordered,
        is_in_use=record.version == dataset.manifest,
        is_before=record.version == dataset.manifest_before,
    )
