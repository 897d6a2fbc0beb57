"""What a process has looked up lately, and how it knows that nothing has changed since.

A value is handed out only while the change counter of its dataset, a word of memory that all processes of
the cache share, still reads as it did before the value was looked up.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_GetItemWithError
from libc.stdint cimport int64_t, uint64_t
from posix.time cimport clock_gettime, timespec


cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_BOOTTIME


# C11 names no atomic access to a word that was not declared atomic; gcc and clang have this one.
cdef extern from *:
    """
    #define forebay_load(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)
    #define forebay_store(word, value) __atomic_store_n((word), (value), __ATOMIC_RELEASE)
    """
    uint64_t forebay_load(const uint64_t *word) noexcept nogil
    void forebay_store(uint64_t *word, uint64_t value) noexcept nogil


@cython.final
cdef class ChangeCounter:
    """One 64-bit word of shared memory. The memory stays mapped for as long as this lives. Threads: any."""

    def __cinit__(self, object memory, Py_ssize_t index, *, bint writable=True):
        """Take word number index of a C-contiguous buffer."""
        PyObject_GetBuffer(memory, &self.memory, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        if index < 0 or index >= self.memory.len // <Py_ssize_t>sizeof(uint64_t):
            raise IndexError(f"no word {index} in {self.memory.len} bytes")
        self.word = <uint64_t *>self.memory.buf + index

    def __dealloc__(self):
        PyBuffer_Release(&self.memory)

    cdef uint64_t now(self) noexcept:
        return forebay_load(self.word)

    def load(self):
        """Return the word."""
        return forebay_load(self.word)

    def store(self, uint64_t value):
        """Set the word. The caller is its only writer. Raises: TypeError (not writable)."""
        if self.memory.readonly:
            raise TypeError("the change counters were opened for reading")
        forebay_store(self.word, value)


@cython.final
@cython.freelist(64)
cdef class Remembered:
    """A value and what it depends on."""


@cython.final
cdef class Recent:
    """A bounded table path -> value for one process; when it is full, what was unused longest gives way.

    The order of eviction is approximate (second chance). Nothing is evicted because it no longer holds:
    it is replaced when it is looked up anew. After a fork each side has its own. Threads: any.
    """

    def __cinit__(self, Py_ssize_t capacity):
        """Make an empty table. Raises: ValueError (no room for even one)."""
        if capacity < 1:
            raise ValueError(f"capacity is 1 or more, not {capacity}")
        self.capacity = capacity
        self.known = {}
        self.ring = []
        self.hand = 0

    def put(self, str path not None, object value not None, ChangeCounter counter not None,
            uint64_t seen_changes, int64_t expires_ns=-1):
        """Remember a value until the counter differs from seen_changes, or boot time reaches expires_ns.

        The caller has the number from before, or together with, looking the value up; -1 is never.
        """
        cdef Remembered entry = Remembered.__new__(Remembered)
        cdef Remembered before
        entry.value = value
        entry.counter = counter
        entry.seen_changes = seen_changes
        entry.expires_ns = expires_ns
        entry.path = path
        before = self.known.get(path)
        entry.place = self.free_place() if before is None else before.place
        # What gives way is held by the ring or by `before` until here: a finalizer that ran in between, and
        # with it another thread, could leave the table and the ring with different minds.
        self.known[path] = entry
        self.ring[entry.place] = entry

    cpdef object get(self, str path):
        """Return the value, or None if there is none that still holds."""
        cdef timespec now
        cdef Remembered entry
        cdef void *found = <void *>PyDict_GetItemWithError(self.known, path)
        if found is NULL:
            return None
        entry = <Remembered>found
        if entry.counter.now() != entry.seen_changes:
            return None
        if entry.expires_ns >= 0:
            clock_gettime(CLOCK_BOOTTIME, &now)
            if now.tv_sec * <int64_t>1_000_000_000 + now.tv_nsec >= entry.expires_ns:
                return None
        entry.used = True
        return entry.value

    def forget(self, str path not None):
        """Drop what is remembered of a path, if anything."""
        cdef Remembered entry = self.known.pop(path, None)
        if entry is not None:
            entry.path = None
            entry.value = None

    def clear(self):
        """Drop everything."""
        self.known = {}
        self.ring = []
        self.hand = 0

    def __len__(self):
        """Return how many values are remembered, whether they still hold or not."""
        return len(self.known)

    cdef Py_ssize_t free_place(self) except -1:
        """Return a place of the ring that holds nothing that is still remembered."""
        cdef Remembered entry
        cdef Py_ssize_t place
        if len(self.ring) < self.capacity:
            self.ring.append(None)
            return len(self.ring) - 1
        while True:
            place = self.hand
            self.hand = (place + 1) % self.capacity
            entry = self.ring[place]
            if entry is None or entry.path is None:
                return place
            if not entry.used:
                del self.known[entry.path]
                return place
            entry.used = False
