"""Rows of the entries' environment: what their keys and values look like.

Several tables share the environment, told apart by the first byte of a key. Numbers in keys are big-endian,
so that their order is the keys' order; in values they are little-endian.

    directory  dataset id (4), hash of the path (8)     -> its id, when listed, what is void, the path
    parent     directory id (6)                         -> the directory's key without its table
    entry      directory id (6), kind (1), name         -> an object or directory as described
    inode      inode (8)                                -> the entry's key without its table
    stale, absent, changes, ledger: see the modules of these names

A directory is found by the 64-bit hash of its path, and its row says which path that is: a second path with
the same hash is not remembered. Ids rather than hashes stand in the entries' keys, so that what is listed
together lies together. Values end in a checksum of key and value, so that a damaged row is a miss and never
a wrong size.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import zlib
from typing import Final, NamedTuple

DIRECTORIES: Final = b"d"
PARENTS: Final = b"p"
ENTRIES: Final = b"e"
STALE: Final = b"s"
ABSENT: Final = b"a"
CHANGES: Final = b"c"
LEDGER: Final = b"l"
# The last table of all: LMDB fills its pages only where rows are added behind everything else.
INODES: Final = b"z"

# A number of changes that no counter ever has.
CHANGES_UNKNOWN: Final = (1 << 64) - 1

OBJECT: Final = b"\0"
DIRECTORY: Final = b"\1"

PREFIX_BYTES: Final = 7
NAME_AT: Final = PREFIX_BYTES + 1
_DIRECTORY_ID_BYTES: Final = 6

# LMDB's keys end at 511 bytes: a longer name is kept whole in the value, cut and with its hash in the key.
NAME_BYTES_MAX: Final = 399
_NAME_BYTES_KEPT: Final = 384
_NAME_HASH_BYTES: Final = 16
LONG_KEY_BYTES: Final = NAME_AT + _NAME_BYTES_KEPT + _NAME_HASH_BYTES
_PATH_HASH_BYTES: Final = 8

_ID: Final = struct.Struct(">I")
_INODE: Final = struct.Struct(">Q")
_SUM: Final = struct.Struct("<I")
SUM_BYTES: Final = _SUM.size
# id, listed_ns, void_ns, oldest_ns
_DIRECTORY_ROW: Final = struct.Struct("<QQQQ")

# Of bytes that end in their own CRC-32, whatever the sum was begun with.
_RESIDUE: Final = 0x2144DF1C


class Entry(NamedTuple):
    """One object or directory as the under storage described it at checked_ns, in boot time.

    inode is 0 until it is remembered; it names the object or directory in this cache directory for as long
    as the entry is remembered. It takes no part in comparisons.
    """

    path: str
    size: int
    mtime_ns: int
    version: str
    is_dir: bool
    checked_ns: int
    inode: int = 0

    def __eq__(self, other: object) -> bool:
        """Compare what the under storage said."""
        return isinstance(other, Entry) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:
        """Compare what the under storage said."""
        return not self == other

    def __hash__(self) -> int:
        """Hash what is compared."""
        return hash(self[:-1])


class DirectoryRow(NamedTuple):
    """A directory's value.

    Entries in it that were checked before void_ns are gone, whether their rows are still there or not. No
    row in it was checked before oldest_ns. listed_ns is when the last complete listing began, else 0.
    """

    id: int
    listed_ns: int
    void_ns: int
    oldest_ns: int
    path: str


def dataset_prefix(table: bytes, dataset_id: int) -> bytes:
    """Return what the keys of a dataset's rows in a table begin with."""
    return table + _ID.pack(dataset_id)


def path_hash(path: str) -> bytes:
    """Return the hash by which a directory is found; nobody can make many paths that share one."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=_PATH_HASH_BYTES).digest()


@functools.lru_cache(maxsize=4_096)
def directory_key(dataset_id: int, path: str) -> bytes:
    """Return the key of a directory's row."""
    return DIRECTORIES + _ID.pack(dataset_id) + path_hash(path)


def dataset_of(directory: bytes) -> int:
    """Return the dataset's id from the key of a directory."""
    return int(_ID.unpack_from(directory, len(DIRECTORIES))[0])


def prefix_of(directory_id: int) -> bytes:
    """Return what the keys of the entries in a directory begin with."""
    return ENTRIES + directory_id.to_bytes(_DIRECTORY_ID_BYTES, "big")


def end_of(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with a prefix."""
    last = len(prefix)
    while prefix[last - 1] == 0xFF:
        last -= 1
    return prefix[: last - 1] + bytes([prefix[last - 1] + 1])


def parent_key(prefix: bytes) -> bytes:
    """Return the key of the row that says which directory a prefix belongs to."""
    return PARENTS + prefix[1:PREFIX_BYTES]


def inode_key(inode: int) -> bytes:
    """Return the key of an inode's row."""
    return INODES + _INODE.pack(inode)


def name_hash(name: bytes) -> bytes:
    """Return what stands for the end of a long name."""
    return hashlib.blake2b(name, digest_size=_NAME_HASH_BYTES).digest()


def name_bytes(name: str) -> bytes:
    """Return a name as it stands in a key, shortened if it is too long."""
    encoded = name.encode("utf-8", "surrogateescape")
    return encoded if len(encoded) <= NAME_BYTES_MAX else shortened(encoded)


def shortened(name: bytes) -> bytes:
    """Return what stands in a key for a name of more than NAME_BYTES_MAX bytes."""
    return name[:_NAME_BYTES_KEPT] + name_hash(name)


def sealed(key: bytes, value: bytes) -> bytes:
    """Return the value with the sum of key and value behind it."""
    return value + _SUM.pack(zlib.crc32(value, zlib.crc32(key)))


def is_sound(key: bytes, value: bytes) -> bool:
    """Say whether a value ends in its sum, and belongs to the key."""
    return zlib.crc32(value, zlib.crc32(key)) == _RESIDUE


def pack_directory(key: bytes, row: DirectoryRow) -> bytes:
    """Return the value of a directory row that has this key."""
    return sealed(key, _DIRECTORY_ROW.pack(*row[:-1]) + row.path.encode("utf-8", "surrogateescape"))


@functools.lru_cache(maxsize=4_096)
def unpack_directory(key: bytes, value: bytes) -> DirectoryRow | None:
    """Return what a directory's value says; None if it is damaged, or is not the one of that key."""
    if len(value) < _DIRECTORY_ROW.size + SUM_BYTES or not is_sound(key, value):
        return None
    path = value[_DIRECTORY_ROW.size : -SUM_BYTES].decode("utf-8", "surrogateescape")
    directory_id, listed_ns, void_ns, oldest_ns = _DIRECTORY_ROW.unpack_from(value)
    return DirectoryRow(directory_id, listed_ns, void_ns, oldest_ns, path)
