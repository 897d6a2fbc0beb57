"""Which members of a group a run of a file belongs to; the ranking is the C library's."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DATA, PyUnicode_GET_LENGTH
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from forebay.peer.c_placement cimport *

from forebay.errors import ConfigError


# Texts that are not ready, in the form of before Python 3.3, can still come from other extensions up to 3.11.
cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030C0000
    #define forebay_ready(text) PyUnicode_READY(text)
    #else
    #define forebay_ready(text) 0
    #endif
    """
    int forebay_ready(object text) except -1
    bint PyUnicode_IS_ASCII(object text)


MEMBERS_MAX = FB_PLACEMENT_MEMBERS_MAX
WEIGHT_ONE = FB_PLACEMENT_WEIGHT_ONE
WEIGHT_MIN = FB_PLACEMENT_WEIGHT_MIN
WEIGHT_MAX = FB_PLACEMENT_WEIGHT_MAX


cdef struct Name:
    const char *data
    size_t length


cdef inline object plain(object text):
    """Return what the bytes of a name can be taken from: an ASCII text itself, else bytes."""
    if PyUnicode_CheckExact(text):
        forebay_ready(text)
        return text if PyUnicode_IS_ASCII(text) else text.encode("utf-8", "surrogateescape")
    if PyBytes_CheckExact(text):
        return text
    raise TypeError(f"a name is str or bytes, not {type(text).__name__}")


cdef inline Name bytes_of(object plain_text) noexcept:
    if PyBytes_CheckExact(plain_text):
        return Name(PyBytes_AS_STRING(plain_text), PyBytes_GET_SIZE(plain_text))
    return Name(<const char *>PyUnicode_DATA(plain_text), PyUnicode_GET_LENGTH(plain_text))


def key_of(dataset not None, path not None, uint64_t run_number):
    """Return the key that placement goes by."""
    cdef object kept_dataset = plain(dataset), kept_path = plain(path)
    cdef Name first = bytes_of(kept_dataset), second = bytes_of(kept_path)
    return fb_placement_key(first.data, first.length, second.data, second.length, run_number)


@cython.final
cdef class Placement:
    """Members, and which of them a key belongs to."""

    def __cinit__(self, tuple members not None, ids not None, weights not None, zones not None):
        """Take for each member what stands for it in answers, its id, weight and zone's number."""
        cdef fb_placement_member *rows
        cdef Py_ssize_t count = len(members), i
        cdef int code
        cdef bytes member_id
        self.c = NULL
        if count > FB_PLACEMENT_MEMBERS_MAX:
            raise ConfigError(f"{count} members, at most {FB_PLACEMENT_MEMBERS_MAX}")
        if not count == len(ids) == len(weights) == len(zones):
            raise ValueError("members, ids, weights and zones differ in number")
        self.members = members
        self.c = <fb_placement *>PyMem_Malloc(fb_placement_bytes(<uint32_t>count))
        rows = <fb_placement_member *>PyMem_Malloc((count + 1) * sizeof(fb_placement_member))
        try:
            if self.c == NULL or rows == NULL:
                raise MemoryError()
            for i in range(count):
                member_id = ids[i]
                if PyBytes_GET_SIZE(member_id) != FB_PLACEMENT_ID_BYTES:
                    raise ValueError(f"an id of {PyBytes_GET_SIZE(member_id)} bytes")
                memcpy(rows[i].id, PyBytes_AS_STRING(member_id), FB_PLACEMENT_ID_BYTES)
                rows[i].weight = weights[i]
                rows[i].zone = zones[i]
            code = fb_placement_init(self.c, rows, <uint32_t>count)
        finally:
            PyMem_Free(rows)
        if code != 0:
            raise ValueError("members out of order or twice, or a weight or zone out of bounds")

    def __dealloc__(self):
        PyMem_Free(self.c)

    def rank(self, uint64_t key, Py_ssize_t count, bytes skipped=None):
        """Return the first count members for a key, by rank, without those whose byte in skipped is not 0."""
        return self.ranked(key, count, skipped)

    def owners(self, dataset not None, path not None, uint64_t run_number, Py_ssize_t count,
               bytes skipped=None):
        """Return the same for the key of a run."""
        cdef object kept_dataset = plain(dataset), kept_path = plain(path)
        cdef Name first = bytes_of(kept_dataset), second = bytes_of(kept_path)
        cdef uint64_t key = fb_placement_key(first.data, first.length, second.data, second.length, run_number)
        return self.ranked(key, count, skipped)

    cdef tuple ranked(self, uint64_t key, Py_ssize_t count, bytes skipped):
        cdef uint32_t[FB_PLACEMENT_MEMBERS_MAX] numbers
        cdef const uint8_t *is_skipped = NULL
        cdef uint32_t found, i
        cdef tuple result
        cdef object member
        cdef Py_ssize_t member_count = len(self.members)
        if count < 0:
            raise ValueError(f"count {count} is negative")
        if skipped is not None:
            if PyBytes_GET_SIZE(skipped) != member_count:
                raise ValueError(f"{PyBytes_GET_SIZE(skipped)} marks for {member_count} members")
            is_skipped = <const uint8_t *>PyBytes_AS_STRING(skipped)
        found = fb_placement_rank(self.c, key, is_skipped, <uint32_t>min(count, member_count), numbers)
        result = PyTuple_New(found)
        for i in range(found):
            member = self.members[numbers[i]]
            Py_INCREF(member)
            PyTuple_SET_ITEM(result, i, member)
        return result
