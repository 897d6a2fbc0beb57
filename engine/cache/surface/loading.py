"""Loads: jobs that bring data into the cache ahead of whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.cache.loads.filelist import FileList
from forebay.cache.loads.load import LoadJob, LoadRequest, load_request
from forebay.cache.surface.policies import Policies


class Loading(Policies):
    """The verbs for loads."""

    def load(
        self,
        target: str,
        *,
        files: FileList | None = None,
        glob: str | None = None,
        metadata_only: bool = False,
        dry_run: bool = False,
        verify: bool = False,
        rate_limit: int | str | None = None,
        manifest: str | None = None,
        use_manifest: bool = True,
        order: str | None = None,
        share: Sequence[str] | None = None,
        replicas: int | None = None,
        wait: bool = False,
        start: bool = True,
    ) -> LoadJob:
        """Bring a dataset, or what lies at or below a path in one, into the cache, in the background.

        files: only what this list names, relative to target: a list file, an object's URL, a stream or
        names. glob: only what matches this pattern, relative to target. metadata_only: list and remember,
        and fetch nothing. dry_run: count what would be fetched, and touch nothing. verify: read every block
        back against its checksum. rate_limit: bytes a second at most. manifest: when all of it is done, make
        this version of what was loaded and, with use_manifest, put it in use, at once for everybody; what
        there is to load is then looked up at the under storage, whatever manifest is in use. order: only what
        this manifest lists, in its order of access. share: the ids of members of a group that divide it; this
        host's part is loaded, while the totals stay those of all. replicas: as ``replicas`` says of
        target, before anything is loaded, so that copies are made as blocks come. wait: return when it has
        ended. start: False only records the job, for ``resume`` in this or another process. What is cached is
        skipped; what fails is in the job's results. Closing the cache interrupts it.
        Raises: as ``walk`` for the dataset; ValueError, TypeError (glob, files, order); ConfigError
        (rate_limit; there is such a manifest); ManifestNotFound (order); OSError (the list cannot be read);
        PermissionError (a cache opened to be read only).
        """
        request = load_request(
            target,
            glob=glob,
            metadata_only=metadata_only,
            dry_run=dry_run,
            verify=verify,
            rate_limit=rate_limit,
            manifest=manifest,
            use_manifest=use_manifest,
            order=order,
            share=share,
        )
        if replicas is not None and dry_run:
            raise ValueError("replicas: a dry run makes none")
        job = self._begin_load(request, files, replicas, start=start)
        if wait:
            job.wait()
        return job

    def _begin_load(
        self, request: LoadRequest, files: FileList | None, replicas: int | None, *, start: bool
    ) -> LoadJob:
        """Have this host load it. Raises: as ``load``."""
        if replicas is not None:
            self.replicas(request.target, replicas)
        return self._runtime().loads.submit(request, files, start=start)

    def jobs(self) -> list[LoadJob]:
        """Return the loads of this cache, whoever runs them: all that have not ended, the last that have."""
        return self._runtime().loads.jobs()

    def job(self, job_id: str) -> LoadJob:
        """Return one load. Raises: JobNotFound."""
        return self._runtime().loads.job(job_id)

    def resume(self, job_id: str) -> LoadJob:
        """Go on with a load that nobody runs, unless it is done; what is cached is skipped.

        Raises: JobNotFound.
        """
        return self._runtime().loads.resume(job_id)
