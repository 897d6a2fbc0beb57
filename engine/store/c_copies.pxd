"""The C library's copies into new memory, as csrc/include/forebay/copies.h declares them."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "forebay/copies.h" nogil:
    struct fb_copy:
        void *to
        const void *from_ "from"
        uint64_t length_bytes

    void fb_copy_many(const fb_copy *copies, uint32_t count)
