"""The server's side of permissions for gRPC: every call is held to the table before its handler sees it.

The token is looked at before a request is parsed, so that nobody without one has bytes of his read by
protobuf. Handlers ask ``current_caller`` where a scope is to be held within a call.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, NoReturn

import grpc

from forebay.peer.security.caller import Caller, address_of
from forebay.peer.security.credentials import token_of
from forebay.peer.security.permissions import Permissions
from forebay.peer.security.refusal import Refused

_caller: Final[ContextVar[Caller]] = ContextVar("forebay_caller")

_Context = Any
_Handler = Any


def current_caller() -> Caller:
    """Return who made the call that is being answered. Raises: LookupError (outside of one)."""
    return _caller.get()


class PermissionInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """For ``grpc.aio.server(interceptors=[...])``. A call without a row in the table is refused."""

    def __init__(self, permissions: Permissions) -> None:
        """Hold calls to these permissions."""
        self._permissions = permissions

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[_Handler | None]], details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """Return the handler with the checks around it; None where there is none, UNIMPLEMENTED for gRPC."""
        handler = await continuation(details)
        return None if handler is None else _guarded(handler, details.method, self._permissions)


def _guarded(handler: _Handler, method: str, permissions: Permissions) -> _Handler:
    guard = _Guard(method, permissions, handler.request_deserializer)
    if handler.request_streaming:
        behaviour = handler.stream_stream or handler.stream_unary
        wrapped = guard.around_stream(behaviour)
        # Parsed as messages come, when the call has been let in.
        parse = guard.parse
    else:
        behaviour = handler.unary_stream or handler.unary_unary
        wrapped = guard.around_one(behaviour)
        parse = None
    makes = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return makes(wrapped, request_deserializer=parse, response_serializer=handler.response_serializer)


class _Malformed(Exception):  # noqa: N818
    """A message of a stream that is no message of its kind."""


class _Guard:
    """The checks around one call."""

    def __init__(self, method: str, permissions: Permissions, parse: Callable[[bytes], Any] | None) -> None:
        self._method = method
        self._permissions = permissions
        self._parse = parse

    def parse(self, raw: bytes) -> Any:
        """Parse one message. Raises: _Malformed."""
        if self._parse is None:
            return raw
        try:
            return self._parse(raw)
        except Exception as error:  # whatever a parser of hostile bytes raises
            raise _Malformed from error

    def around_one(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a behaviour that gets one request, here in bytes."""

        async def let_in(raw: bytes, context: _Context) -> Any:
            caller = await self._authenticate(context)
            try:
                request = self.parse(raw)
            except _Malformed:
                await _abort_malformed(context)
            await self._check(context, caller, request)
            return request

        return _wrapped(behaviour, let_in)

    def around_stream(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a behaviour that gets requests one after the other."""

        async def let_in(requests: Any, context: _Context) -> Any:
            caller = await self._authenticate(context)
            await self._check(context, caller, None)
            is_of_paths = self._permissions.is_of_paths(self._method)
            return self._checked(requests, context, caller) if is_of_paths else requests

        return _wrapped(behaviour, let_in)

    async def _checked(self, requests: Any, context: _Context, caller: Caller) -> AsyncIterator[Any]:
        async for request in requests:
            await self._check(context, caller, request)
            yield request

    async def _authenticate(self, context: _Context) -> Caller:
        token = token_of(context.invocation_metadata())
        try:
            caller = self._permissions.authenticate(self._method, token, address_of(context.peer()))
        except Refused as refused:
            await _abort(context, refused)
        _caller.set(caller)
        return caller

    async def _check(self, context: _Context, caller: Caller, request: Any) -> None:
        try:
            self._permissions.check_request(self._method, caller, request)
        except Refused as refused:
            await _abort(context, refused)


def _wrapped(behaviour: Callable[..., Any], let_in: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Call the behaviour with what let_in returns, in the way that it answers: whole, yielding or writing."""
    if inspect.isasyncgenfunction(behaviour):

        async def yielding(request: Any, context: _Context) -> AsyncIterator[Any]:
            request = await let_in(request, context)
            try:
                async for reply in behaviour(request, context):
                    yield reply
            except (Refused, _Malformed) as error:
                await _abort_by(context, error)

        return yielding
    if not inspect.iscoroutinefunction(behaviour):
        # What no servicer implements: protoc's own stand-in is a plain function.
        behaviour = _unimplemented

    async def whole(request: Any, context: _Context) -> Any:
        request = await let_in(request, context)
        try:
            return await behaviour(request, context)
        except (Refused, _Malformed) as error:
            await _abort_by(context, error)

    return whole


async def _unimplemented(request: Any, context: _Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not implemented here")
    raise AssertionError("abort raises")


async def _abort_by(context: _Context, error: Exception) -> NoReturn:
    if isinstance(error, Refused):
        await _abort(context, error)
    await _abort_malformed(context)


async def _abort(context: _Context, refused: Refused) -> NoReturn:
    status = (
        grpc.StatusCode.UNAUTHENTICATED if refused.is_unauthenticated else grpc.StatusCode.PERMISSION_DENIED
    )
    await context.abort(status, refused.strerror)
    raise AssertionError("abort raises")


async def _abort_malformed(context: _Context) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no message of its kind")
    raise AssertionError("abort raises")
