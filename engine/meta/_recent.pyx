# cython: nonecheck=True
# For Known.__new__ can be called, and what it makes has no parts.
"""What a process has looked up lately, and how it knows that nothing has changed since.

The table is the C library's. Here an entry is packed into it, and taken out only while the change counter
of its dataset, a word of memory that all processes of the cache share, still reads as it did before the
entry was looked up.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport (
    PyUnicode_CheckExact,
    PyUnicode_DATA,
    PyUnicode_DecodeUTF8,
    PyUnicode_GET_LENGTH,
    PyUnicode_KIND,
)
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport clock_gettime, timespec

from forebay.meta._rows cimport new_entry
from forebay.meta.c_recent cimport *

from forebay.errors import ConfigError


cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_BOOTTIME


# C11 names no atomic access to a word that was not declared atomic; gcc and clang have this one. Texts that
# are not ready, in the form of before Python 3.3, can still come from other extensions up to 3.11.
cdef extern from *:
    """
    #define forebay_load(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)
    #define forebay_store(word, value) __atomic_store_n((word), (value), __ATOMIC_RELEASE)
    #if PY_VERSION_HEX < 0x030C0000
    #define forebay_ready(text) PyUnicode_READY(text)
    #else
    #define forebay_ready(text) 0
    #endif
    """
    uint64_t forebay_load(const uint64_t *word) noexcept nogil
    void forebay_store(uint64_t *word, uint64_t value) noexcept nogil
    int forebay_ready(str text) except -1
    bint PyUnicode_IS_ASCII(str text)


# A stamp: the number of the scope above, and below it the number of changes, which nothing ever counts so far.
cdef enum:
    CHANGES_BITS = 48
    SCOPES_MAX = 4096


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
@cython.internal
@cython.no_gc
cdef class Scope:
    """What many look-ups have in common: the counter, how long they hold, and the key but for path and version."""


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Known:
    """What a look-up found, as it was when it was handed out."""

    def __init__(self):
        raise TypeError("what is known comes from Recent.get")

    @property
    def dataset(self):
        """The name of the dataset."""
        return self.path[:self.scope.dataset_length]

    @property
    def entry(self):
        """The entry itself."""
        return new_entry((
            self.path[rest_at(self.scope):], self.size, self.mtime_ns, self.version, self.is_dir,
            self.c.checked_ns, self.c.inode,
        ))

    @property
    def size(self):
        """The entry's size."""
        return self.c.size_bytes

    @property
    def mtime_ns(self):
        """The entry's time."""
        return self.c.mtime_ns

    @property
    def version(self):
        """The entry's version."""
        return PyUnicode_DecodeUTF8(self.c.version, self.c.version_bytes, "surrogateescape")

    @property
    def is_dir(self):
        """Whether it is a directory."""
        return self.c.is_dir

    @property
    def key(self):
        """The key that was given with the entry, or None."""
        cdef Scope scope = self.scope
        cdef bytes encoded, key
        cdef const char *rest
        cdef Py_ssize_t length
        cdef char *end
        if scope.head is None:
            return None
        if PyUnicode_IS_ASCII(self.path):
            rest = <const char *>PyUnicode_DATA(self.path) + rest_at(scope)
            length = PyUnicode_GET_LENGTH(self.path) - rest_at(scope)
        else:
            encoded = encoded_text(self.path[rest_at(scope):])
            rest, length = PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded)
        key = PyBytes_FromStringAndSize(
            NULL,
            PyBytes_GET_SIZE(scope.head) + length + PyBytes_GET_SIZE(scope.middle)
            + self.c.version_bytes + PyBytes_GET_SIZE(scope.tail),
        )
        end = copied(PyBytes_AS_STRING(key), PyBytes_AS_STRING(scope.head), PyBytes_GET_SIZE(scope.head))
        end = copied(end, rest, length)
        end = copied(end, PyBytes_AS_STRING(scope.middle), PyBytes_GET_SIZE(scope.middle))
        end = copied(end, self.c.version, self.c.version_bytes)
        copied(end, PyBytes_AS_STRING(scope.tail), PyBytes_GET_SIZE(scope.tail))
        return key


cdef inline Py_ssize_t rest_at(Scope scope) noexcept:
    """Where in the path the part behind the dataset's name begins."""
    return scope.dataset_length + 1


cdef inline char *copied(char *end, const char *data, size_t length) noexcept:
    memcpy(end, data, length)
    return end + length


cdef bytes encoded_text(str text):
    if PyUnicode_IS_ASCII(text):
        return PyBytes_FromStringAndSize(<const char *>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))
    return text.encode("utf-8", "surrogateescape")


cdef fb_recent_name name_of(const fb_recent *c, str path) except *:
    forebay_ready(path)
    return fb_recent_name_of(
        c, PyUnicode_DATA(path), PyUnicode_GET_LENGTH(path) * PyUnicode_KIND(path), PyUnicode_KIND(path)
    )


cdef bint is_over(int64_t max_age_ns, uint64_t checked_ns) noexcept:
    """Say whether what was checked then has not held for so long; a check in the future is another clock's."""
    cdef timespec now
    cdef uint64_t now_ns
    clock_gettime(CLOCK_BOOTTIME, &now)
    now_ns = now.tv_sec * <uint64_t>1_000_000_000 + now.tv_nsec
    return checked_ns > now_ns or now_ns - checked_ns >= <uint64_t>max_age_ns


cdef bint fill_entry(fb_entry *c, tuple fields) except -1:
    """Convert an entry; return whether it is one that a row can hold."""
    cdef bytes encoded
    _, size, mtime_ns, version, is_dir, checked_ns, inode = fields
    try:
        c.size_bytes = size
        c.mtime_ns = mtime_ns
        c.checked_ns = checked_ns
        c.inode = inode
        encoded = encoded_text(version)
    except (OverflowError, UnicodeEncodeError):
        return False
    if PyBytes_GET_SIZE(encoded) > FB_VERSION_BYTES_MAX:
        return False
    c.is_dir = is_dir
    c.version_bytes = <uint32_t>PyBytes_GET_SIZE(encoded)
    memcpy(c.version, PyBytes_AS_STRING(encoded), c.version_bytes)
    return True


cdef tuple parts_of(bytes key, str path, bytes version):
    """Cut path and version out of a key: what is left is the same for many. None if they are not in it so."""
    cdef Py_ssize_t at, after
    cdef bytes encoded
    if key is None:
        return None
    encoded = encoded_text(path)
    at = key.find(encoded)
    after = key.find(version, at + len(encoded))
    if at < 0 or after < 0:
        return None
    return key[:at], key[at + len(encoded):after], key[after + len(version):]


@cython.final
cdef class Recent:
    """A table path -> entry for one process, bounded in bytes; what was not asked for lately gives way.

    Nothing is evicted because it no longer holds: it is replaced when it is looked up anew. After a fork each
    side has its own. Threads: any.
    """

    def __cinit__(self, uint64_t bytes_max):
        """Make an empty table; 0 keeps nothing. Raises: ConfigError (a bound out of bounds)."""
        cdef int code
        self.c = NULL
        self.bytes_max = bytes_max
        self.scopes = []
        self.scope_of = {}
        if bytes_max == 0:
            return
        code = fb_recent_open(bytes_max, &self.c)
        if code == -EINVAL:
            raise ConfigError(
                f"max_recent_bytes: {bytes_max} is neither 0 nor {FB_RECENT_BYTES_MIN} to {FB_RECENT_BYTES_MAX}"
            )
        if code != 0:
            raise MemoryError() if code == -ENOMEM else OSError(-code, "no random secret for look-ups")

    def __dealloc__(self):
        if self.c != NULL:
            fb_recent_close(self.c)

    def put(self, str path not None, entry, ChangeCounter counter not None, uint64_t seen_changes,
            *, int64_t max_age_ns=-1, bytes key=None):
        """Remember an entry until the counter differs from seen_changes, or its check is max_age_ns old.

        The caller has the number from before, or together with, looking the entry up; -1 is for ever.
        """
        cdef fb_entry c
        cdef fb_recent_name name
        cdef uint8_t[FB_ENTRY_ROW_BYTES_MAX] row
        cdef Scope scope
        cdef tuple fields = tuple(entry)
        cdef str rest = fields[0]
        cdef Py_ssize_t dataset_length = len(path) - len(rest) - 1
        if self.c == NULL:
            return
        if dataset_length < 0 or path[dataset_length] != "/" or not path.endswith(rest):
            raise ValueError(f"{path!r} is no dataset and the path {rest!r} in it")
        if seen_changes >> CHANGES_BITS or counter.now() != seen_changes:
            return self.forget(path)
        if not fill_entry(&c, fields):
            return self.forget(path)
        scope = self.scope(
            counter, max_age_ns, dataset_length, parts_of(key, rest, c.version[:c.version_bytes])
        )
        # No Python runs from here on, so no finalizer and no other thread clears the scopes before the row is
        # there. What there is no memory for is not kept.
        name = name_of(self.c, path)
        fb_recent_put(self.c, &name, scope.number << CHANGES_BITS | seen_changes, row, fb_entry_pack(&c, row))

    # Bound and called the way of built-in methods, and without a check of its argument: what is no text is
    # not known.
    @cython.binding(False)
    @cython.always_allow_keywords(False)
    def get(self, path):
        """Return what is known of a path, or None if there is nothing that still holds."""
        cdef fb_recent_name name
        cdef fb_recent_row row
        cdef Scope scope
        cdef Known known
        if self.c == NULL or not PyUnicode_CheckExact(path):
            return None
        name = name_of(self.c, <str>path)
        if not fb_recent_get(self.c, &name, &row):
            return None
        scope = <Scope>self.scopes[row.stamp >> CHANGES_BITS]
        if scope.counter.now() != row.stamp & ((<uint64_t>1 << CHANGES_BITS) - 1):
            return None
        known = Known.__new__(Known)
        fb_entry_unpack(row.bytes, row.length_bytes, &known.c)
        if scope.max_age_ns >= 0 and is_over(scope.max_age_ns, known.c.checked_ns):
            return None
        known.path = <str>path
        known.scope = scope
        return known

    def forget(self, str path not None):
        """Drop what is remembered of a path, if anything."""
        cdef fb_recent_name name
        if self.c != NULL:
            name = name_of(self.c, path)
            fb_recent_forget(self.c, &name)

    def clear(self):
        """Drop everything, and let go of the counters."""
        if self.c != NULL:
            fb_recent_clear(self.c)
        self.scopes = []
        self.scope_of = {}

    @property
    def bytes_used(self):
        """The memory that is taken now."""
        return 0 if self.c == NULL else fb_recent_bytes(self.c)

    def __len__(self):
        """Return how many entries are remembered, whether they still hold or not."""
        return 0 if self.c == NULL else fb_recent_count(self.c)

    cdef Scope scope(self, ChangeCounter counter, int64_t max_age_ns, Py_ssize_t dataset_length, tuple parts):
        """Return the scope of these, the one that was made before if there is one."""
        cdef tuple wanted = (counter, max_age_ns, dataset_length, parts)
        cdef Scope scope = self.scope_of.get(wanted)
        if scope is None:
            if len(self.scopes) == SCOPES_MAX:
                self.clear()
            scope = Scope.__new__(Scope)
            scope.number = <uint64_t>len(self.scopes)
            scope.counter = counter
            scope.max_age_ns = max_age_ns
            scope.dataset_length = dataset_length
            if parts is not None:
                scope.head, scope.middle, scope.tail = parts
            self.scopes.append(scope)
            self.scope_of[wanted] = scope
        return scope
