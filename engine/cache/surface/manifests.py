"""Manifests: versions of a dataset that never change, which of them is shown, and carrying them about."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import IO

from forebay.cache.loads.filelist import FileList
from forebay.cache.manifests.manage import ManifestStatus
from forebay.cache.manifests.transfer import export_lines, import_lines
from forebay.cache.surface.loading import Loading


class Manifesting(Loading):
    """The verbs for manifests.

    Those that change something raise NotAttached, StoreBusy, PermissionError (a cache opened to be read only)
    and OSError (the disk is full).
    """

    def manifests(self, name: str) -> list[ManifestStatus]:
        """Describe the manifests of a dataset, the oldest first. Raises: NotAttached."""
        return self._runtime().manifests.all(name)

    def manifest_paths(self, name: str, version: str) -> Iterator[str]:
        """Yield the paths in the dataset that a manifest lists, in its order of access if it has one.

        Raises, while it is iterated: NotAttached, ManifestNotFound; ConfigError, OSError (it cannot be read).
        """
        for entry in self._runtime().manifests.entries(name, version):
            yield entry.path

    def create_manifest(
        self,
        target: str,
        version: str,
        *,
        files: FileList | None = None,
        glob: str | None = None,
        use: bool = False,
    ) -> ManifestStatus:
        """List a dataset, or what lies at or below a path in one, as a new version of the dataset.

        files and glob as for ``load``; what the target shows is that of the under storage, whatever manifest
        is in use, or that of an older version for ``name@version``. No data is fetched. use: put it in use,
        at once for everybody. Blocking: it is a load of metadata only, and shows among the ``jobs``. Raises:
        as ``load``; OSError (not all could be listed; says why).
        """
        job = self.load(
            target, files=files, glob=glob, metadata_only=True, manifest=version, use_manifest=use
        )
        result = job.wait()
        if not result.ok:
            cause = f"manifest {version!r} was not made: {result.reason or result.state}"
            raise OSError(errno.EIO, f"{cause}; see `forebay jobs show {job.id}`", target)
        name, _ = self._runtime().locate(target)
        return self._runtime().manifests.status(name.record.name, version)

    def use_manifest(self, name: str, version: str | None) -> None:
        """Have a dataset show a version, and nothing else, from now on and for everybody.

        None: whatever the under storage has, or nothing where it was attached with manifest_only. Whoever is
        in the middle of something goes on with the version that he began with. Raises: ManifestNotFound.
        """
        self._runtime().manifests.use(name, version)

    def rollback(self, name: str) -> str:
        """Have a dataset show the version that was in use before this one, and return it.

        Again: the later one. Raises: ConfigError (there is none before, or it was deleted).
        """
        return self._runtime().manifests.roll_back(name)

    def delete_manifest(self, name: str, version: str) -> None:
        """Delete a version, and drop what is cached for it alone.

        Whoever is reading in it goes on. Raises: ManifestNotFound; ConfigError (it is in use).
        """
        self._runtime().manifests.delete(name, version)

    def export_manifest(self, name: str, version: str, file: str | os.PathLike[str] | IO[bytes]) -> int:
        """Write a manifest as text, JSON with an object a line, and return how many objects it lists.

        file: a path, or a stream that is not closed. Raises: ManifestNotFound; OSError.
        """
        if isinstance(file, str | os.PathLike):
            with open(file, "wb") as output:
                return self.export_manifest(name, version, output)
        count = -1
        for line in export_lines(self._runtime().manifests, name, version):
            file.write(line.encode("ascii"))
            count += 1
        return count

    def import_manifest(
        self,
        name: str,
        version: str,
        file: str | os.PathLike[str] | IO[bytes],
        *,
        ordered: bool = False,
        use: bool = False,
    ) -> ManifestStatus:
        """Make a version of what ``export_manifest`` or another program wrote; nobody is asked anything.

        file: a path, or a stream that is read to its end. ordered: its lines are in the order of access, for
        ``load(order=...)``. use: put it in use, at once for everybody. Raises: ConfigError (a bad version, or
        one that there is; a bad line: says file, line and what is wrong); OSError.
        """
        if isinstance(file, str | os.PathLike):
            with open(file, "rb") as stream:
                return self.import_manifest(name, version, stream, ordered=ordered, use=use)
        runtime = self._runtime()
        dataset = runtime.manifests.dataset(name)
        source = str(getattr(file, "name", "a stream"))
        return import_lines(runtime.manifests, dataset, version, file, source, is_ordered=ordered, use=use)
