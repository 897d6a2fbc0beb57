"""Objects and their versions from the dictionaries in which fsspec describes files.

fsspec lays down name, size and type and leaves the rest to each file system. The version is made of the best
that there is, and says by its form what that was:

1. a checksum or an ETag, as it is: differs whenever the bytes do;
2. ``time-size``: a change within the clock's granularity that keeps the size is not seen;
3. ``untracked-size``: the file system tells nothing of its files' age; only a change of size is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from forebay.clock import NS_PER_S
from forebay.ufs.base import ObjectInfo

# In the order of trust; each is some file system's name for it.
_TAGS: Final = (
    "ETag",
    "etag",
    "e_tag",
    "generation",
    "version_id",
    "md5Hash",
    "content_md5",
    "checksum",
    "blob_id",
    "sha",
    "hex",
)
# created is the last resort: what replaces a file makes a new one.
_TIMES: Final = (
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "modified",
    "updated",
    "modify",
    "modificationTime",
    "created",
)
_MTIME_S_MAX: Final = 1e11


def described(path: str, raw: Mapping[str, Any], ukey: str = "") -> ObjectInfo | None:
    """Make the info of a file or directory; None for what is neither, or is a file without a size.

    ukey is the file system's own word for a version, where raw has nothing better.
    """
    kind = raw.get("type")
    if kind == "directory":
        return ObjectInfo(path, 0, 0, "", is_dir=True)
    size = raw.get("size")
    if kind != "file" or isinstance(size, bool) or not isinstance(size, int) or size < 0:
        return None
    mtime_ns = _mtime_ns(raw)
    return ObjectInfo(path, size, mtime_ns, tag_of(raw) or ukey or version_of_time(mtime_ns, size))


def is_tracked(raw: Mapping[str, Any]) -> bool:
    """Say whether the description itself holds anything to tell versions apart."""
    return bool(tag_of(raw) or _mtime_ns(raw))


def tag_of(raw: Mapping[str, Any]) -> str:
    """Return the ETag or checksum in a description, "" if it has none."""
    for name in _TAGS:
        value = raw.get(name)
        if isinstance(value, bytes | bytearray):
            value = value.hex()
        if isinstance(value, str | int) and not isinstance(value, bool) and value:
            return str(value).replace('"', "")
    return ""


def version_of_time(mtime_ns: int, size: int) -> str:
    """Return the version of an object that is known by its time, 0 for none, and its size."""
    return f"{mtime_ns}-{size}" if mtime_ns else f"untracked-{size}"


def _mtime_ns(raw: Mapping[str, Any]) -> int:
    for name in _TIMES:
        if mtime_ns := time_ns(raw.get(name)):
            return mtime_ns
    return 0


def time_ns(value: object) -> int:
    """Return a point in time in any of the forms that file systems use, 0 for what is none."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, str):
        value = _parse(value.strip())
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        value = aware.timestamp()
    if not isinstance(value, int | float) or not 0 < value < _MTIME_S_MAX * 1_000:
        return 0
    # WebHDFS counts milliseconds.
    seconds = value / 1_000 if value >= _MTIME_S_MAX else value
    # To the microsecond: a listing may give as a float what the file's own description gives exactly.
    return round(seconds * 1_000_000) * (NS_PER_S // 1_000_000)


def _parse(text: str) -> datetime | None:
    """Read ISO 8601, HTTP's and FTP's form of a time."""
    for read in (datetime.fromisoformat, parsedate_to_datetime, _parse_ftp):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _parse_ftp(text: str) -> datetime:
    return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
