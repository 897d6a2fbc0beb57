"""CRC-32C of each chunk of a buffer, as HDFS keeps them beside its blocks."""

from typing_extensions import Buffer

def crc32c_chunks(data: Buffer, chunk_bytes: int) -> bytes:
    """Return the CRC-32Cs of each chunk_bytes of data, the last of what is left, four big-endian bytes each.

    data is a C-contiguous buffer that nobody writes to meanwhile. Releases the GIL. Threads: any.
    Raises: BufferError, TypeError (no such buffer); ValueError (chunk_bytes is 0).
    """
