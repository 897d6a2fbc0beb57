"""The exceptions that forebay raises on purpose: one small tree, each a kind of a built-in exception.

Whoever knows only the built-in exceptions still catches the right thing: an absent object is a
``FileNotFoundError``, a forbidden one a ``PermissionError`` and one that timed out a ``TimeoutError``
(those two as they are, without a class of ours), everything else that an under storage does an ``OSError``.
Each names the path and the cause, and each can be pickled, so that it crosses from a DataLoader worker
unchanged.
"""

# ruff: noqa: N818  (public names say what happened; a suffix would only lengthen them)

from __future__ import annotations

import errno as _errno
import os


class NotFound(FileNotFoundError):
    """The under storage, or the manifest in use, says that there is no such object or directory.

    Nothing else raises this.
    """


class UnderStorageError(OSError):
    """The under storage failed, or answered something that cannot be trusted."""


class Stale(OSError):
    """The object has another version than the one that was asked for (ESTALE)."""


class ConfigError(ValueError):
    """A setting, an argument or the machine does not allow what was asked; says what and where."""


class PinLimit(OSError):
    """A pin was refused because too much of the tier would be pinned; gives the figures (EDQUOT)."""


class NotAttached(LookupError):
    """The first part of a path names no attached dataset."""


class ManifestNotFound(NotAttached):
    """The dataset has no manifest of that version."""


class JobNotFound(LookupError):
    """There is no job of that id."""


class ScheduleNotFound(LookupError):
    """There is no schedule of that id."""


class TraceNotFound(LookupError):
    """There is no trace of that name."""


class Closed(ValueError):
    """The cache or store was used after ``close``."""


class StoreBusy(TimeoutError):
    """Another live process held a lock of the store for longer than the time-out."""


def not_found(path: str, cause: str = "no such object") -> NotFound:
    """Make a NotFound for the path, which the caller has from the under storage's own answer."""
    return NotFound(_errno.ENOENT, cause, path)


def forbidden(path: str, cause: str) -> PermissionError:
    """Make a PermissionError that names the path and the under storage's own words."""
    return PermissionError(_errno.EACCES, cause, path)


def timed_out(path: str, cause: str) -> TimeoutError:
    """Make a TimeoutError that names the path and what was waited for."""
    return TimeoutError(_errno.ETIMEDOUT, cause, path)


def already_there(path: str, cause: str = "there is such an object already") -> FileExistsError:
    """Make a FileExistsError for the path, of which the under storage itself said that it is taken."""
    return FileExistsError(_errno.EEXIST, cause, path)


def stale(path: str, expected: str, found: str) -> Stale:
    """Make a Stale that names both versions."""
    return Stale(_errno.ESTALE, f"the object changed: expected version {expected!r}, found {found!r}", path)


def no_longer_there(path: str, manifest: str) -> Stale:
    """Make a Stale for an object whose version, as a manifest lists it, is nowhere any more."""
    cause = (
        f"the version that manifest {manifest!r} lists is not cached, and the under storage no longer has it"
    )
    return Stale(_errno.ESTALE, cause, path)


def under_storage_error(path: str, cause: str, errno: int = _errno.EIO) -> UnderStorageError:
    """Make an UnderStorageError for the path; errno where the cause had one."""
    return UnderStorageError(errno, cause, path)


def from_os_error(error: OSError, path: str) -> OSError:
    """Translate an operating system's error at a path of an under storage into the tree above.

    Returns the new exception for the caller to raise ``from error``; path is the name that the user knows.
    """
    code = error.errno or _errno.EIO
    cause = error.strerror or os.strerror(code)
    if code in (_errno.ENOENT, _errno.ENOTDIR):
        return NotFound(_errno.ENOENT, cause, path)
    if code in (_errno.EACCES, _errno.EPERM):
        return PermissionError(code, cause, path)
    if code == _errno.ETIMEDOUT:
        return TimeoutError(code, cause, path)
    if code == _errno.EISDIR:
        return IsADirectoryError(code, cause, path)
    return UnderStorageError(code, cause, path)
