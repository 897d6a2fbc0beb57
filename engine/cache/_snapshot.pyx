"""One version of an object, to be read by ranges: what frontends with positioned reads keep open."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

from forebay.store cimport BlockStore
from forebay.store.c_store cimport fb_asker

from forebay.meta import Entry


cdef enum:
    NOT_SO = -1  # it takes more than a look at the store


@cython.final
cdef class Snapshots:
    """Opens snapshots of the objects of one cache."""

    cdef BlockStore store
    cdef object recent

    def __init__(self, BlockStore store not None, recent):
        self.store = store
        self.recent = recent

    @cython.binding(False)
    def known(self, path, make_ranges, note):
        """Return an object that was looked up lately, and still is as it was; else None."""
        known = self.recent.get(path)
        if known is None or known.is_dir:
            return None
        return self.snapshot(path, known, known.key, make_ranges, note)

    def of(self, path, entry, make_ranges, note):
        """Return as ``known`` an object that has been looked up just now."""
        return self.snapshot(path, entry, None, make_ranges, note)

    cdef Snapshot snapshot(self, path, found, bytes key, make_ranges, note):
        cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
        snapshot.path = path
        snapshot.size = found.size
        snapshot.found = found
        snapshot.key = key
        snapshot.store = self.store
        snapshot.make_ranges = make_ranges
        snapshot.note = note
        return snapshot


@cython.final
@cython.freelist(16)
cdef class Snapshot:
    """One version of an object; made by ``Cache.snapshot``."""

    cdef readonly object path
    cdef readonly Py_ssize_t size
    cdef object found  # an Entry, or a Known, of which an Entry can be made
    cdef bytes key  # of the one block that it is, if it is known to be one
    cdef BlockStore store
    cdef object make_ranges
    cdef object note
    cdef object ranges

    def __init__(self):
        raise TypeError("snapshots are made by Cache.snapshot")

    @property
    def version(self):
        """The version that is read."""
        return self.found.version

    @property
    def block_bytes(self):
        """How much is fetched at a time."""
        return self.store.block_bytes

    @cython.binding(False)
    def readinto(self, buffer, offset=0):
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end."""
        cdef Py_ssize_t length_bytes
        cdef Py_ssize_t copied = self.whole_into(buffer, offset, &length_bytes)
        return self.own_ranges().readinto(buffer, offset) if copied == NOT_SO else copied

    @cython.binding(False)
    def fill(self, buffer, offset=0):
        """Fill as ``readinto``; return whether there was as much as the buffer holds."""
        cdef Py_ssize_t length_bytes
        cdef Py_ssize_t copied = self.whole_into(buffer, offset, &length_bytes)
        if copied == NOT_SO:
            return self.own_ranges().readinto(buffer, offset) == memoryview(buffer).nbytes
        return copied == length_bytes

    def known(self, offset, length):
        """Return a range, less at the object's end, if it lies in one block, in memory; never waits."""
        if self.key is not None and offset == 0 and length >= self.size:
            view = self.store.glance(self.key)
            if view is not None:
                if self.note is not None:
                    self.note(self.path, 0, self.size)
                return memoryview(view)
        return self.own_ranges().known(offset, length)

    def read(self, offset, length):
        """Return a range, less at the object's end; of one block of a memory tier without a copy."""
        return self.own_ranges().read(offset, length)

    @cython.binding(False)
    def close(self):
        """Give up what was fetched ahead; may be called twice."""
        if self.ranges is not None:
            self.ranges.close()

    # What is no buffer to be written to is left to `Ranges`, which says so.
    cdef Py_ssize_t whole_into(self, buffer, offset, Py_ssize_t *length_bytes) except -2:
        cdef Py_buffer target
        cdef Py_ssize_t copied = NOT_SO
        if self.key is None or offset != 0:
            return NOT_SO
        try:
            PyObject_GetBuffer(buffer, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except (BufferError, TypeError):
            return NOT_SO
        length_bytes[0] = target.len
        try:
            if target.len >= self.size:
                copied = self.store.copy_into(self.key, fb_asker(0, False, True), 0, &target)
        finally:
            PyBuffer_Release(&target)
        if copied != NOT_SO and self.note is not None:
            self.note(self.path, 0, copied)
        return copied

    cdef object own_ranges(self):
        if self.ranges is None:
            made = self.make_ranges(self.path, self.found if isinstance(self.found, Entry) else self.found.entry)
            # Another thread may have been first: then it is that one's.
            if self.ranges is None:
                self.ranges = made
        return self.ranges
