"""Ranges of one object that are asked for together: those that share a block are read as one.

So that a block which is not there is fetched for all of them at once, whether or not the store admits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Behind the end of any object.
_NO_END: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Span:
    """A range of an object; length None: all from offset on."""

    offset: int
    length: int | None

    @property
    def end(self) -> int:
        """Where it ends; far behind the object's end for all of it."""
        return _NO_END if self.length is None else self.offset + self.length


def joined(spans: Sequence[Span], block_bytes: int, bytes_max: int) -> tuple[list[Span], list[int]]:
    """Join spans that share a block into longer ones, of bytes_max at most; return those, and whose each is.

    Each span lies within the one of that number. Raises: ValueError (negative figures).
    """
    wide: list[Span] = []
    owners = [0] * len(spans)
    for position in sorted(range(len(spans)), key=lambda position: spans[position].offset):
        span = spans[position]
        if span.offset < 0 or (span.length is not None and span.length < 0):
            raise ValueError(f"offset and length are not negative: {span}")
        if wide and _is_joined(wide[-1], span, block_bytes, bytes_max):
            before = wide.pop()
            end = max(before.end, span.end)
            span = Span(before.offset, None if end == _NO_END else end - before.offset)
        wide.append(span)
        owners[position] = len(wide) - 1
    return wide, owners


def _is_joined(before: Span, span: Span, block_bytes: int, bytes_max: int) -> bool:
    shares = span.offset < before.end and span.end <= before.end
    if not shares and before.length and span.length:
        shares = span.offset // block_bytes <= (before.end - 1) // block_bytes
        shares = shares and max(before.end, span.end) - before.offset <= bytes_max
    return shares
