"""Errors as WebHDFS tells them: a status and the Java exception that the client raises again."""

from __future__ import annotations

import errno
import io
from typing import Any, Final, NamedTuple

from forebay.errors import NotAttached


class Unauthenticated(PermissionError):  # noqa: N818  (as those of forebay.errors)
    """Who asks has shown no good token."""


class Told(NamedTuple):
    """What a client is told of an error."""

    status: int
    exception: str
    java_class: str
    message: str

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        return {
            "RemoteException": {
                "exception": self.exception,
                "javaClassName": self.java_class,
                "message": self.message,
            }
        }


# The first that an error is an instance of holds.
_KINDS: Final[tuple[tuple[type[BaseException], int, str], ...]] = (
    (Unauthenticated, 401, "java.lang.SecurityException"),
    (PermissionError, 403, "org.apache.hadoop.security.AccessControlException"),
    (FileNotFoundError, 404, "java.io.FileNotFoundException"),
    (NotAttached, 404, "java.io.FileNotFoundException"),
    (FileExistsError, 403, "org.apache.hadoop.fs.FileAlreadyExistsException"),
    (NotADirectoryError, 403, "org.apache.hadoop.fs.ParentNotDirectoryException"),
    (IsADirectoryError, 404, "java.io.FileNotFoundException"),
    (io.UnsupportedOperation, 400, "java.lang.UnsupportedOperationException"),
    (OSError, 403, "java.io.IOException"),
    (EOFError, 403, "java.io.EOFException"),
    (ValueError, 400, "java.lang.IllegalArgumentException"),
    (TypeError, 400, "java.lang.IllegalArgumentException"),
)
_BY_ERRNO: Final = {
    errno.ENOTEMPTY: (403, "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException"),
    errno.EOPNOTSUPP: (400, "java.lang.UnsupportedOperationException"),
    errno.EXDEV: (400, "java.lang.UnsupportedOperationException"),
    errno.EDQUOT: (403, "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException"),
}
_NOT_FOUND: Final = 404
_UNKNOWN: Final = (500, "java.lang.RuntimeException")


def told(error: BaseException) -> Told:
    """Return what to tell of an error; of one that nobody expected only its kind."""
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        status, java_class = _BY_ERRNO[error.errno]
        return _told(status, java_class, str(error))
    for kind, status, java_class in _KINDS:
        if isinstance(error, kind):
            # Clients look for these words.
            words = "File does not exist: " if status == _NOT_FOUND else ""
            return _told(status, java_class, f"{words}{error}")
    return _told(*_UNKNOWN, f"{type(error).__name__}; the gateway's log tells more")


def _told(status: int, java_class: str, message: str) -> Told:
    return Told(status, java_class.rpartition(".")[2], java_class, message)
