"""Directories, and what is done to all that lies at or below a path."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from forebay.cache.nodes import Nodes
from forebay.cache.places import Place, places_of
from forebay.cache.status import FileStatus, SyncReport
from forebay.cache.surface.attaching import Attaching
from forebay.cache.surface.base import object_at
from forebay.cache.surface.reads import Reads
from forebay.cache.usage import Usage, usage_of


class Trees(Attaching, Reads):
    """The verbs for directories and trees."""

    def listdir(self, path: str = "") -> list[str]:
        """Return the names in a directory, in order; those of the datasets for "".

        What is both an object and a directory has one name. Raises: as ``scandir``.
        """
        if not path:
            return [dataset.name for dataset in self.datasets()]
        runtime = self._runtime()
        return runtime.tree.names(*runtime.locate(path))

    def scandir(self, path: str) -> list[FileStatus]:
        """Describe what lies in a directory, in the order of names.

        Raises: NotFound; NotADirectoryError.
        """
        runtime = self._runtime()
        return runtime.tree.statuses(*runtime.locate(path))

    def scan(self, path: str, *, after: str = "") -> Iterator[FileStatus]:
        """Describe one by one what lies in a directory behind a name, as `scandir` but in bounded memory.

        In the order of the names' bytes; of what is both an object and a directory, the object. What
        changes meanwhile may be missing or not. Raises: as ``scandir``, while it is iterated.
        """
        runtime = self._runtime()
        return runtime.tree.scan(*runtime.locate(path), after)

    def has_directories(self, path: str) -> bool:
        """Say whether directories there are things of their own, or come and go with the objects in them.

        Asks nobody. Raises: NotAttached.
        """
        return self._runtime().locate(path)[0].storage.has_directories

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield (directory, names of directories in it, names of objects), then those below, as os.walk.

        Names taken out of the first list are not gone into. Raises: as ``scandir``, while it is iterated.
        """
        runtime = self._runtime()
        return runtime.tree.walk(*runtime.locate(path))

    def sync(self, path: str) -> SyncReport:
        """Ask the under storage now about all that lies at or below the path, however fresh it is.

        Returns how many objects were added, changed and removed since it was last looked at, or, where a
        manifest is in use, in comparison to that, which stays as it is. Blocking: a listing for each
        directory.
        """
        runtime = self._runtime()
        return runtime.tree.sync(*runtime.locate(path))

    def free(self, path: str, *, data: bool = True, metadata: bool = False) -> None:
        """Drop what is cached at and below the path: bytes (pinned ones too), entries, or both.

        The under storage is not touched; what is asked for again is fetched again. Views stay good. Of a
        version of a dataset, ``name@version``, bytes only: see ``delete_manifest``. Raises: OSError (another
        process is writing there, or is stopped).
        """
        runtime = self._runtime()
        attached, rest = runtime.locate(path)
        runtime.tree.free(attached, rest, data=data, metadata=metadata)

    def nodes(self, label: str) -> Nodes:
        """Return the dataset, or ``name@version`` of it, as a tree of numbered nodes, for this process.

        For frontends that speak of inodes, such as a mount. It is good until the cache is closed. Raises:
        NotAttached.
        """
        return Nodes(self._runtime(), label, None if self._recorder is None else self._note)

    def usage(self, path: str) -> Usage:
        """Count the objects at and below a path, their bytes, and how many of those are cached.

        Raises: as ``stat`` and ``scandir``.
        """
        runtime = self._runtime()
        attached, rest = runtime.locate(path)
        return usage_of(self._store, runtime.tree, attached, runtime.tree.status(attached, rest))

    def places(self, path: str, offset: int = 0, length: int | None = None) -> list[Place]:
        """Return, piece by piece of a range of an object, which members of the group answer for it.

        A piece is what one member answers for, 64 MiB; without a group there are none.
        Whether it is cached there is not asked (``locate``). Raises: as ``read``.
        """
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        return places_of(self._remote, attached, runtime.reader.entry(attached, rest), offset, length)

    def locate(self, path: str) -> dict[str, float]:
        """Return by host which share of the bytes at and below a path is cached there, those with none apart.

        Of an empty file it is all. Raises: as ``usage``.
        """
        usage = self.usage(path)
        share = usage.cached_bytes / usage.bytes if usage.bytes else 1.0
        return {socket.gethostname(): share} if share else {}
