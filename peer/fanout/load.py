"""A load of a group: every member loads its share, and those that are left take over from one that dies.

Each round divides all of it among the members that are up: each gets their ids, so that all divide alike
whatever each sees of the ring. When a member is lost in a round, a further one divides all of it among the
rest; what is cached by then is skipped. The figures and the files that failed are those of the last round.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import grpc

from forebay.cache.loads.jobs import ENDED
from forebay.cache.loads.load import FileResult, LoadJob, LoadRequest, LoadResult
from forebay.cache.loads.progress import LoadState, Progress
from forebay.peer.fanout.everyone import Everyone
from forebay.peer.fanout.names import NameList
from forebay.peer.paths import decoded, encoded
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.service.errors import as_error
from forebay.peer.stubs import MemberStub

_WAIT_STEP_S: Final = 0.1
# Paths end at some thousand bytes, messages at 4 MiB.
_FILES_PER_MESSAGE: Final = 500
_SUMMED: Final = (
    "files_done",
    "files_skipped",
    "files_failed",
    "files_not_admitted",
    "files_evicted",
    "bytes_done",
    "bytes_skipped",
)


class _Share:
    """One member's part of one round, as far as it has told."""

    def __init__(self, member: MemberStub) -> None:
        self.member: Final = member
        self.call: Any = None
        self.job = ""
        self.state = "running"
        self.reason = ""
        self.progress = Progress(state="running")
        # What broke its stream, if anything did.
        self.lost: Exception | None = None


class GroupLoad(LoadJob):
    """A load that all members of a group run, followed as any other.

    Threads: any. It belongs to this process: where that ends the members stop. Loaded once more, what is
    cached is skipped, so there is nothing to resume.
    """

    is_resumable = False

    def __init__(self, everyone: Everyone, request: LoadRequest, names: NameList | None) -> None:
        """Begin; names are below the target, None for all. Raises: OSError (no member is up)."""
        self._id: Final = f"group-{secrets.token_hex(4)}"
        self._request: Final = request
        self._created: Final = time.time()
        self._everyone: Final = everyone
        self._names: Final = names
        self._lock: Final = threading.Lock()
        self._ended: Final = threading.Event()
        self._cancelled: Final = threading.Event()
        self._shares: list[_Share] = []
        self._failures: list[FileResult] = []
        self._failed_paths: set[str] = set()
        self._end: tuple[LoadState, str] | None = None
        members = self._members()
        self._thread: Final = threading.Thread(
            target=self._go_on, args=(members,), name="forebay-group-load", daemon=True
        )
        self._thread.start()

    @property
    def id(self) -> str:
        """What it is called in this process."""
        return self._id

    @property
    def request(self) -> LoadRequest:
        """What was asked for."""
        return self._request

    @property
    def created(self) -> float:
        """When it was begun, in seconds since 1970."""
        return self._created

    @property
    def log_path(self) -> str:
        """Nothing: what there is to say stands in the logs of the members."""
        return ""

    def progress(self) -> Progress:
        """Return the figures of all members together."""
        with self._lock:
            shares = list(self._shares)
        found = merged([share.progress for share in shares], self._state, is_same=self.request.metadata_only)
        bad_lines = 0 if self._names is None else len(self._names.bad)
        total = None if found.files_total is None else found.files_total + bad_lines
        return replace(found, files_total=total, files_failed=found.files_failed + bad_lines)

    def result(self) -> LoadResult:
        """Return how it ended or, where it has not, how far it is."""
        state, reason = self._end or ("running", "")
        return LoadResult(self.id, state, reason, self.progress())

    def wait(self, timeout: float | None = None) -> LoadResult:
        """Wait for the end. Raises: TimeoutError (it still runs after timeout seconds)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended.wait(_WAIT_STEP_S if deadline is None else min(_WAIT_STEP_S, timeout or 0.0)):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"load {self.id} still runs after {timeout:g} s")
        return self.result()

    def cancel(self) -> None:
        """Ask all members to stop; ``wait`` tells when they have. What is cached stays."""
        self._cancelled.set()
        with self._lock:
            for share in self._shares:
                if share.call is not None:
                    share.call.cancel()

    def results(self) -> Iterator[FileResult]:
        """Yield the files that are not cached in the end, each with its error."""
        with self._lock:
            yield from list(self._failures)

    def members(self) -> list[dict[str, Any]]:
        """Return what each member does, as plain data."""
        with self._lock:
            return [
                {
                    "member": share.member.name,
                    "job": share.job,
                    "state": share.state,
                    "reason": share.reason,
                    "progress": share.progress.to_json(),
                }
                for share in self._shares
            ]

    def to_json(self) -> dict[str, Any]:
        """Return the load with its request and figures as plain data."""
        shown = {"created": self.created, "request": asdict(self.request), **self.result().to_json()}
        return {**shown, "members": self.members()}

    @property
    def _state(self) -> LoadState:
        return "running" if self._end is None else self._end[0]

    def _members(self) -> Sequence[MemberStub]:
        members = self._everyone.admins()
        if not members:
            raise OSError("no member of the group answers; nothing can be loaded")
        return members

    def _go_on(self, members: Sequence[MemberStub]) -> None:
        try:
            while True:
                lost = self._round(members)
                left = [member for member in members if member.id not in {each.member.id for each in lost}]
                if self._cancelled.is_set():
                    self._end = ("cancelled", "cancelled")
                    return
                if not lost:
                    self._end = self._verdict()
                    return
                if not left:
                    self._end = ("failed", f"no member is left: {lost[0].reason}")
                    return
                members = left
        except Exception as error:  # noqa: BLE001  (it is the end of the load, which tells of it)
            self._end = ("failed", f"{type(error).__name__}: {error}")
        finally:
            self._ended.set()

    def _round(self, members: Sequence[MemberStub]) -> list[_Share]:
        """Have each member load its share; return those that were lost meanwhile."""
        shares = [_Share(member) for member in members]
        with self._lock:
            self._shares, self._failed_paths = shares, set()
            self._failures = [] if self._names is None else list(self._names.bad)
        ids = [member.id for member in members]
        threads = [threading.Thread(target=self._follow, args=(share, ids), daemon=True) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [share for share in shares if share.lost is not None]

    def _follow(self, share: _Share, ids: Sequence[str]) -> None:
        try:
            call = share.member.admin.Load(self._messages(ids))
            with self._lock:
                share.call = call
            if self._cancelled.is_set():
                call.cancel()
            for event in call:
                self._take(share, event)
            if share.state not in ENDED:
                share.lost, share.reason = OSError("gone"), "it ended in the middle"
        except grpc.RpcError as error:
            if self._cancelled.is_set():
                return
            cause = as_error(error)
            if isinstance(cause, OSError) and not isinstance(cause, PermissionError):
                share.lost = cause
            share.state, share.reason = "failed", str(cause)
        except Exception as error:  # noqa: BLE001  (what it tells makes no sense: it is not done, whatever it says)
            share.state, share.reason = "failed", f"{type(error).__name__}: {error}"
            if share.call is not None:
                share.call.cancel()

    def _take(self, share: _Share, event: pb.LoadEvent) -> None:
        with self._lock:
            share.job, share.state, share.reason = event.job, event.state, event.reason
            if event.progress:
                share.progress = Progress.from_json(json.loads(event.progress))
            for failure in event.failures:
                # A file that several members have parts of fails at each.
                path = decoded(failure.path)
                if path not in self._failed_paths:
                    self._failed_paths.add(path)
                    self._failures.append(FileResult(path, failure.state, error=failure.error))

    def _messages(self, ids: Sequence[str]) -> Iterator[pb.LoadRequest]:
        request = self.request
        target = encoded(request.target)
        yield pb.LoadRequest(
            target=target,
            glob=request.glob or "",
            metadata_only=request.metadata_only,
            dry_run=request.dry_run,
            verify=request.verify,
            # 0 is none; a limit of less than a byte for each is a byte.
            rate_limit=0 if request.rate_limit is None else max(request.rate_limit // len(ids), 1),
            is_listed=self._names is not None,
            cancel_with_call=True,
            members=ids,
        )
        if self._names is not None:
            for batch in self._names.batches(_FILES_PER_MESSAGE):
                yield pb.LoadRequest(target=target, files=batch)

    def _verdict(self) -> tuple[LoadState, str]:
        bad_lines = 0 if self._names is None else len(self._names.bad)
        for state in ("failed", "cancelled", "incomplete"):
            bad = [share for share in self._shares if share.state == state]
            if bad:
                reasons = "; ".join(f"{share.member.name}: {share.reason or state}" for share in bad)
                return state, reasons
        return ("incomplete", f"{bad_lines} lines are no names of files") if bad_lines else ("done", "")


def merged(parts: Sequence[Progress], state: LoadState, *, is_same: bool) -> Progress:
    """Add the figures of members; totals are of all shares at each, and with is_same all else is as well."""
    if not parts:
        return Progress(state=state)
    found = Progress(state=state, started=min((part.started or 0.0 for part in parts), default=None))
    files = [part.files_total for part in parts if part.files_total is not None]
    sizes = [part.bytes_total for part in parts if part.bytes_total is not None]
    combine = max if is_same else sum
    figures = {name: combine(getattr(part, name) for part in parts) for name in _SUMMED}
    found = replace(
        found,
        files_total=max(files, default=None),
        bytes_total=max(sizes, default=None),
        rate=sum(part.rate for part in parts),
        **figures,
    )
    left = (found.bytes_total or 0) - found.bytes_done - found.bytes_skipped
    if state == "running" and found.bytes_total and found.rate > 0:
        found = replace(found, eta=max(left, 0) / found.rate)
    return found
