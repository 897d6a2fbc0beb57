"""One GET as both clients make it: what is wanted, and what an answer is.

Both give the same description of an object for the same answer, above all the same version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from forebay.clock import NS_PER_S
from forebay.ufs.base import ObjectInfo

# How a version begins that is not an ETag, for want of one.
_NO_ETAG: Final = "mtime-"


class Wanted(NamedTuple):
    """length bytes from offset on of the object at path, whose key in the bucket is key.

    With a version, of that version.
    """

    path: str
    key: str
    offset: int
    length: int
    version: str | None

    @property
    def if_match(self) -> str | None:
        """The value of If-Match that asks for the version; None: nothing asks for it."""
        version = self.version
        # A weak ETag never matches (RFC 9110, section 13.1.1).
        if not version or version.startswith(("W/", _NO_ETAG)):
            return None
        return f'"{version}"'


class Answer(Protocol):
    """The answer to one GET: the object, and length bytes of it that come. For one thread.

    Every method raises Failed and nothing else.
    """

    @property
    def info(self) -> ObjectInfo:
        """The whole object."""
        ...

    @property
    def length(self) -> int:
        """How many bytes come."""
        ...

    def read(self, size_max: int) -> memoryview:
        """Return the next bytes in the client's own buffer, which stays as it is; none at the end.

        They are as few or many as the client has at hand, and size_max at most.
        """
        ...

    def close(self) -> None:
        """Give up what is left."""
        ...


def version_of(etag: str | None, modified_s: int, size: int) -> str:
    """Return the version of an object, the same for its ETag in a listing and in an answer's headers."""
    return (etag or "").replace('"', "") or f"{_NO_ETAG}{modified_s}-{size}"


def info_of(path: str, head: Mapping[str, Any]) -> ObjectInfo:
    """Describe an object by boto3's answer to a HEAD."""
    return describe(path, int(head["ContentLength"]), head.get("ETag"), head.get("LastModified"))


def describe(path: str, size: int, etag: str | None, modified: datetime | None) -> ObjectInfo:
    """Describe an object by an answer's headers."""
    # Listings give milliseconds, headers seconds.
    modified_s = int(modified.timestamp()) if modified else 0
    return ObjectInfo(path, size, modified_s * NS_PER_S, version_of(etag, modified_s, size))
