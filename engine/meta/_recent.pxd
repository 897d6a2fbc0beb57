from libc.stdint cimport int64_t, uint64_t


cdef class ChangeCounter:
    cdef Py_buffer memory
    cdef uint64_t *word
    cdef uint64_t now(self) noexcept


cdef class Remembered:
    cdef object value
    cdef ChangeCounter counter
    cdef uint64_t seen_changes
    cdef int64_t expires_ns
    cdef object path
    cdef Py_ssize_t place
    cdef bint used


cdef class Recent:
    cdef readonly Py_ssize_t capacity
    cdef dict known
    cdef list ring
    cdef Py_ssize_t hand
    cdef Py_ssize_t free_place(self) except -1
    cpdef object get(self, str path)
