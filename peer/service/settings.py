"""PullSettings and PushSettings: what the settings of this member are, and what others say that they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from forebay.errors import ConfigError
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.security.interceptor import current_caller
from forebay.peer.security.permissions import Permissions
from forebay.peer.settings.wire import Incoming, messages_of, parse_summary, summary_of

if TYPE_CHECKING:
    from forebay.peer.settings.exchange import SettingsExchange

_T = TypeVar("_T")


class SettingsService:
    """The part of the service Admin that is about settings; what it does on disk is done in threads."""

    def __init__(self, exchange: SettingsExchange, permissions: Permissions) -> None:
        """Answer for this member, each caller what these permissions let him see."""
        self._exchange: Final = exchange
        self._permissions: Final = permissions

    async def PullSettings(  # noqa: N802  (as in forebay.proto)
        self, request: pb.SettingsSummary, context: Any
    ) -> AsyncIterator[pb.Setting]:
        """Yield what is newer here than what the caller knows."""
        try:
            known = parse_summary(request)
        except ConfigError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        # What was changed a moment ago is told as well.
        await asyncio.to_thread(self._exchange.note)
        caller = current_caller()
        newer = [
            item for item in self._exchange.newer_than(known) if self._permissions.sees(caller, item.dataset)
        ]
        async for message in _in_threads(messages_of(self._exchange, newer)):
            yield message

    async def PushSettings(  # noqa: N802  (as in forebay.proto)
        self, requests: AsyncIterator[pb.Setting], context: Any
    ) -> pb.SettingsSummary:
        """Make what came hold here, as far as it can, and return what is known then."""
        with Incoming() as incoming:
            try:
                async for message in requests:
                    incoming.add(message)
            except ConfigError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except OSError as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            await asyncio.to_thread(incoming.take, self._exchange)
        return summary_of(self._exchange.summary())


async def _in_threads(messages: Iterator[_T]) -> AsyncIterator[_T]:
    """Yield what a blocking iterator yields, without standing in the loop's way."""
    while (message := await asyncio.to_thread(next, messages, None)) is not None:
        yield message
