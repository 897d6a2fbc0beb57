"""Copies of many views for Python: allocates them, releases the interpreter lock, has C fill them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint32_t

from forebay.store._store cimport View
from forebay.store.c_copies cimport fb_copy, fb_copy_many


def copies(views not None):
    """Return the bytes of views, in order, each in an object of its own."""
    cdef tuple held = tuple(views)
    cdef list made = []
    cdef uint32_t count = <uint32_t>len(held)
    cdef uint32_t viewed = 0
    cdef View view
    cdef fb_copy *c = <fb_copy *>PyMem_Calloc(max(count, 1), sizeof(fb_copy))
    if c == NULL:
        raise MemoryError()
    try:
        for view in held:
            if view is None:
                raise TypeError("None is no view")
            view.check_held()
            copy = PyBytes_FromStringAndSize(NULL, view.hit.length_bytes)
            c[viewed] = fb_copy(PyBytes_AS_STRING(copy), view.hit.data, view.hit.length_bytes)
            made.append(copy)
            # As a buffer over it would, this keeps it from being released.
            view.exports += 1
            viewed += 1
        with nogil:
            fb_copy_many(c, count)
    finally:
        for view in held[:viewed]:
            view.exports -= 1
        PyMem_Free(c)
    return made
