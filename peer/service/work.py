"""Load and Apply: what this member does of a command that all members are given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import grpc

from forebay.cache.loads.jobs import ENDED
from forebay.peer.paths import decoded, encoded
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.service.errors import EXPECTED, abort

if TYPE_CHECKING:
    from forebay.cache import Cache, LoadJob

_EVENT_EVERY_S: Final = 0.25
_FAILURES_PER_EVENT: Final = 500
_FILES_MAX: Final = 10_000_000
# Verbs of Cache, and the arguments that each takes besides the path.
_VERBS: Final[Mapping[str, frozenset[str]]] = {
    "pin": frozenset(),
    "unpin": frozenset(),
    "ttl": frozenset({"seconds"}),
    "free": frozenset({"data", "metadata"}),
    "replicas": frozenset({"at_least", "at_most"}),
    "create_manifest": frozenset({"version", "glob", "use"}),
}


class WorkService:
    """The part of the service Admin that has the cache do something; all of it in threads."""

    def __init__(self, cache: Cache, threads: Executor | None = None) -> None:
        """Work with this cache; verbs, which may be long, in these threads, None: in the loop's own."""
        self._cache: Final = cache
        self._threads: Final = threads

    async def Apply(self, request: pb.ApplyRequest, context: Any) -> pb.ApplyReply:  # noqa: N802
        """Apply a verb to a path here, and return what it returned."""
        try:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._threads, self._apply, request)
        except EXPECTED as error:
            await abort(context, error)
        return pb.ApplyReply(result=json.dumps(result).encode())

    async def Load(  # noqa: N802
        self, requests: AsyncIterator[pb.LoadRequest], context: Any
    ) -> AsyncIterator[pb.LoadEvent]:
        """Load this member's share, and tell how far it is until it has ended."""
        first, files = await self._read(requests, context)
        try:
            job = await asyncio.to_thread(self._begin, first, files)
        except EXPECTED as error:
            await abort(context, error)
        told = 0
        try:
            while True:
                event, told = await asyncio.to_thread(self._event, job, told)
                yield event
                if event.state in ENDED or event.state == "interrupted":
                    break
                await asyncio.sleep(_EVENT_EVERY_S)
            while rest := await asyncio.to_thread(_failures_from, job, told):
                told += len(rest)
                yield pb.LoadEvent(job=job.id, state=event.state, reason=event.reason, failures=rest)
        except asyncio.CancelledError:
            if first.cancel_with_call:
                await asyncio.to_thread(job.cancel)
            raise

    async def _read(
        self, requests: AsyncIterator[pb.LoadRequest], context: Any
    ) -> tuple[pb.LoadRequest, list[str]]:
        first: pb.LoadRequest | None = None
        files: list[str] = []
        async for request in requests:
            first = first or request
            files += [decoded(name) for name in request.files]
            if len(files) > _FILES_MAX:
                words = f"more than {_FILES_MAX} files are listed; load them in parts"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        if first is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing is asked for")
        assert first is not None
        return first, files

    def _begin(self, request: pb.LoadRequest, files: list[str]) -> LoadJob:
        return self._cache.load(
            decoded(request.target),
            files=files if request.is_listed else None,
            glob=request.glob or None,
            metadata_only=request.metadata_only,
            dry_run=request.dry_run,
            verify=request.verify,
            rate_limit=request.rate_limit or None,
            share=tuple(request.members),
        )

    def _event(self, job: LoadJob, told: int) -> tuple[pb.LoadEvent, int]:
        result = job.result()
        failures = _failures_from(job, told)
        event = pb.LoadEvent(
            job=job.id,
            state=result.state,
            reason=result.reason,
            progress=json.dumps(result.progress.to_json()).encode(),
            failures=failures,
        )
        return event, told + len(failures)

    def _apply(self, request: pb.ApplyRequest) -> Any:
        path = decoded(request.path)
        arguments = json.loads(request.arguments or b"{}")
        known = _VERBS.get(request.verb)
        if known is None:
            raise ValueError(f"{request.verb!r} is no verb that members apply")
        if not isinstance(arguments, dict) or not arguments.keys() <= known:
            raise ValueError(
                f"{request.verb}: takes {', '.join(sorted(known)) or 'nothing'} besides the path"
            )
        verb: Callable[..., Any] = getattr(self._cache, request.verb)
        result = verb(path, **arguments)
        return result.to_json() if hasattr(result, "to_json") else result


def _failures_from(job: LoadJob, start: int) -> list[pb.FileFailure]:
    """Return further failed files of a job, not too many for a message."""
    return [
        pb.FileFailure(
            path=encoded(result.path),
            state=result.outcome,
            error=result.error or "",
        )
        for result in islice(job.results(), start, start + _FAILURES_PER_EVENT)
    ]
