"""Which errno a failed operation is answered with: the one table, docs/semantics.md in code."""

from __future__ import annotations

import errno
from typing import Final

from forebay.errors import Closed, ConfigError, NotAttached, NotFound, PinLimit, Stale

# The first that fits, of what has no number of its own.
_ERRNOS: Final = (
    (NotFound, errno.ENOENT),
    (Stale, errno.ESTALE),
    (NotAttached, errno.ESTALE),
    (PermissionError, errno.EACCES),
    (TimeoutError, errno.ETIMEDOUT),
    (PinLimit, errno.EDQUOT),
    (Closed, errno.ESHUTDOWN),
    (ConfigError, errno.EIO),
    (ValueError, errno.EINVAL),
    (MemoryError, errno.ENOMEM),
)


def errno_of(error: BaseException) -> int:
    """Return the errno for whatever an operation raised; EIO for what nobody raises on purpose."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    for kind, number in _ERRNOS:
        if isinstance(error, kind):
            return number
    return errno.EIO


def is_expected(error: BaseException) -> bool:
    """Say whether an error is one that is raised on purpose, and not a fault of the program."""
    return isinstance(error, (OSError, *(kind for kind, _ in _ERRNOS)))
