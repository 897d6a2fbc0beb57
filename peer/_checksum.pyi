"""CRC-32C of what goes between peers, computed without the interpreter's lock."""

from typing_extensions import Buffer

def crc32c(data: Buffer, crc: int = 0) -> int:
    """Return the CRC-32C of data appended to bytes whose CRC-32C is crc; 0 to begin.

    data is a C-contiguous buffer that nobody writes to meanwhile. Releases the GIL. Threads: any.
    Raises: BufferError, TypeError (no such buffer).
    """
