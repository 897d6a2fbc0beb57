"""CRC-32C of each chunk of a buffer, as HDFS keeps them beside its blocks."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t


cdef extern from "forebay/crc32c.h" nogil:
    uint32_t fb_crc32c(uint32_t crc, const void *data, size_t length_bytes)


cdef enum:
    SUM_BYTES = 4


def crc32c_chunks(data, size_t chunk_bytes):
    """Return the CRC-32Cs of each chunk_bytes of data, the last of what is left, four big-endian bytes each.

    data is a C-contiguous buffer that nobody writes to meanwhile. Releases the GIL. Threads: any.
    Raises: BufferError, TypeError (no such buffer); ValueError (chunk_bytes is 0).
    """
    cdef Py_buffer buffer
    cdef size_t length, offset = 0
    cdef uint8_t *sums
    cdef uint32_t crc
    if chunk_bytes == 0:
        raise ValueError("chunk_bytes is 0")
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        length = buffer.len
        found = PyBytes_FromStringAndSize(NULL, (length // chunk_bytes + (length % chunk_bytes != 0)) * SUM_BYTES)
        sums = <uint8_t *>PyBytes_AS_STRING(found)
        with nogil:
            while offset < length:
                crc = fb_crc32c(0, <const uint8_t *>buffer.buf + offset, min(chunk_bytes, length - offset))
                sums[0] = crc >> 24
                sums[1] = (crc >> 16) & 0xFF
                sums[2] = (crc >> 8) & 0xFF
                sums[3] = crc & 0xFF
                sums += SUM_BYTES
                offset += chunk_bytes
        return found
    finally:
        PyBuffer_Release(&buffer)
