"""Where a seek leads, in a file that is read as in one that is written."""

from __future__ import annotations

import io


def sought_position(offset: int, whence: int, position: int, size: int) -> int:
    """Return where a seek leads in a file of that position and size; that may lie behind the end.

    Raises: ValueError (before the beginning; another whence).
    """
    bases = {io.SEEK_SET: 0, io.SEEK_CUR: position, io.SEEK_END: size}
    if whence not in bases:
        raise ValueError(f"whence is 0, 1 or 2, not {whence}")
    sought = bases[whence] + offset
    if sought < 0:
        raise ValueError(f"position {sought} lies before the beginning")
    return sought
