"""Loads: bringing files into the cache ahead of whoever will read them, as jobs that outlive their process.

``Loads`` makes jobs and runs them in this process; a ``LoadJob`` shows one, whoever runs it. A job that was
made is on disk: killed with its process it is interrupted, and ``resume`` goes on with it, here or in
another process.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from forebay.cache.datasets import Attached
from forebay.cache.loads.file import FileResult
from forebay.cache.loads.filelist import FileList, ListedName, read_file_list, storage_options
from forebay.cache.loads.glob import Glob
from forebay.cache.loads.jobs import ENDED, JobRecord, Jobs, LoadRequest, new_job_id
from forebay.cache.loads.progress import LoadState, Progress
from forebay.cache.loads.run import LoadParts, LoadRun
from forebay.cache.loads.spool import JobFolder, json_line, sync
from forebay.cache.paths import split_path
from forebay.config import parse_bytes
from forebay.errors import Closed, ConfigError
from forebay.meta import HeldLock
from forebay.ufs import StorageFactory

__all__ = ["FileResult", "LoadJob", "LoadRequest", "LoadResult", "Loads", "Progress", "load_request"]

_PAGE_NAMES: Final = 1_000
_WAIT_STEP_S: Final = 0.1


@dataclass(frozen=True)
class LoadResult:
    """How a load ended, or, where it has not, how far it came.

    ok: every file is cached (and was verified, if that was asked for); of a dry run or one of metadata
    only: every file was found. reason says in words why not.
    """

    id: str
    state: LoadState
    reason: str
    progress: Progress

    @property
    def ok(self) -> bool:
        """Whether all of it is as it was asked for."""
        return self.state == "done"

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {"id": self.id, "ok": self.ok, "state": self.state, "reason": self.reason} | {
            "progress": self.progress.to_json()
        }


class LoadJob:
    """One load, whichever process runs it. Threads: any."""

    # Whether ``resume`` goes on with it where it was interrupted.
    is_resumable = True

    def __init__(
        self, loads: Loads, record: JobRecord, folder: JobFolder, run: LoadRun | None = None
    ) -> None:
        """Show this job; run: this process runs it. Made by ``Cache.load``, ``job``, ``jobs``, ``resume``."""
        self._loads: Final = loads
        self._record = record
        self._folder: Final = folder
        # Held for as long as the job is shown: a dry run has no record that would tell of its end.
        self._run = run or loads.run_of(record.id)

    @property
    def id(self) -> str:
        """The job's id, good in every process that opens the cache."""
        return self._record.id

    @property
    def request(self) -> LoadRequest:
        """What was asked for."""
        return self._record.request

    @property
    def created(self) -> float:
        """When the job was made, in seconds since 1970."""
        return self._record.created

    @property
    def log_path(self) -> str:
        """The file for what a run in a process of its own has to say."""
        return str(self._folder.path / "log")

    def progress(self) -> Progress:
        """Return how far it is; from another process the figures may be half a second old."""
        return self.result().progress

    def result(self) -> LoadResult:
        """Return how it ended or, where it has not, how far it is."""
        if self._run is None or self._run.pid != os.getpid() or self._run.end is not None:
            self._run = self._loads.run_of(self.id) or self._ended_run()
        self._record, result = self._loads.look(self._record, self._folder, self._run)
        return result

    def wait(self, timeout: float | None = None) -> LoadResult:
        """Wait until nobody runs the job, and return how it ended.

        A job that nobody runs is not waited for: its state is interrupted or queued then. A signal is
        answered at once, and the load goes on. Raises: TimeoutError (it still runs after timeout seconds).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (result := self.result()).state == "running":
            step_s = _WAIT_STEP_S if deadline is None else min(deadline - time.monotonic(), _WAIT_STEP_S)
            if step_s <= 0:
                raise TimeoutError(f"job {self.id} still runs after {timeout:g} s")
            if self._run is not None and self._run.end is None:
                self._run.wait(step_s)
            else:
                time.sleep(step_s)
        return result

    def _ended_run(self) -> LoadRun | None:
        run = self._run
        return run if run is not None and run.end is not None else None

    def cancel(self) -> None:
        """Ask it to stop for good, whoever runs it; ``wait`` tells when it has. What is cached stays."""
        self._loads.cancel(self._record, self._folder)

    def results(self) -> Iterator[FileResult]:
        """Yield the files that are not cached in the end, each with its error, as far as the job is."""
        for value in self._folder.lines("failures"):
            yield FileResult(**value)

    def to_json(self) -> dict[str, Any]:
        """Return the job with its request and its figures as plain data."""
        return {"created": self.created, "request": asdict(self.request), **self.result().to_json()}

    def __repr__(self) -> str:
        """Name the job and its target."""
        return f"<forebay load {self.id} of {self.request.target}>"


class Loads:
    """The loads of one cache, for one process. Threads: any."""

    def __init__(self, parts: LoadParts, jobs: Jobs, schemes: Mapping[str, StorageFactory]) -> None:
        """Work with these; nothing runs yet."""
        self._parts: Final = parts
        self._jobs: Final = jobs
        self._schemes: Final = schemes
        self._lock: Final = threading.Lock()
        # A run that has ended and that no LoadJob shows is gone: the record tells of it.
        self._runs: Final[weakref.WeakValueDictionary[str, LoadRun]] = weakref.WeakValueDictionary()
        self._closed = False

    def submit(self, request: LoadRequest, files: FileList | None, *, start: bool = True) -> LoadJob:
        """Make a job, with its file list read to the end, and begin to run it.

        Raises: ValueError, TypeError (target, files, glob); NotAttached; OSError (the list cannot be read);
        PermissionError (a cache opened to be read only).
        """
        record, folder = self.prepare(request)
        try:
            listed, count = self.spool_list(request, files, folder)
            record = replace(record, request=listed, files_listed=count)
            if not request.dry_run:
                self._jobs.put(record)
                self._jobs.prune()
            run = self._begin(record, folder) if start else None
        except BaseException:
            folder.remove()
            raise
        job = LoadJob(self, record, folder, run)
        if request.dry_run:
            weakref.finalize(job, _remove_temporary, folder, os.getpid())
        return job

    def dataset_of(self, request: LoadRequest) -> Attached:
        """Return the dataset that a request is for.

        Raises: ValueError, TypeError (target); NotAttached; PermissionError (a cache opened to be read only).
        """
        dataset, _ = split_path(request.target)
        attached = self._parts.datasets.find(dataset)
        if self._parts.fetcher.store.read_only and not request.dry_run:
            raise PermissionError("the cache is open to be read only; nothing can be loaded into it")
        if request.manifest is not None:
            self._parts.manifests.check_new(attached.record, request.manifest)
        return attached

    def prepare(self, request: LoadRequest) -> tuple[JobRecord, JobFolder]:
        """Make the record of a job, which nobody knows of yet, and its folder.

        Raises: as ``dataset_of``; OSError.
        """
        attached = self.dataset_of(request)
        record = JobRecord(new_job_id(), request, attached.record.id, time.time())
        folder = _temporary_folder(record.id) if request.dry_run else self._jobs.folder(record.id)
        folder.make()
        return record, folder

    def spool_list(
        self, request: LoadRequest, files: FileList | None, folder: JobFolder
    ) -> tuple[LoadRequest, int]:
        """Read a file list to its end, into a folder; return the request that goes by it and its length.

        Raises: as ``submit``.
        """
        glob = None if request.glob is None else Glob(request.glob)
        names = self.listed(request, files)
        if names is None:
            return request, 0
        return replace(request, listed=True), _spool_names(folder, names, glob)

    def listed(self, request: LoadRequest, files: FileList | None) -> Iterator[ListedName] | None:
        """Return the names of a file list, or of the order that is asked for; None: there is neither.

        Raises: as ``submit``, also while it is iterated.
        """
        dataset = self.dataset_of(request).record
        if request.order is not None:
            if files is not None:
                raise ValueError("files and order exclude each other: an order is a list of files")
            order = self._parts.manifests.order(dataset.name, request.order)
            files = names_below(split_path(request.target)[1], order)
        if files is None:
            return None
        options_of = storage_options(dataset.uri, dataset.options)
        return read_file_list(files, options_of, self._schemes)

    def take_over(self, job_id: str) -> bool:
        """Run a job that nobody runs and that has not ended; say whether it is run here now.

        Where somebody wants it to stop, and whoever ran it did not live to see that, it stops at once.
        Raises: JobNotFound; FileNotFoundError (its folder is gone).
        """
        folder = self._jobs.folder(job_id)
        lock = folder.try_lock()
        if lock is None:
            return False
        try:
            # Whoever ran it wrote its end before giving up the lock.
            record = self._jobs.get(job_id)
        except BaseException:
            lock.release()
            raise
        if record.ended is not None:
            lock.release()
            return False
        self._run(record, folder, lock)
        return True

    def resume(self, job_id: str) -> LoadJob:
        """Run a job that nobody runs, from its beginning; what is cached is skipped.

        One that ended incomplete, failed or cancelled is run again; one that is done or that somebody runs
        is only shown. Raises: JobNotFound.
        """
        record, state = self._jobs.state(self._jobs.get(job_id))
        folder = self._jobs.folder(job_id)
        run = None
        if state not in ("running", "done"):
            # Meant for an earlier run; one that comes from here on is meant for this one.
            cancelled = folder.get("cancel")
            record = replace(record, ended=None, reason="", progress={})
            run = self._begin(record, folder, cancelled)
        return LoadJob(self, record, folder, run)

    def job(self, job_id: str) -> LoadJob:
        """Return a job. Raises: JobNotFound."""
        return LoadJob(self, self._jobs.get(job_id), self._jobs.folder(job_id))

    def jobs(self) -> list[LoadJob]:
        """Return all jobs that are kept, the oldest first."""
        return [LoadJob(self, record, self._jobs.folder(record.id)) for record in self._jobs.all()]

    def run_of(self, job_id: str) -> LoadRun | None:
        """Return this process's run of a job, if there is one."""
        run = self._runs.get(job_id)
        # What a fork copied has no threads.
        return run if run is not None and run.pid == os.getpid() else None

    def is_running_here(self, job_id: str) -> bool:
        """Say whether this process runs a job."""
        run = self.run_of(job_id)
        return run is not None and run.end is None

    def look(self, record: JobRecord, folder: JobFolder, run: LoadRun | None) -> tuple[JobRecord, LoadResult]:
        """Return the record, anew if it has ended, and what is known of the job now."""
        if run is not None and run.end is None:
            return record, LoadResult(record.id, "running", "", run.progress())
        if run is not None and record.request.dry_run:
            assert run.end is not None
            return record, LoadResult(record.id, *run.end)
        record, state = self._jobs.state(record)
        shown = record.progress if record.ended else folder.get("progress") or {}
        progress = replace(Progress.from_json(shown), state=state)
        if state != "running":
            progress = replace(progress, eta=None)
        return record, LoadResult(record.id, state, record.reason, progress)

    def cancel(self, record: JobRecord, folder: JobFolder) -> None:
        """Stop a job for good, here, elsewhere, or where nobody runs it."""
        run = self.run_of(record.id)
        if run is not None and run.end is None:
            run.stop("cancelled")
            return
        if record.request.dry_run:
            return
        record, state = self._jobs.state(record)
        if state in ENDED:
            return
        lock = folder.try_lock()
        if lock is None:
            folder.put("cancel", {"id": secrets.token_hex(8)})
            return
        try:
            progress = replace(Progress.from_json(folder.get("progress") or {}), state="cancelled", eta=None)
            self._jobs.end(record, "cancelled", "cancelled", progress)
        finally:
            lock.release()

    def stop(self) -> None:
        """Interrupt what runs here; it can be resumed."""
        with self._lock:
            self._closed = True
        for run in self._running():
            run.stop("interrupted")

    def close(self) -> None:
        """Wait until what was stopped has ended."""
        for run in self._running():
            run.wait(None)

    def _running(self) -> list[LoadRun]:
        with self._lock:
            return [run for run in self._runs.values() if run.end is None]

    def _begin(
        self, record: JobRecord, folder: JobFolder, cancelled: Mapping[str, Any] | None = None
    ) -> LoadRun | None:
        """Run a job here, though it was cancelled, and return the run; None: somebody runs it already."""
        lock = folder.try_lock()
        if lock is None:
            return None
        if cancelled is not None:
            folder.drop_if("cancel", cancelled)
        return self._run(record, folder, lock)

    def _run(self, record: JobRecord, folder: JobFolder, lock: HeldLock) -> LoadRun:
        """Run a job whose lock is held, and which the run gives up when it ends."""
        run = LoadRun(self._parts, record, folder, lock, partial(self._end, record))
        try:
            if not record.request.dry_run and self._jobs.get(record.id).ended is not None:
                self._jobs.put(record)
            with self._lock:
                if self._closed:
                    raise Closed("the cache is closed")
                self._runs[record.id] = run
                run.start()
        except BaseException:
            lock.release()
            raise
        return run

    def _end(self, record: JobRecord, state: LoadState, reason: str, progress: Progress) -> None:
        if not record.request.dry_run:
            self._jobs.end(record, state, reason, progress)


def _temporary_folder(job_id: str) -> JobFolder:
    return JobFolder(Path(tempfile.mkdtemp(prefix="forebay-load-")) / job_id)


def _remove_temporary(folder: JobFolder, owner: int) -> None:
    """Remove a dry run's folder, unless this is a copy that a fork made of what shows it."""
    if os.getpid() == owner:
        shutil.rmtree(folder.path.parent, ignore_errors=True)


def load_request(
    target: str,
    *,
    glob: str | None = None,
    metadata_only: bool = False,
    dry_run: bool = False,
    verify: bool = False,
    rate_limit: int | str | None = None,
    manifest: str | None = None,
    use_manifest: bool = True,
    order: str | None = None,
    share: Sequence[str] | None = None,
) -> LoadRequest:
    """Check what a caller asks for. Raises: ValueError, ConfigError."""
    split_path(target)
    if manifest is not None and dry_run:
        raise ValueError("manifest: a dry run makes none")
    if share is not None and manifest is not None and not metadata_only:
        raise ValueError("manifest: of a share none can be made")
    rate = None if rate_limit is None else parse_bytes(rate_limit, "rate_limit")
    if rate == 0:
        raise ConfigError("rate_limit: 0 would never end; leave it out for no limit")
    return LoadRequest(
        target.removesuffix("/"),
        glob,
        metadata_only=metadata_only,
        dry_run=dry_run,
        verify=verify,
        rate_limit=rate,
        manifest=manifest,
        use_manifest=use_manifest,
        order=order,
        share=None if share is None else tuple(share),
    )


def names_below(path: str, order: Iterable[str]) -> Iterator[str]:
    """Yield what lies below a path of a dataset, relative to it, as a file list has it."""
    if not path:
        yield from order
        return
    yield from (name[len(path) + 1 :] for name in order if name.startswith(f"{path}/"))


def _spool_names(folder: JobFolder, names: Iterable[ListedName], glob: Glob | None) -> int:
    """Write the names that match, or are no names at all, to the spool; return how many there are."""
    count = 0
    page: list[tuple[int, str, str | None]] = []
    with folder.create("names") as output:
        for name in names:
            if name.error is None and glob is not None and not glob.matches(name.name):
                continue
            page.append((name.line, name.name, name.error))
            count += 1
            if len(page) == _PAGE_NAMES:
                output.write(json_line(page))
                page = []
        if page:
            output.write(json_line(page))
        sync(output)
    return count
