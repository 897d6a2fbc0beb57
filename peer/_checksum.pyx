"""CRC-32C of what goes between peers, computed without the interpreter's lock."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t


cdef extern from "forebay/crc32c.h" nogil:
    uint32_t fb_crc32c(uint32_t crc, const void *data, size_t length_bytes)


cdef enum:
    # Below it, letting go of the lock costs more than the checksum.
    UNLOCKED_BYTES_MIN = 16 << 10


def crc32c(data, uint32_t crc=0):
    """Return the CRC-32C of data appended to bytes whose CRC-32C is crc; 0 to begin.

    data is a C-contiguous buffer that nobody writes to meanwhile. Releases the GIL. Threads: any.
    Raises: BufferError, TypeError (no such buffer).
    """
    cdef Py_buffer buffer
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        if buffer.len < UNLOCKED_BYTES_MIN:
            return fb_crc32c(crc, buffer.buf, buffer.len)
        with nogil:
            crc = fb_crc32c(crc, buffer.buf, buffer.len)
        return crc
    finally:
        PyBuffer_Release(&buffer)
