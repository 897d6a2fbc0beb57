"""What frames take for each block of a batch: its name in a READ frame, and its identity."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsEncodedString, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "forebay/hash.h" nogil:
    void fb_murmur3_x64_128(const void *data, size_t length_bytes, uint32_t seed, uint64_t *out)


cdef extern from *:
    """
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "frames are little-endian"
    #endif
    """


cdef packed struct Named:
    uint32_t id
    uint8_t flags
    uint8_t unused
    uint16_t dataset_bytes
    uint16_t path_bytes
    uint16_t version_bytes
    uint64_t number
    uint32_t length


cdef enum:
    NAME_BYTES_MAX = (1 << 16) - 1
    ONLY_CACHED = 1


cdef bytes encoded(text):
    cdef bytes name = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape")
    if PyBytes_GET_SIZE(name) > NAME_BYTES_MAX:
        raise ValueError(f"{text[:100]!r}...: {len(name)} bytes, at most {NAME_BYTES_MAX} fit into a frame")
    return name


def identity_of(str dataset not None, str path not None, str version not None="", uint64_t number=0):
    """Return 64 bits of a hash that tell a block, or with the defaults an object, from all others."""
    cdef uint64_t words[2]
    text = f"{dataset}\0{path}\0{version}\0{number}"
    cdef bytes name = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape")
    fb_murmur3_x64_128(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), 0, words)
    return words[0]


def pack_blocks(requests not None, uint32_t first_id, bint only_cached):
    """Return the body that names these blocks; their ids count on from first_id, and wrap."""
    cdef Named named = Named(first_id, ONLY_CACHED if only_cached else 0, 0, 0, 0, 0, 0, 0)
    cdef list parts = []
    cdef bytes dataset, path, version
    for request in requests:
        dataset, path, version = encoded(request[0]), encoded(request[1]), encoded(request[2])
        named.dataset_bytes = <uint16_t>PyBytes_GET_SIZE(dataset)
        named.path_bytes = <uint16_t>PyBytes_GET_SIZE(path)
        named.version_bytes = <uint16_t>PyBytes_GET_SIZE(version)
        named.number = request[3]
        named.length = request[5]
        parts += (PyBytes_FromStringAndSize(<const char *>&named, sizeof(Named)), dataset, path, version)
        named.id += 1
    return b"".join(parts)


def parse_blocks(body, make not None, uint32_t count_max, uint32_t length_max):
    """Return what a body names, each as a tuple of the type make."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(body, &buffer, PyBUF_SIMPLE)
    try:
        return blocks_of(<const char *>buffer.buf, buffer.len, make, count_max, length_max)
    finally:
        PyBuffer_Release(&buffer)


cdef list blocks_of(const char *body, Py_ssize_t body_bytes, make, uint32_t count_max, uint32_t length_max):
    cdef Named named
    cdef Py_ssize_t at = 0
    cdef list found = []
    while at < body_bytes:
        if <uint32_t>len(found) == count_max:
            raise ValueError(f"more than {count_max} blocks")
        hold(at, sizeof(Named), body_bytes)
        memcpy(&named, body + at, sizeof(Named))
        at += sizeof(Named)
        if named.flags & ~ONLY_CACHED:
            raise ValueError(f"unknown flags {named.flags:#x} of request {named.id}")
        if named.length > length_max:
            raise ValueError(f"a block of {named.length} bytes, at most {length_max}")
        hold(at, named.dataset_bytes + named.path_bytes + named.version_bytes, body_bytes)
        dataset = decoded(body + at, named.dataset_bytes)
        at += named.dataset_bytes
        path = decoded(body + at, named.path_bytes)
        at += named.path_bytes
        version = decoded(body + at, named.version_bytes)
        at += named.version_bytes
        is_flagged = named.flags != 0
        fields = (named.id, is_flagged, dataset, path, version, named.number, named.length)
        found.append(tuple.__new__(make, fields))
    return found


cdef inline int hold(Py_ssize_t at, Py_ssize_t wanted_bytes, Py_ssize_t body_bytes) except -1:
    if wanted_bytes > body_bytes - at:
        raise ValueError(f"{wanted_bytes} bytes wanted at {at} of a body of {body_bytes}")
    return 0


cdef inline str decoded(const char *name, Py_ssize_t name_bytes):
    return PyUnicode_DecodeUTF8(name, name_bytes, "surrogateescape")
