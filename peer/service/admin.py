"""The service Admin: work and settings, what this member is like, and who comes and goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final

import grpc

from forebay.errors import ConfigError
from forebay.peer.member import Member, View
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.security.permissions import Permissions
from forebay.peer.service.settings import SettingsService
from forebay.peer.service.work import WorkService

if TYPE_CHECKING:
    from forebay.cache import Cache
    from forebay.peer.settings.exchange import SettingsExchange


class AdminService(SettingsService, WorkService, pb_grpc.AdminServicer):
    """Answers for one member."""

    def __init__(
        self,
        cache: Cache,
        permissions: Permissions,
        exchange: SettingsExchange,
        status: Callable[[], dict[str, Any]],
        announced: Callable[[Member], View],
        threads: Executor,
    ) -> None:
        """Answer with these; announced takes what a member says of itself, and returns the view then.

        threads are for commands.
        """
        SettingsService.__init__(self, exchange, permissions)
        WorkService.__init__(self, cache, threads)
        self._status: Final = status
        self._announced: Final = announced

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusReply:  # noqa: N802
        """Return what `forebay status --json` shows here, and the group as this member sees it."""
        status = await asyncio.to_thread(self._status)
        return pb.StatusReply(status=json.dumps(status).encode())

    async def Announce(self, request: pb.Announcement, context: Any) -> pb.View:  # noqa: N802
        """Take that a member has come or leaves."""
        try:
            return self._announced(Member.from_message(request.member)).to_message()
        except ConfigError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError("abort raises") from error
