"""Which bytes an HTTP response to a Range request really holds.

Servers differ: most answer 206 with a Content-Range, some 200 with a right Content-Range, some ignore the
Range and send the whole object with 200. What is provably the range that was asked for is accepted, nothing
else.
Source: RFC 9110, sections 14.4 (Content-Range) and 15.3.7 (206 Partial Content).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


@dataclass(frozen=True)
class ServedRange:
    """The bytes in a response: length of them, of an object of object_size."""

    length: int
    object_size: int


class WrongRange(Exception):  # noqa: N818  (says what is wrong; never leaves the package)
    """The response does not hold the range that was asked for, or does not prove it."""


def served_range(
    status: int, content_range: str | None, content_length: int | None, offset: int, length: int
) -> ServedRange:
    """Return what a response to a request for length bytes from offset on holds.

    Raises: WrongRange naming what was asked and what came.
    """
    asked = f"asked for bytes {offset}-{offset + length - 1}"
    if content_length is None:
        raise WrongRange(f"{asked}, got status {status} without a Content-Length")
    if content_range is None:
        # Without a Content-Range it is the whole object, which is the answer only to a range that covers it.
        if status != 200 or offset != 0 or content_length > length:
            raise WrongRange(f"{asked}, got status {status} with {content_length} bytes and no Content-Range")
        return ServedRange(content_length, content_length)
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    if match is None:
        raise WrongRange(f"{asked}, got Content-Range {content_range!r}")
    first, last, size = (int(group) for group in match.groups())
    if first != offset or last != min(offset + length, size) - 1 or last < first:
        raise WrongRange(f"{asked}, got Content-Range {content_range!r}")
    if content_length != last - first + 1:
        raise WrongRange(f"{asked}, got Content-Range {content_range!r} with {content_length} bytes")
    return ServedRange(content_length, size)
