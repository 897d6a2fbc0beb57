"""Adds metadata to every call of a channel: with TLS by its credentials, without by interceptors.

Without, gRPC itself would send no token: for loopback, and for groups that were told to be insecure;
credentials.py sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from forebay.errors import ConfigError

Metadata = tuple[tuple[str, str], ...]
_MakesMetadata = Callable[[], Metadata]


class _Details(NamedTuple):
    """The details of a call, with other metadata; the names are those that gRPC reads."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any

    @classmethod
    def of(cls, details: grpc.ClientCallDetails, added: Metadata) -> _Details:
        metadata = (*(details.metadata or ()), *added)
        return cls(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


class AddsMetadata(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """For ``grpc.intercept_channel``: metadata is asked for at each call."""

    def __init__(self, metadata: _MakesMetadata) -> None:
        """Add what metadata returns."""
        self._metadata = metadata

    def _go_on(self, continuation: Any, details: grpc.ClientCallDetails, request: Any) -> Any:
        return continuation(_Details.of(details, self._metadata()), request)

    intercept_unary_unary = _go_on
    intercept_unary_stream = _go_on
    intercept_stream_unary = _go_on
    intercept_stream_stream = _go_on


class _AioBase:
    def __init__(self, metadata: _MakesMetadata) -> None:
        self._metadata = metadata

    async def _go_on(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._metadata())
        return await continuation(details._replace(metadata=metadata), request)


# One class for each: a channel of asyncio takes an interceptor for the first kind that it finds in it.
class _AioUnaryUnary(_AioBase, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary = _AioBase._go_on


class _AioUnaryStream(_AioBase, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = _AioBase._go_on


class _AioStreamUnary(_AioBase, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary = _AioBase._go_on


class _AioStreamStream(_AioBase, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream = _AioBase._go_on


def aio_interceptors(metadata: _MakesMetadata) -> list[grpc.aio.ClientInterceptor]:
    """Return what a channel of asyncio needs for the same."""
    return [kind(metadata) for kind in (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)]


class ShowsMetadata(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """For the credentials of a channel with TLS; gRPC asks at each call, from a thread of its own."""

    def __init__(self, metadata: _MakesMetadata) -> None:
        """Add what metadata returns."""
        self._metadata = metadata

    def __call__(self, context: Any, callback: Callable[[Metadata, Exception | None], None]) -> None:
        """Answer gRPC, also that there is no token to be had."""
        try:
            metadata = self._metadata()
        except ConfigError as error:
            callback((), error)
        else:
            callback(metadata, None)
