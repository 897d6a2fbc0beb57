from libc.stdint cimport int64_t, uint64_t

from forebay.meta.c_recent cimport fb_entry, fb_recent


cdef class ChangeCounter:
    cdef Py_buffer memory
    cdef uint64_t *word
    cdef uint64_t now(self) noexcept


cdef class Scope:
    cdef uint64_t number
    cdef ChangeCounter counter
    cdef int64_t max_age_ns
    cdef Py_ssize_t dataset_length
    cdef bytes head
    cdef bytes middle
    cdef bytes tail


cdef class Known:
    cdef readonly str path
    cdef Scope scope
    cdef fb_entry c


cdef class Recent:
    cdef readonly uint64_t bytes_max
    cdef fb_recent *c
    cdef list scopes
    cdef dict scope_of
    cdef Scope scope(self, ChangeCounter counter, int64_t max_age_ns, Py_ssize_t dataset_length, tuple parts)
