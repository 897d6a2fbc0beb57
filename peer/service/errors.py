"""What a member answers for an exception of its cache, as a status of gRPC, and what a caller makes of it.

The words begin with the name of the exception, so that the caller raises one of the same kind.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import grpc

from forebay.errors import ConfigError, NotAttached, NotFound, PinLimit, Stale, UnderStorageError

# Of several the first that an exception is one of.
_CODES: Final[Mapping[type[Exception], grpc.StatusCode]] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    Stale: grpc.StatusCode.ABORTED,
    NotAttached: grpc.StatusCode.FAILED_PRECONDITION,
    PinLimit: grpc.StatusCode.RESOURCE_EXHAUSTED,
    PermissionError: grpc.StatusCode.PERMISSION_DENIED,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    ValueError: grpc.StatusCode.INVALID_ARGUMENT,
    TypeError: grpc.StatusCode.INVALID_ARGUMENT,
    LookupError: grpc.StatusCode.NOT_FOUND,
}
_KINDS: Final = {kind.__name__: kind for kind in _CODES}
_ERRNOS: Final = {
    NotFound: errno.ENOENT,
    Stale: errno.ESTALE,
    PinLimit: errno.ENOSPC,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
}
_REFUSALS: Final = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})

# What verbs of a cache raise that is no fault of the program.
EXPECTED: Final = (OSError, ValueError, LookupError, TypeError)


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the status and the words for an exception."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        words = f"{error.filename}: {words}"
    kind = next((kind for kind in _CODES if isinstance(error, kind)), None)
    if kind is None:
        return grpc.StatusCode.UNAVAILABLE, f"OSError: {words}"
    return _CODES[kind], f"{kind.__name__}: {words}"


async def abort(context: Any, error: Exception) -> NoReturn:
    """End a call by an exception."""
    await context.abort(*status_of(error))
    raise AssertionError("abort raises")


def as_error(error: grpc.RpcError) -> Exception:
    """Return the exception that a status stands for; UnderStorageError for a member that does not answer."""
    details = getattr(error, "details", lambda: None)() or str(error)
    name, colon, words = details.partition(": ")
    kind = _KINDS.get(name) if colon else None
    if kind is None:
        if (
            getattr(error, "code", lambda: None)() in _REFUSALS
        ):  # by the member, whose table of permissions says no more
            return PermissionError(errno.EACCES, details)
        return UnderStorageError(errno.EIO, details.removeprefix("OSError: "))
    if issubclass(kind, OSError):
        return kind(_ERRNOS.get(kind, errno.EIO), words)
    return kind(words)
