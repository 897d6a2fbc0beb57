"""The gateway as an ASGI application."""

from __future__ import annotations

import io
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from forebay.api.hdfs import FileSystem
from forebay.api.webhdfs import forms
from forebay.api.webhdfs.bodies import Threads
from forebay.api.webhdfs.exceptions import told
from forebay.api.webhdfs.guard import Act, Guard
from forebay.api.webhdfs.limits import GatewayLimits
from forebay.api.webhdfs.operations import OPERATIONS, Asked, paths_of
from forebay.api.webhdfs.pages import hold_pages_off
from forebay.api.webhdfs.query import PREFIX, Query, path_of
from forebay.errors import not_found

if TYPE_CHECKING:
    from forebay.cache import Cache

_log = logging.getLogger(__name__)

_UNEXPECTED: Final = 500


class Gateway:
    """Answers requests of WebHDFS by a cache, which the caller keeps open and closes. For one event loop."""

    def __init__(
        self, cache: Cache, guard: Guard | None = None, limits: GatewayLimits | None = None, own: str = ""
    ) -> None:
        """Answer by a cache. own: HOST:PORT by which a group knows this gateway, "" without a group."""
        self.limits: Final = limits or GatewayLimits()
        self._own: Final = own
        self._cache: Final = cache
        self._guard: Final = guard
        self._executor: Final = ThreadPoolExecutor(self.limits.threads, "webhdfs")
        self._threads: Final = Threads(self._executor)

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A body that fails once it has begun breaks off, and so does its connection."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            # Nobody is there to hear of it.
            response = Response(status_code=400)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client is told)
            said = told(error)
            if said.status == _UNEXPECTED:
                _log.exception("%s %s", request.method, scope["raw_path"])
            response = Response(forms.text_of(said.body()), said.status, media_type=forms.JSON)
        try:
            await response(scope, receive, send)
        except TimeoutError:
            _log.warning("%s %s broke off: the client took nothing", request.method, scope["raw_path"])
        except OSError as error:
            _log.warning("%s %s broke off: %s", request.method, scope["raw_path"], error)

    async def _answer(self, request: Request) -> Response:
        if self._guard is None:
            hold_pages_off(request.scope, self._own)
        raw_path = request.scope["raw_path"]
        if raw_path != PREFIX and not raw_path.startswith(PREFIX + b"/"):
            raise not_found(raw_path.decode("ascii", "replace"), f"paths here begin with {PREFIX.decode()}/")
        query = Query(request.scope["query_string"])
        found = OPERATIONS.get(request.method, {}).get(query.op)
        if found is None:
            methods = [method for method, each in OPERATIONS.items() if query.op in each]
            words = f"it is one of {methods[0]}" if methods else "it is not supported"
            raise io.UnsupportedOperation(f"{request.method} op={query.op[:80]!r}: {words}")
        act, handle = found
        paths = paths_of(path_of(raw_path), query)
        await self._hold(request, act, paths)
        fs = FileSystem(self._cache, query.user)
        return await handle(Asked(request, query, paths[0], fs, self._threads, self.limits, self._own))

    async def _hold(self, request: Request, act: Act, paths: list[str]) -> None:
        guard = self._guard
        if guard is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else None
        address = request.client.host if request.client else ""
        await self._threads.run(lambda: guard.hold(act, shown or None, address, paths))
