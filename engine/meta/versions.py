"""Which manifests there are, and which of them each dataset shows: rows of the catalog, one commit a change.

A manifest comes into being with its row, and is shown from the commit on that names it in the dataset's
record; what processes remember of the dataset no longer holds from then on. Nothing here looks into a
manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Final

from forebay.config import nearest
from forebay.errors import ConfigError, ManifestNotFound, NotAttached
from forebay.meta.catalog import Catalog, CatalogChange, Dataset
from forebay.meta.entries import Entries
from forebay.meta.manifest_record import ManifestRecord


class Versions:
    """The manifests that the catalog names. Threads: any; other processes may write as well.

    What changes something raises NotAttached (no such dataset, or another has its name by now), StoreBusy,
    PermissionError (opened to be read only), and OSError where it cannot be written.
    """

    def __init__(self, catalog: Catalog, entries: Entries) -> None:
        """Use this catalog, and the change counters of these entries."""
        self._catalog: Final = catalog
        self._entries: Final = entries

    def dataset(self, name: str) -> Dataset:
        """Return a dataset. Raises: NotAttached."""
        dataset = self._catalog.datasets().get(name)
        if dataset is None:
            raise not_attached(name, self._catalog.datasets())
        return dataset

    def of(self, dataset_id: int) -> Mapping[str, ManifestRecord]:
        """Return the complete manifests of a dataset, by version."""
        return self._catalog.contents().manifests.get(dataset_id, {})

    def shows_live(self, dataset_id: int) -> bool:
        """Say whether a dataset shows what its under storage has."""
        for dataset in self._catalog.datasets().values():
            if dataset.id == dataset_id:
                return dataset.manifest is None and not dataset.manifest_only
        return False

    def find(self, name: str, version: str) -> ManifestRecord:
        """Return a manifest. Raises: NotAttached, ManifestNotFound."""
        dataset = self.dataset(name)
        return find_version(dataset, self.of(dataset.id), version)

    def new_number(self) -> int:
        """Return a number for a manifest that is about to be built. Raises: ConfigError (no more left)."""
        with self._catalog.changing() as change:
            return change.new_manifest_number()

    def add(self, dataset: Dataset, record: ManifestRecord, *, use: bool) -> None:
        """Enter a manifest that is complete, and with use have its dataset show it, in the same commit.

        Raises: ConfigError (there is one of that version).
        """
        with self._changing(dataset, announced=use) as (change, now):
            refuse_existing(now, _living(change, now), record.version)
            change.put_manifest(record)
            if use:
                change.put_dataset(_showing(now, record.version))

    def use(self, name: str, version: str | None) -> None:
        """Have a dataset show a version; None: none. Raises: ManifestNotFound."""
        with self._changing(self.dataset(name)) as (change, dataset):
            if version is not None:
                find_version(dataset, _living(change, dataset), version)
            if version != dataset.manifest:
                change.put_dataset(_showing(dataset, version))

    def roll_back(self, name: str) -> str:
        """Have a dataset show the version before, and return it.

        Raises: ConfigError (none was shown before, or it was deleted since).
        """
        with self._changing(self.dataset(name)) as (change, dataset):
            before = dataset.manifest_before
            if before is None:
                raise ConfigError(f"dataset {name!r} has no earlier manifest to go back to")
            change.put_dataset(_showing(dataset, before))
        return before

    def delete(self, name: str, version: str) -> ManifestRecord:
        """Have a manifest be there for nobody any more; ``remove`` is to follow.

        Raises: ManifestNotFound; ConfigError (it is in use).
        """
        with self._changing(self.dataset(name)) as (change, dataset):
            record = find_version(dataset, _living(change, dataset), version)
            if version == dataset.manifest:
                raise ConfigError(
                    f"manifest {version!r} of dataset {name!r} is in use; put another one in use first"
                )
            if version == dataset.manifest_before:
                change.put_dataset(replace(dataset, manifest_before=None))
            deleted = replace(record, is_deleted=True)
            change.put_manifest(deleted)
        return deleted

    def deleted(self) -> list[ManifestRecord]:
        """Return manifests that were deleted and of which something is left."""
        rows = self._catalog.rows("manifest").values()
        return [record for row in rows if (record := ManifestRecord.from_json(row)).is_deleted]

    def remove(self, record: ManifestRecord) -> None:
        """Remove the row of a deleted manifest, of which nothing else is left."""
        with self._catalog.changing() as change:
            change.delete_manifest(record)
        self._catalog.back_up()

    def file_names(self) -> set[str]:
        """Return the names of the files of all manifests, deleted ones included."""
        rows = self._catalog.rows("manifest").values()
        return {ManifestRecord.from_json(row).file_name for row in rows}

    @contextmanager
    def _changing(
        self, dataset: Dataset, *, announced: bool = True
    ) -> Iterator[tuple[CatalogChange, Dataset]]:
        """Make one commit of a change to a dataset, which is given as it is by then."""
        with (
            self._entries.announcing(dataset.id) if announced else nullcontext(),
            self._catalog.changing() as change,
        ):
            now = change.dataset(dataset.name)
            if now.id != dataset.id:
                raise NotAttached(f"dataset {dataset.name!r} was detached since, and attached anew")
            yield change, now
        self._catalog.back_up()


def find_version(dataset: Dataset, manifests: Mapping[str, ManifestRecord], version: str) -> ManifestRecord:
    """Return the manifest of a version. Raises: ManifestNotFound (names the nearest there is)."""
    record = manifests.get(version)
    if record is None:
        raise ManifestNotFound(
            f"dataset {dataset.name!r} has no manifest {version!r}{nearest(version, manifests)}; "
            f"see `forebay manifest list {dataset.name}`"
        )
    return record


def refuse_existing(dataset: Dataset, manifests: Mapping[str, ManifestRecord], version: str) -> None:
    """Refuse a version that there is. Raises: ConfigError."""
    if version in manifests:
        raise ConfigError(
            f"dataset {dataset.name!r} has a manifest {version!r} already; "
            "delete it first, or take another name"
        )


def not_attached(name: str, datasets: Mapping[str, Dataset]) -> NotAttached:
    """Make what is raised for the name of no dataset, with the nearest there is."""
    return NotAttached(f"no dataset {name!r} is attached{nearest(name, datasets)}; see `forebay datasets`")


def _living(change: CatalogChange, dataset: Dataset) -> Mapping[str, ManifestRecord]:
    return {record.version: record for record in change.manifests(dataset.id) if not record.is_deleted}


def _showing(dataset: Dataset, version: str | None) -> Dataset:
    before = dataset.manifest_before if version == dataset.manifest else dataset.manifest
    return replace(dataset, manifest=version, manifest_before=before)
