"""What is cached on this host that is to lie on several members, as its policies say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from forebay.cache.paths import block_keys
from forebay.cache.runtime import Runtime
from forebay.errors import NotAttached

if TYPE_CHECKING:
    from forebay.cache.datasets import Attached
    from forebay.meta import Entry


class Held(NamedTuple):
    """Blocks of one version of an object that are cached here: their numbers, of some of them at a time."""

    dataset: str
    path: str
    version: str
    size: int
    mtime_ns: int
    replicas: int
    numbers: list[int]


class Replicated:
    """Goes through what is to have copies, for one process; asks nobody. Threads: any."""

    def __init__(self, runtime: Runtime) -> None:
        """Read what this process has open."""
        self._runtime: Final = runtime
        self._store: Final = runtime.parts.store

    def wanted(self) -> Mapping[tuple[str, str], int]:
        """Return how many copies policies want, more than one, by dataset and path."""
        return {
            (attached.record.name, path): policy.replicas
            for attached in self._datasets()
            for path, policy in attached.rules.policies.items()
            if policy.replicas > 1
        }

    def of(self, dataset: str, path: str) -> int:
        """Return how many copies there are to be of what lies at a path; one where nothing is known of it."""
        try:
            return self._runtime.datasets.find(dataset).rules.of(path).replicas
        except (NotAttached, OSError):
            return 1

    def admitted(self) -> int:
        """Return how many blocks were admitted on this host: whether there can be new ones."""
        return int(self._store.status()["counters"]["admitted"])

    def held(self) -> Iterator[Held]:
        """Yield what is cached here of all that is to lie on several members, and known here.

        Blocking: an index look-up for each block that there may be. Raises: Closed.
        """
        for attached in self._datasets():
            for top in _tops(attached):
                for entry in self._runtime.tree.known_objects(attached, top):
                    replicas = attached.rules.of(entry.path).replicas
                    if replicas > 1:
                        yield from self._held_of(attached, entry, replicas)

    def object_of(self, dataset: str, path: str, version: str) -> tuple[int, int] | None:
        """Return size and modification time of an object, if it is known here in that version."""
        with suppress(NotAttached, OSError):
            entry = self._runtime.lookup.known(self._runtime.datasets.find(dataset), path)
            if entry is not None and entry.version == version:
                return entry.size, entry.mtime_ns
        return None

    def _datasets(self) -> Iterator[Attached]:
        for record in self._runtime.datasets.records():
            # Detached meanwhile, or what it shows cannot be opened here.
            with suppress(NotAttached, OSError):
                yield self._runtime.datasets.find(record.name)

    def _held_of(self, attached: Attached, entry: Entry, replicas: int) -> Iterator[Held]:
        first = 0
        versions = [(entry.path, entry.version, entry.size)]
        for keys in block_keys(attached.record.id, versions, self._store.block_bytes):
            found = self._store.contains_many(keys)
            numbers = [first + index for index, is_there in enumerate(found) if is_there]
            first += len(keys)
            if numbers:
                yield Held(
                    attached.record.name,
                    entry.path,
                    entry.version,
                    entry.size,
                    entry.mtime_ns,
                    replicas,
                    numbers,
                )


def _tops(attached: Attached) -> list[str]:
    """Return the paths below which copies are wanted, without those that lie below another of them."""
    tops: list[str] = []
    for path, policy in sorted(attached.rules.policies.items()):
        is_below = any(not top or path.startswith(f"{top}/") for top in tops)
        if policy.replicas > 1 and not is_below:
            tops.append(path)
    return tops
