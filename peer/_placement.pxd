from libc.stdint cimport uint64_t

from forebay.peer.c_placement cimport fb_placement


cdef class Placement:
    cdef readonly tuple members
    cdef fb_placement *c
    cdef tuple ranked(self, uint64_t key, Py_ssize_t count, bytes skipped)
