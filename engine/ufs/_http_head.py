"""What the head of an HTTP response says of an object: is it one, how large, which version."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from forebay.ufs._fsspec_info import time_ns, version_of_time
from forebay.ufs.base import ObjectInfo

RANGE_NOT_SATISFIABLE: Final = 416

_PLAIN: Final = ("", "identity")


class HTTPStatusError(Exception):
    """A response that says that the request failed."""

    def __init__(self, status: int, reason: str, url: str) -> None:
        """Keep the status where whoever translates looks for it."""
        super().__init__(f"HTTP {status} {reason} for {url}")
        self.status = status


@dataclass(frozen=True)
class Head:
    """A response without its body; url is where redirects led."""

    status: int
    headers: Mapping[str, str]
    url: str
    reason: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 400

    @property
    def is_dir(self) -> bool:
        """Servers redirect a directory's name to the one with a slash."""
        return urllib.parse.urlsplit(self.url).path.endswith("/")

    @property
    def content_length(self) -> int | None:
        """The Content-Length, None without one or if it counts compressed bytes."""
        text = self.headers.get("Content-Length", "")
        is_count = text.isascii() and text.isdigit() and len(text) < 20
        return int(text) if is_count and self.headers.get("Content-Encoding", "") in _PLAIN else None

    @property
    def size(self) -> int | None:
        """The size of the whole object, None if the response does not tell."""
        total = self.headers.get("Content-Range", "").rpartition("/")[2]
        if self.status in (206, RANGE_NOT_SATISFIABLE):
            return int(total) if total.isascii() and total.isdigit() and len(total) < 20 else None
        return self.content_length

    def raise_for_status(self) -> None:
        """Raise HTTPStatusError for a request that failed."""
        if not self.is_ok:
            raise HTTPStatusError(self.status, self.reason, self.url)

    def info(self, path: str, size: int) -> ObjectInfo:
        """Describe the object of this size that the response is about."""
        modified = self.headers.get("Last-Modified")
        mtime_ns = time_ns(modified)
        version = self.headers.get("ETag", "").replace('"', "") or version_of_time(mtime_ns, size)
        if modified and modified == self.headers.get("Date") and "ETag" not in self.headers:
            # Within this second it may change again under the same time (RFC 9110, section 8.8.2.2).
            version += "~"
        return ObjectInfo(path, size, mtime_ns, version)


def head_of(response: Any) -> Head:
    """Take the head of aiohttp's response."""
    return Head(response.status, response.headers, str(response.url), response.reason or "")


def is_strong_tag(version: str) -> bool:
    """Say whether a version is an ETag that If-Match can be asked with, as far as its form tells."""
    time_or_none, _, size = version.removesuffix("~").rpartition("-")
    is_ours = size.isdigit() and (time_or_none == "untracked" or time_or_none.isdigit())
    return not is_ours and not version.startswith("W/")
