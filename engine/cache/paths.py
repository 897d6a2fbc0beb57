"""Paths as users write them, and the keys under which blocks of what they name are stored."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from forebay.errors import ConfigError

_BAD_PART: Final = re.compile(r"(?:^|/)(\.{0,2})(?:/|\Z)")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KEY_HEAD: Final = struct.Struct(">I")
_KEY_TAIL: Final = struct.Struct(">BQ")
_NUMBER_BYTES: Final = 8
_KEYS_AT_A_TIME: Final = 65_536
# The number that stands for all blocks: no object has so many.
_WHOLE: Final = (1 << 64) - 1
# The store takes keys of 4,096 bytes; a longer path is represented by its digest.
_KEY_HEAD_BYTES_MAX: Final = 4_000


def split_path(path: str) -> tuple[str, str]:
    """Split ``dataset/rest/of/path`` into the dataset's name and the path in it, "" for the dataset itself.

    For a version of the dataset the name is ``name@version``. One slash at the end is allowed. Raises:
    TypeError; ValueError (empty, absolute, NUL, or a part that is empty, ``.`` or ``..``).
    """
    if not isinstance(path, str):
        raise TypeError(f"a path is text, not {type(path).__name__}")
    bare = path.removesuffix("/")
    if not bare:
        raise ValueError(f"path {path!r} names no dataset; write dataset/path/in/it")
    if bare.startswith("/"):
        raise ValueError(
            f"path {path!r} is absolute; paths begin with the name of a dataset: {bare.lstrip('/')!r}"
        )
    if "\0" in bare:
        raise ValueError(f"path {path!r} contains a NUL byte")
    if bad := _BAD_PART.search(bare):
        raise ValueError(f"path {path!r} contains the part {bad[1]!r}; paths are plain: dataset/path/in/it")
    if not bare.isascii():
        _check_encodable(bare)
    dataset, _, rest = bare.partition("/")
    return dataset, rest


def _check_encodable(path: str) -> None:
    """Refuse what no name decodes to; bytes that are not UTF-8 come as Python decodes file names."""
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"path {path!r} contains half of a surrogate pair") from None


def check_dataset_name(name: object) -> None:
    """Hold a dataset's name to what every frontend can show. Raises: ConfigError."""
    _check_name("dataset name", name)


def check_version_name(name: object) -> None:
    """Hold the name of a manifest to what every frontend can show. Raises: ConfigError."""
    _check_name("manifest", name)


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r}: use 1 to 128 letters, digits, '.', '_' and '-', the first a letter or a digit"
        )


def block_key(dataset_id: int, path: str, version: str, number: int, block_bytes: int) -> bytes:
    """Return the key of a block: it differs in dataset, path, version, size of blocks or number.

    The caller guarantees a power of two for block_bytes and no NUL in path. An empty version stands for one
    that is not known yet; nothing is stored under such a key.
    """
    encoded = path.encode("utf-8", "surrogateescape")
    head = _KEY_HEAD.pack(dataset_id) + encoded + b"\0" + version.encode("utf-8", "surrogateescape") + b"\0"
    if len(head) > _KEY_HEAD_BYTES_MAX:
        head = _KEY_HEAD.pack(dataset_id) + b"\0" + hashlib.blake2b(head).digest()
    return head + _KEY_TAIL.pack(block_bytes.bit_length() - 1, number)


def block_keys(
    dataset_id: int, versions: Iterable[tuple[str, str, int]], block_bytes: int
) -> Iterator[list[bytes]]:
    """Yield the keys of all blocks of these versions, in order, some ten thousand at a time.

    A version is a path, what names the version, and a size. A server may claim any size: keys are made
    quickly, and an interrupt comes between two of the lists. With shorter lists, so more calls of the store,
    readers beside them were slower (perf case ``tree``).
    """
    keys: list[bytes] = []
    for path, version, size in versions:
        head = block_key(dataset_id, path, version, 0, block_bytes)[:-_NUMBER_BYTES]
        count = -(-size // block_bytes)
        for first in range(0, count, _KEYS_AT_A_TIME):
            numbers = range(first, min(first + _KEYS_AT_A_TIME, count))
            keys += [head + number.to_bytes(_NUMBER_BYTES, "big") for number in numbers]
            if len(keys) >= _KEYS_AT_A_TIME:
                yield keys
                keys = []
    if keys:
        yield keys


def whole_key(dataset_id: int, path: str, version: str, block_bytes: int) -> bytes:
    """Return the key of a whole file in blocks of that size, under which no block is stored."""
    return block_key(dataset_id, path, version, _WHOLE, block_bytes)
