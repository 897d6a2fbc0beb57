"""The attached datasets as a process works with them: the record, the version shown, the under storage.

An ``Attached`` never changes: it is a dataset as it was at one moment, with the manifest that it showed then,
if any. Whoever does something by one of them sees one version of the dataset, whatever is switched meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from forebay.cache.policies.policy import checked
from forebay.cache.policies.rules import NO_RULES, Rules
from forebay.errors import Closed, ConfigError, NotAttached, NotFound, Stale, no_longer_there, not_found
from forebay.meta import (
    Catalog,
    Contents,
    Dataset,
    EmptyManifest,
    Entry,
    Manifest,
    ManifestFiles,
    ManifestRecord,
    find_version,
    manifest_of_inode,
    not_attached,
)
from forebay.ufs import RequestKind, StorageFactory, UnderStorage, open_storage

VERSION_MARK: Final = "@"


class Source:
    """The under storage of a dataset, opened once it is needed. Threads: any."""

    def __init__(
        self,
        record: Dataset,
        schemes: Mapping[str, StorageFactory],
        on_request: Callable[[int, RequestKind], None] = lambda dataset_id, kind: None,
    ) -> None:
        """Take the record; nothing is opened yet. on_request is told of each request that is sent for it."""
        self._on_request: Final = on_request
        self._record: Final = record
        self._schemes: Final = schemes
        self._lock: Final = threading.Lock()
        self._storage: UnderStorage | None = None
        self._closed = False
        self._throttled_told = 0

    @property
    def storage(self) -> UnderStorage:
        """The under storage, made at the first use: whoever only hits never makes one. Raises: Closed."""
        storage = self._storage
        if storage is None:
            with self._lock:
                if self._closed:
                    raise Closed(f"{self._record.uri}: the cache was closed meanwhile")
                if self._storage is None:
                    opened = open_storage(self._record.uri, self._record.options, self._schemes)
                    opened.on_request = partial(self._on_request, self._record.id)
                    self._storage = opened
                storage = self._storage
        return storage

    def newly_throttled(self) -> int:
        """Return how many requests the under storage has refused for load since this was asked last."""
        throttled = self.storage.counts().get("throttled", 0)
        # Nothing new, as nearly always: the figure only grows.
        if throttled <= self._throttled_told:
            return 0
        with self._lock:
            new = max(throttled - self._throttled_told, 0)
            self._throttled_told += new
        return new

    def close(self) -> None:
        """Close the under storage if there is one; who still uses it finds it closed."""
        with self._lock:
            self._closed = True
            storage = self._storage
        if storage is not None:
            storage.close()


class Attached:
    """A dataset in use, or a version of it, as it was at one moment. Threads: any.

    label is what paths in it begin with: ``name``, or ``name@version``. manifest is what it shows, None for
    whatever the under storage has. rules are the policies of its paths. lasts: an answer holds for ever,
    about whatever path.
    """

    def __init__(
        self,
        record: Dataset,
        source: Source,
        label: str,
        manifest: Manifest | None = None,
        listed: ManifestRecord | None = None,
        rules: Rules = NO_RULES,
    ) -> None:
        """Join these; listed is what the catalog says of the manifest, None if it is an empty one."""
        self.record: Final = record
        self.label: Final = label
        self.manifest: Final = manifest
        self.listed: Final = listed
        self.rules: Final = rules
        self.lasts: Final = manifest is not None or (rules is NO_RULES and record.max_age is None)
        self._source: Final = source

    def max_age(self, path: str) -> float | None:
        """Return for how many seconds an answer about a path holds, None for ever."""
        if self.lasts:
            return None
        if self.rules is NO_RULES:
            return self.record.max_age
        said = self.rules.of(path).max_age
        if said is None:
            return self.record.max_age
        return said if isinstance(said, float) else None

    @property
    def storage(self) -> UnderStorage:
        """The under storage, made at the first use."""
        return self._source.storage

    @property
    def fixed_label(self) -> str:
        """What paths begin with that mean this very version, whatever is switched."""
        return self.label if self.listed is None else f"{self.record.name}{VERSION_MARK}{self.listed.version}"

    @property
    def is_version(self) -> bool:
        """Whether it was asked for as a version, and not as the dataset that shows it."""
        return self.label != self.record.name

    def shows(self, entry: Entry) -> bool:
        """Say whether an entry that was looked up before belongs to what is shown here."""
        return manifest_of_inode(entry.inode) == (0 if self.manifest is None else self.manifest.number)

    def newly_throttled(self) -> int:
        """Return how many requests the under storage has refused for load since this was asked last."""
        return self._source.newly_throttled()

    def not_listed(self, path: str) -> NotFound:
        """Make what is raised for a path that the manifest does not have."""
        if self.listed is None:
            return not_found(
                f"{self.label}/{path}", "the dataset shows no more than a manifest, and has none"
            )
        return not_found(f"{self.label}/{path}", f"is not in manifest {self.listed.version!r}")

    def explained(self, path: str, error: Exception) -> Exception:
        """Return what is raised for an error of the under storage at a version of an object.

        That is Stale, with words that say so, where a manifest lists a version that is there no more.
        """
        if self.listed is None or not isinstance(error, Stale | NotFound | IsADirectoryError):
            return error
        explained = no_longer_there(f"{self.label}/{path}", self.listed.version)
        explained.__cause__ = error
        return explained


@dataclass(frozen=True, slots=True)
class _State:
    """What the catalog held at one commit, and what was made of it since."""

    contents: Contents
    sources: Mapping[str, Source]
    rules: Mapping[int, Rules]
    attached: dict[str, Attached]


class Datasets:
    """All attached datasets, following the catalog as other processes change it.

    For one process. Threads: any.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: ManifestFiles,
        schemes: Mapping[str, StorageFactory],
        on_new: Callable[[Dataset, Rules], None],
        on_request: Callable[[int, RequestKind], None],
    ) -> None:
        """Follow the catalog; on_new is called with each dataset as it is first seen or has changed.

        on_request is called with the dataset's id before each request to an under storage.
        """
        self._on_request: Final = on_request
        self._catalog: Final = catalog
        self._files: Final = files
        self._schemes: Final = schemes
        self._on_new: Final = on_new
        self._lock: Final = threading.Lock()
        self._state = _State(Contents(), {}, {}, {})
        self._closed = False

    def find(self, label: str) -> Attached:
        """Return the dataset of that name, or for ``name@version`` that version of it.

        Raises: NotAttached, ManifestNotFound (with the nearest there is); ConfigError, OSError (the manifest
        cannot be opened).
        """
        while True:
            state = self._follow()
            attached = state.attached.get(label)
            if attached is not None:
                return attached
            try:
                return state.attached.setdefault(label, self._make(label, state))
            except (ConfigError, FileNotFoundError) as error:
                # Deleted after another was put in use: the one in use now is to be opened.
                if self._catalog.contents() is state.contents:
                    raise _unusable(error) from error

    def live(self, name: str) -> Attached:
        """Return the dataset with all that the under storage has, whatever manifest is in use.

        Raises: NotAttached.
        """
        state = self._follow()
        record, listed = _wanted(name, state.contents)
        if listed is None and not record.manifest_only:
            return self.find(name)
        rules = state.rules.get(record.id, NO_RULES)
        return Attached(record, state.sources[record.name], name, rules=rules)

    def is_current(self, attached: Attached) -> bool:
        """Say whether a dataset still is as it was."""
        return self._follow().attached.get(attached.label) is attached

    def records(self) -> list[Dataset]:
        """Return the records of all datasets, by name."""
        return [record for _, record in sorted(self._catalog.datasets().items())]

    def close(self) -> None:
        """Close every under storage that was opened, and open none any more; may be called twice."""
        with self._lock:
            self._closed = True
            sources = list(self._state.sources.values())
        for source in sources:
            source.close()

    def _make(self, label: str, state: _State) -> Attached:
        record, listed = _wanted(label, state.contents)
        manifest: Manifest | None = EmptyManifest() if record.manifest_only else None
        if listed is not None:
            manifest = self._files.open(listed)
        rules = state.rules.get(record.id, NO_RULES)
        return Attached(record, state.sources[record.name], label, manifest, listed, rules)

    def _follow(self) -> _State:
        """Return what there is now, with all that has not changed as it was."""
        contents = self._catalog.contents()
        state = self._state
        if contents is state.contents:
            return state
        with self._lock:
            before = self._state
            sources: dict[str, Source] = {}
            all_rules = _rules_of(contents, before)
            for name, record in contents.datasets.items():
                known = before.contents.datasets.get(name)
                rules = all_rules.get(record.id, NO_RULES)
                if known != record or rules is not before.rules.get(record.id, NO_RULES):
                    self._on_new(record, rules)
                if known is not None and _has_same_source(known, record):
                    sources[name] = before.sources[name]
                else:
                    sources[name] = Source(record, self._schemes, self._on_request)
                    if self._closed:
                        sources[name].close()
            kept = {
                label: attached
                for label, attached in before.attached.items()
                if _is_unchanged(attached, contents)
                and attached.rules is all_rules.get(attached.record.id, NO_RULES)
            }
            self._state = _State(contents, sources, all_rules, kept)
            # Storages that fell out are left to their last readers.
            return self._state


def _rules_of(contents: Contents, before: _State) -> Mapping[int, Rules]:
    """Return the rules of all datasets that have some, those that have not changed as they were."""
    found: dict[int, Rules] = {}
    for dataset_id, rows in contents.policies.items():
        if rows == before.contents.policies.get(dataset_id):
            found[dataset_id] = before.rules[dataset_id]
        else:
            found[dataset_id] = Rules({path: checked(said) for path, said in rows.items()})
    return found


def _wanted(label: str, contents: Contents) -> tuple[Dataset, ManifestRecord | None]:
    """Return a dataset and the manifest that is meant, if any. Raises: NotAttached, ManifestNotFound."""
    name, mark, version = label.partition(VERSION_MARK)
    record = contents.datasets.get(name)
    if record is None:
        raise not_attached(name, contents.datasets)
    if not mark:
        if record.manifest is None:
            return record, None
        version = record.manifest
    return record, find_version(record, contents.manifests.get(record.id, {}), version)


def _is_unchanged(attached: Attached, contents: Contents) -> bool:
    try:
        return (attached.record, attached.listed) == _wanted(attached.label, contents)
    except NotAttached:
        return False


def _unusable(error: ConfigError | FileNotFoundError) -> ConfigError:
    """Make what is raised for a manifest that cannot be opened: not that something is absent."""
    if isinstance(error, ConfigError):
        return error
    return ConfigError(f"{error.filename}: is gone; use another version of the dataset, or make it anew")


def _has_same_source(one: Dataset, other: Dataset) -> bool:
    return (one.id, one.uri, one.options) == (other.id, other.uri, other.options)
