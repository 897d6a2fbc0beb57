"""Lists of files to load: a list file, a stream, an object behind a URL, or names from a program.

In a list as text a line is one name, relative to what is loaded. Blank lines and those that begin with ``#``
are left out; the end of a line is ``\\n`` or ``\\r\\n``, and all else belongs to the name. Names from a
program are taken as they are. A name that no path can hold is told of with its line and does not end the
list.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol, cast

from forebay.config import KIB, MIB
from forebay.ufs import ObjectInfo, RangeBody, StorageFactory, UnderStorage, open_storage, scheme_of

# A list file's path, an object's URL, a text or binary stream, or names.
FileList = str | os.PathLike[str] | IO[str] | IO[bytes] | Iterable[str]

LINE_BYTES_MAX: Final = 64 * KIB

_PART_BYTES: Final = 4 * MIB
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SHOWN_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class ListedName:
    """One name of a list and its place there, counted from 1; with an error it is what was found instead."""

    line: int
    name: str
    error: str | None = None


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_file_list(
    files: FileList, options_of: Callable[[str], Mapping[str, Any]], schemes: Mapping[str, StorageFactory]
) -> Iterator[ListedName]:
    """Yield the names of a list as they are read, in bounded memory.

    options_of gives the options for the under storage of an object's URL. A stream is read to its end and
    not closed. Raises while it is iterated: TypeError (not a list of files); OSError (the list cannot be
    read); as open_storage and UnderStorage.read_range for a URL.
    """
    if isinstance(files, str) and "://" in files:
        with _ObjectStream(files, options_of(files), schemes) as stream:
            yield from _lines(stream)
    elif isinstance(files, str | os.PathLike):
        with open(files, "rb") as file:
            yield from _lines(file)
    elif isinstance(files, Mapping | bytes | bytearray | memoryview) or not isinstance(files, Iterable):
        raise TypeError(f"files: {type(files).__name__} is neither a list file, a URL, a stream nor names")
    elif hasattr(files, "read"):
        yield from _lines(_bytes_of(cast("IO[str] | IO[bytes]", files)))
    else:
        for number, name in enumerate(files, 1):
            yield _from_program(number, name)


def _from_program(number: int, name: object) -> ListedName:
    if not isinstance(name, str):
        return ListedName(number, _shown(repr(name)), f"a name is text, not {type(name).__name__}")
    return _checked(number, name)


def _checked(number: int, name: str) -> ListedName:
    error = fault_of(name)
    return ListedName(number, name) if error is None else ListedName(number, _shown(name), error)


def fault_of(name: str) -> str | None:
    """Say what keeps a name from being the path of an object below what is loaded, None if nothing does."""
    if name.startswith("/"):
        return "is absolute; names are relative to what is loaded"
    if "\0" in name:
        return "contains a NUL byte"
    if bad := {"", ".", ".."} & set(name.split("/")):
        return f"contains the part {min(bad)!r}; names are plain: path/to/object"
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "contains half of a surrogate pair"
    return None


def _lines(stream: _Reads) -> Iterator[ListedName]:
    """Split a stream of bytes into names; a line without an end is one, a line too long is told of once."""
    number, kept, too_long = 0, b"", False
    while True:
        part = stream.read(_PART_BYTES)
        *whole, rest = (kept + part).split(b"\n")
        if not part:
            whole, rest = ([rest] if rest else []), b""
        for line in whole:
            number += 1
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if name := _from_line(number, line, too_long):
                yield name
            too_long = False
        if not part:
            return
        if len(rest) > LINE_BYTES_MAX:
            # Its beginning is enough to tell of it; the memory is not given to a list without line ends.
            rest, too_long = rest[: LINE_BYTES_MAX + 1], True
        kept = rest


def _from_line(number: int, line: bytes, too_long: bool) -> ListedName | None:
    line = line.removesuffix(b"\r")
    if too_long or len(line) > LINE_BYTES_MAX:
        start = line[:_SHOWN_CHARACTERS_MAX].decode("utf-8", "replace")
        return ListedName(number, start, f"is longer than {LINE_BYTES_MAX} bytes")
    if not line.strip() or line.startswith(b"#"):
        return None
    try:
        return _checked(number, line.decode("utf-8"))
    except UnicodeDecodeError as error:
        shown = line[:_SHOWN_CHARACTERS_MAX].decode("utf-8", "backslashreplace")
        return ListedName(number, shown, f"is not UTF-8: {error.reason} at byte {error.start}")


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS_MAX else name[: _SHOWN_CHARACTERS_MAX - 3] + "..."


def _bytes_of(stream: IO[str] | IO[bytes]) -> _Reads:
    """Return the bytes below a text stream, so that a line that is no UTF-8 is that line's fault alone."""
    below = getattr(stream, "buffer", None)
    if below is not None:
        return cast("_Reads", below)
    return _Encoded(cast("IO[str]", stream)) if isinstance(stream, io.TextIOBase) else cast("_Reads", stream)


class _Encoded:
    """The bytes of a text stream that has none below it, such as a StringIO."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        return self._stream.read(size).encode("utf-8", "surrogateescape")


class _ObjectStream:
    """An object of an under storage read from its beginning to its end, all of one version."""

    def __init__(self, url: str, options: Mapping[str, Any], schemes: Mapping[str, StorageFactory]) -> None:
        folder, _, self._name = url.rpartition("/")
        if not self._name or folder.endswith(":/"):
            raise ValueError(f"files: {url} names no object")
        self._storage: UnderStorage = open_storage(folder, options, schemes)
        self._info: ObjectInfo | None = None
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        if self._info is not None and self._offset >= self._info.size:
            return b""
        version = None if self._info is None else self._info.version
        with self._storage.read_range(self._name, self._offset, size, version) as body:
            return self._take(body)

    def _take(self, body: RangeBody) -> bytes:
        self._info = body.info
        buffer = bytearray(body.length)
        if buffer:
            body.readinto(memoryview(buffer))
        self._offset += len(buffer)
        return bytes(buffer)

    def __enter__(self) -> _ObjectStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._storage.close()


def storage_options(uri: str, options: Mapping[str, Any]) -> Callable[[str], Mapping[str, Any]]:
    """Return what gives a list's URL the options of a dataset, if both are of one kind of storage."""
    return lambda url: options if scheme_of(url) == scheme_of(uri) else {}
