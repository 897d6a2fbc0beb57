"""Writing to a local folder: beside the object under a hidden name, synced, then renamed into place.

An exclusive write is linked into place instead, which the file system refuses where there is something.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from forebay.durable import sync_folder
from forebay.errors import already_there, from_os_error, under_storage_error
from forebay.ufs.base import ObjectInfo
from forebay.ufs.payload import Payload
from forebay.ufs.writer import Facts, StorageWriter, WriteJob, Written

if TYPE_CHECKING:
    from forebay.ufs.file import FileStorage

_STEP_BYTES: Final = 4 << 20
_FILE_MODE: Final = 0o666
_BYTES_MAX: Final = (1 << 63) - 1
_HIDDEN_BEGIN: Final = ".forebay-"
_HIDDEN_END: Final = ".partial"


def is_hidden(name: str) -> bool:
    """Say whether a file of this name is one that is being written: it is shown to nobody."""
    return name.startswith(_HIDDEN_BEGIN) and name.endswith(_HIDDEN_END)


class FileStorageWriter(StorageWriter):
    """Changes a folder of the local file system."""

    def __init__(self, storage: FileStorage) -> None:
        """Change the folder of this storage."""
        self._storage: Final = storage

    def put(self, path: str, payload: Payload, job: WriteJob, *, exclusive: bool = False) -> Written:
        """Write a new file and let it take the place; a link at the path is followed, modes are kept."""
        place = self._storage.place_of(path)
        with self._translated(place):
            if not exclusive:
                # What a link leads to is what is read through it, so it is what is written.
                place = os.path.realpath(place)
            _refuse_odd(place, exclusive=exclusive)
            folder = os.path.dirname(place)
            self._make_folders(folder)
        hidden = os.path.join(folder, f"{_HIDDEN_BEGIN}{secrets.token_hex(8)}{_HIDDEN_END}")
        job.note(hidden=hidden)
        with self._new_file(place, hidden) as descriptor:
            self._fill(place, descriptor, payload)
            payload.check()
            with self._translated(place):
                before = os.fstat(descriptor)
                _take_place(hidden, place, exclusive=exclusive)
                sync_folder(folder)
                # Taking the name has changed its times, which are part of the version.
                after = os.fstat(descriptor)
        is_own = (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
        return Written(self._storage.describe(path, after), is_own)

    @contextmanager
    def _new_file(self, place: str, hidden: str) -> Iterator[int]:
        """Give a new file with the access rights of the one at place; it is gone if it is not used."""
        with self._translated(place):
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            with self._translated(place), suppress(FileNotFoundError):
                os.fchmod(descriptor, stat.S_IMODE(os.stat(place).st_mode))
            yield descriptor
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(hidden)
            raise
        finally:
            os.close(descriptor)

    def _fill(self, place: str, descriptor: int, payload: Payload) -> None:
        """Write all of the payload, whose own errors are not the storage's, and put it on disk."""
        for offset in range(0, payload.size, _STEP_BYTES):
            data = memoryview(payload.read(offset, min(_STEP_BYTES, payload.size - offset)))
            with self._translated(place):
                while data:
                    data = data[os.write(descriptor, data) :]
        with self._translated(place):
            os.fsync(descriptor)

    def exclusive_bytes_max(self, path: str, job: WriteJob) -> int:
        """Return as much as a file may have: a link is refused where there is something."""
        return _BYTES_MAX

    def delete(self, path: str) -> None:
        """Remove the file, or the empty folder; of a link, the link."""
        place = self._storage.place_of(path)
        with self._translated(place):
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.rmdir(place)
            else:
                os.unlink(place)

    def rename(self, path: str, target: str, job: WriteJob) -> ObjectInfo:
        """Rename file or folder in one act; folders above the target are made."""
        place, new_place = self._storage.place_of(path), self._storage.place_of(target)
        with self._translated(place):
            os.lstat(place)
        with self._translated(new_place):
            _refuse_hidden(new_place)
            self._make_folders(os.path.dirname(new_place))
            os.rename(place, new_place)
            for folder in {os.path.dirname(place), os.path.dirname(new_place)}:
                sync_folder(folder)
        return self._storage.stat(target)

    def mkdir(self, path: str) -> None:
        """Make the folder and those above it."""
        place = self._storage.place_of(path)
        with self._translated(place):
            _refuse_hidden(place)
            self._make_folders(place)

    def undo(self, facts: Facts) -> None:
        """Remove the hidden file."""
        hidden = facts.get("hidden")
        if hidden is not None and is_hidden(os.path.basename(hidden)):
            with self._translated(hidden), suppress(FileNotFoundError):
                os.unlink(hidden)

    def _make_folders(self, folder: str) -> None:
        """Make a folder and those above it, each on disk when its content is; the root has to be there."""
        if not os.path.isdir(self._storage.root):
            # Most likely a mount that is missing: what is written below it would be lost to view.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        missing: list[str] = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for each in reversed(missing):
            try:
                os.mkdir(each)
            except FileExistsError:
                if not os.path.isdir(each):
                    raise
            sync_folder(os.path.dirname(each))

    @contextmanager
    def _translated(self, place: str) -> Iterator[None]:
        """Raise errors of the operating system as those of the storage."""
        try:
            yield
        except OSError as error:
            raise self._error_at(place, error) from error

    def _error_at(self, place: str, error: OSError) -> OSError:
        uri = f"file://{place}"
        if isinstance(error, FileExistsError):
            return already_there(uri)
        if isinstance(error, NotADirectoryError):
            return NotADirectoryError(errno.ENOTDIR, "an object lies where a directory is to be", uri)
        if isinstance(error, FileNotFoundError) and not os.path.isdir(self._storage.root):
            return under_storage_error(uri, f"the attached folder {self._storage.root} is not there")
        return from_os_error(error, uri)


def _take_place(hidden: str, place: str, *, exclusive: bool) -> None:
    """Give a complete file its name. Raises: OSError; FileExistsError (exclusive)."""
    if not exclusive:
        os.replace(hidden, place)
        return
    try:
        os.link(hidden, place)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            words = "the file system makes no links, by which files are created exclusively"
            raise OSError(errno.EOPNOTSUPP, words) from error
        raise
    os.unlink(hidden)


def _refuse_odd(place: str, *, exclusive: bool) -> None:
    """Refuse to take the place of what is no regular file, or for an exclusive write of anything."""
    _refuse_hidden(place)
    try:
        mode = os.lstat(place).st_mode
    except FileNotFoundError:
        return
    if exclusive:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _refuse_hidden(place: str) -> None:
    if is_hidden(os.path.basename(place)):
        raise OSError(errno.EINVAL, "names of this form are kept for files that are being written")
