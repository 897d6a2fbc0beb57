"""Entries as rows: their keys and values, made and read many at a time.

What a key looks like stands in rows.py. A value is

    form (1), inode, checked_ns, size, mtime, version, [the whole name, if the key cuts it], sum (4)

with numbers of 7 bits a byte, the lowest first, the high bit saying that there are more. The form says how
the others are written: the time in whole seconds or in nanoseconds, its sign in the lowest bit; the version
as the 16 bytes of an ETag, before them the number of its parts if it has one, or as its length and its text.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memrchr

from zlib import crc32

from forebay.meta import rows as layout
from forebay.meta.rows import Entry


cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *) noexcept
    bytes PyUnicode_AsEncodedString(object, const char *, const char *)


cdef enum:
    # Parts of a form.
    DIGEST = 1
    PARTS = 2
    SECONDS = 4
    FORMS = 8

    DIGEST_BYTES = 16
    DIGEST_DIGITS = 2 * DIGEST_BYTES
    PARTS_DIGITS_MAX = 9
    SUM_BYTES = 4
    NUMBER_BYTES_MAX = 10
    FIXED_BYTES_MAX = 1 + 5 * NUMBER_BYTES_MAX + DIGEST_BYTES
    VERSION_BYTES_MAX = 65_535

    # Fields of an Entry.
    PATH = 0
    SIZE = 1
    MTIME_NS = 2
    VERSION = 3
    IS_DIR = 4
    CHECKED_NS = 5

cdef struct Figures:
    uint8_t form
    uint64_t inode
    uint64_t checked_ns
    uint64_t size
    uint64_t time

cdef int64_t NS_PER_S = 1_000_000_000
# Of bytes that end in their own CRC-32, whatever the sum was begun with.
cdef uint32_t RESIDUE = 0x2144DF1C
cdef const char *DIGITS = b"0123456789abcdef"

cdef Py_ssize_t PREFIX_BYTES = layout.PREFIX_BYTES
cdef Py_ssize_t NAME_AT = layout.NAME_AT
cdef Py_ssize_t NAME_BYTES_MAX = layout.NAME_BYTES_MAX
cdef Py_ssize_t LONG_KEY_BYTES = layout.LONG_KEY_BYTES
cdef uint8_t OBJECT_BYTE = layout.OBJECT[0]
cdef uint8_t DIRECTORY_BYTE = layout.DIRECTORY[0]


def entries_of(infos, uint64_t checked_ns):
    """Return entries of what a storage said: (path, size, mtime_ns, version, is_dir) of each."""
    cdef object when = checked_ns
    cdef list entries = []
    for path, size, mtime_ns, version, is_dir in infos:
        entries.append(new_entry((path, size, mtime_ns, version, is_dir, when, 0)))
    return entries


def placed(entries, find):
    """Return entries by their keys, of several with one key the newest, and whether there is room for all.

    find(directory, checked_ns) returns the row of the directory that an entry lies in, None if there is no
    room for it; it is asked once for entries side by side. What is void there is left out.
    """
    cdef dict found = {}
    cdef bint complete = True
    cdef bytes text, prefix = b"", before = b""
    cdef Py_ssize_t name_at, name_at_before = -1
    cdef uint64_t checked_ns, asked_ns = 0, void_ns = 0
    cdef object row = None
    for entry in entries:
        check(entry)
        try:
            text = encoded(field(entry, PATH))
        except UnicodeEncodeError:
            complete = False
            continue
        name_at = behind_last_slash(text)
        checked_ns = field(entry, CHECKED_NS)
        if (
            checked_ns < asked_ns
            or name_at != name_at_before
            or memcmp(PyBytes_AS_STRING(text), PyBytes_AS_STRING(before), name_at)
        ):
            row = find(decoded(PyBytes_AS_STRING(text), max(name_at - 1, 0)), checked_ns)
            name_at_before, before, asked_ns = name_at, text, checked_ns
            if row is not None:
                prefix, void_ns = layout.prefix_of(row.id), row.void_ns
        if row is None:
            complete = False
        elif checked_ns >= void_ns:
            key = key_of(prefix, DIRECTORY_BYTE if field(entry, IS_DIR) else OBJECT_BYTE, text, name_at)
            known = found.get(key)
            if known is None or checked_ns >= <uint64_t>field(known, CHECKED_NS):
                found[key] = entry
    return found, complete


def packed(keys, dict entries not None, uint64_t inode):
    """Return rows of entries that are new, inodes counting up from inode, and the rows of those inodes.

    The entries are found by the keys. One with figures or text that no storage has gets no row.
    """
    cdef list rows = [], inodes = []
    cdef bytes key, value
    for key in keys:
        try:
            value = pack(key, entries[key], inode)
        except (OverflowError, UnicodeEncodeError):
            continue
        rows.append(pair(key, value))
        inodes.append(pair(layout.inode_key(inode), key[1:]))
        inode += 1
    return rows, inodes


def pack_entry(bytes key not None, entry, uint64_t inode):
    """Return the value of an entry that has this key.

    Raises: OverflowError, UnicodeEncodeError (figures or text that no storage has).
    """
    return pack(key, entry, inode)


def unpack_entry(str directory not None, bytes key not None, bytes value not None):
    """Return the entry of a directory that has this key; None if the value is damaged, or another key's."""
    return unpack(f"{directory}/" if directory else "", key, value)


def unpack_entries(str directory not None, rows, bytes behind not None):
    """Return the entries of a directory, and the number of damaged rows, from rows up to the key behind."""
    cdef str begin = f"{directory}/" if directory else ""
    cdef list entries = []
    cdef Py_ssize_t damaged = 0
    for key, value in rows:
        if key >= behind:
            break
        entry = unpack(begin, key, value)
        if entry is None:
            damaged += 1
        else:
            entries.append(entry)
    return entries, damaged


def count_objects(rows, bytes behind not None):
    """Return the number of objects, their bytes, and the number of damaged rows, up to the key behind."""
    cdef Py_ssize_t objects = 0, damaged = 0
    cdef object size_bytes = 0
    cdef Figures figures
    cdef const uint8_t *at
    for key, value in rows:
        if key >= behind:
            break
        if not take_figures(key, value, &at, &figures):
            damaged += 1
        elif not is_directory(key):
            objects += 1
            size_bytes += figures.size
    return objects, size_bytes, damaged


cdef inline object field(object entry, Py_ssize_t index):
    return <object>PyTuple_GET_ITEM(entry, index)


cdef int check(object entry) except -1:
    if type(entry) is not Entry:
        raise TypeError(f"no Entry: {entry!r}")
    return 0


cdef object new_entry(tuple values):
    """Make an Entry that the garbage collector does not look at: it holds nothing but texts and numbers."""
    cdef tuple arguments = (values,)
    cdef object entry = (<PyTypeObject *>tuple).tp_new(Entry, <PyObject *>arguments, NULL)
    PyObject_GC_UnTrack(<PyObject *>entry)
    return entry


cdef tuple pair(bytes key, bytes value):
    """Make a row, at which the garbage collector does not look either."""
    cdef tuple row = (key, value)
    PyObject_GC_UnTrack(<PyObject *>row)
    return row


cdef inline bytes encoded(object text):
    return PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape")


cdef inline str decoded(const void *text, Py_ssize_t length):
    return PyUnicode_DecodeUTF8(<char *>text, length, "surrogateescape")


cdef inline Py_ssize_t behind_last_slash(bytes path):
    cdef const char *text = PyBytes_AS_STRING(path)
    cdef const char *slash = <const char *>memrchr(text, c"/", PyBytes_GET_SIZE(path))
    return 0 if slash is NULL else slash + 1 - text


cdef bytes key_of(bytes prefix, uint8_t kind, bytes path, Py_ssize_t name_at):
    cdef const char *name = PyBytes_AS_STRING(path) + name_at
    cdef Py_ssize_t length = PyBytes_GET_SIZE(path) - name_at
    cdef bytes cut
    if length > NAME_BYTES_MAX:
        cut = layout.shortened(path[name_at:])
        name, length = PyBytes_AS_STRING(cut), PyBytes_GET_SIZE(cut)
    cdef bytes key = PyBytes_FromStringAndSize(NULL, NAME_AT + length)
    cdef char *target = PyBytes_AS_STRING(key)
    memcpy(target, PyBytes_AS_STRING(prefix), PREFIX_BYTES)
    target[PREFIX_BYTES] = <char>kind
    memcpy(target + NAME_AT, name, length)
    return key


cdef bytes pack(bytes key, object entry, uint64_t inode):
    cdef uint8_t fixed[FIXED_BYTES_MAX]
    cdef uint8_t *end = fixed + 1
    cdef int64_t time
    cdef bytes version, name = b""
    check(entry)
    fixed[0] = 0
    end = put_number(end, inode)
    end = put_number(end, field(entry, CHECKED_NS))
    end = put_number(end, field(entry, SIZE))
    time = field(entry, MTIME_NS)
    if time % NS_PER_S == 0:
        fixed[0] |= SECONDS
        time //= NS_PER_S
    end = put_number(end, (<uint64_t>time << 1) ^ <uint64_t>(time >> 63))
    version = encoded(field(entry, VERSION))
    if put_digest(version, fixed, &end):
        version = b""
    elif PyBytes_GET_SIZE(version) <= VERSION_BYTES_MAX:
        end = put_number(end, PyBytes_GET_SIZE(version))
    else:
        raise OverflowError(f"a version of {PyBytes_GET_SIZE(version)} bytes")
    if PyBytes_GET_SIZE(key) == LONG_KEY_BYTES:
        name = encoded(field(entry, PATH))
        name = name[behind_last_slash(name):]
    return sealed(key, fixed, end - fixed, version, name)


cdef bytes sealed(bytes key, const uint8_t *fixed, Py_ssize_t fixed_bytes, bytes version, bytes name):
    """Join the parts of a value, and put the sum of key and value behind them."""
    cdef Py_ssize_t version_bytes = PyBytes_GET_SIZE(version), name_bytes = PyBytes_GET_SIZE(name)
    cdef Py_ssize_t length = fixed_bytes + version_bytes + name_bytes
    cdef bytes row = PyBytes_FromStringAndSize(NULL, length)
    cdef char *target = PyBytes_AS_STRING(row)
    memcpy(target, fixed, fixed_bytes)
    memcpy(target + fixed_bytes, PyBytes_AS_STRING(version), version_bytes)
    memcpy(target + fixed_bytes + version_bytes, PyBytes_AS_STRING(name), name_bytes)
    cdef uint32_t total = crc32(row, crc32(key))
    cdef bytes value = PyBytes_FromStringAndSize(NULL, length + SUM_BYTES)
    memcpy(PyBytes_AS_STRING(value), target, length)
    memcpy(PyBytes_AS_STRING(value) + length, &total, SUM_BYTES)
    return value


cdef bint put_digest(bytes version, uint8_t *form, uint8_t **end) noexcept:
    """Write a version that is an MD5, perhaps with the number of parts that it was made of; say if it is one.

    Nothing is written that would not be read as the very same text.
    """
    cdef const char *text = PyBytes_AS_STRING(version)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(version), index
    cdef uint8_t digest[DIGEST_BYTES]
    cdef int high, low
    cdef uint64_t parts = 0
    if length < DIGEST_DIGITS or length > DIGEST_DIGITS + 1 + PARTS_DIGITS_MAX:
        return False
    for index in range(DIGEST_BYTES):
        high, low = hex_digit(text[2 * index]), hex_digit(text[2 * index + 1])
        if high < 0 or low < 0:
            return False
        digest[index] = <uint8_t>(high << 4 | low)
    if length > DIGEST_DIGITS:
        if text[DIGEST_DIGITS] != c"-" or not c"1" <= text[DIGEST_DIGITS + 1] <= c"9":
            return False
        for index in range(DIGEST_DIGITS + 1, length):
            if not c"0" <= text[index] <= c"9":
                return False
            parts = 10 * parts + <uint64_t>(text[index] - c"0")
        form[0] |= PARTS
        end[0] = put_number(end[0], parts)
    form[0] |= DIGEST
    memcpy(end[0], digest, DIGEST_BYTES)
    end[0] += DIGEST_BYTES
    return True


cdef inline int hex_digit(char digit) noexcept nogil:
    if c"0" <= digit <= c"9":
        return digit - c"0"
    return digit - c"a" + 10 if c"a" <= digit <= c"f" else -1


cdef inline uint8_t *put_number(uint8_t *at, uint64_t number) noexcept nogil:
    while number >= 0x80:
        at[0] = <uint8_t>(number | 0x80)
        number >>= 7
        at += 1
    at[0] = <uint8_t>number
    return at + 1


cdef object unpack(str begin, bytes key, bytes value):
    """Return the entry, whose path begins so; None if the value is damaged, or another key's."""
    cdef const uint8_t *at
    cdef const uint8_t *behind = behind_all_but_sum(value)
    cdef Figures figures
    cdef int64_t mtime
    cdef str version, name
    if not take_figures(key, value, &at, &figures):
        return None
    version = take_version(figures.form, &at, behind)
    if version is None:
        return None
    mtime = <int64_t>((figures.time >> 1) ^ (0 - (figures.time & 1)))
    if figures.form & SECONDS:
        mtime = <int64_t>(<uint64_t>mtime * <uint64_t>NS_PER_S)
    if PyBytes_GET_SIZE(key) == LONG_KEY_BYTES:
        name = decoded(at, behind - at)
    else:
        name = decoded(PyBytes_AS_STRING(key) + NAME_AT, PyBytes_GET_SIZE(key) - NAME_AT)
    return new_entry(
        (begin + name, figures.size, mtime, version, is_directory(key), figures.checked_ns, figures.inode)
    )


cdef inline bint is_directory(bytes key) noexcept:
    return PyBytes_AS_STRING(key)[PREFIX_BYTES] == <char>DIRECTORY_BYTE


cdef inline const uint8_t *behind_all_but_sum(bytes value) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(value) + PyBytes_GET_SIZE(value) - SUM_BYTES


cdef bint take_figures(bytes key, bytes value, const uint8_t **at, Figures *figures) except -1:
    """Check the sum and read what stands before the version; False if the value is damaged, or another key's."""
    cdef const uint8_t *behind = behind_all_but_sum(value)
    at[0] = <const uint8_t *>PyBytes_AS_STRING(value)
    if at[0] >= behind or PyBytes_GET_SIZE(key) < NAME_AT or <uint32_t>crc32(value, crc32(key)) != RESIDUE:
        return False
    figures.form = at[0][0]
    at[0] += 1
    return (
        figures.form < FORMS
        and take_number(at, behind, &figures.inode)
        and take_number(at, behind, &figures.checked_ns)
        and take_number(at, behind, &figures.size)
        and take_number(at, behind, &figures.time)
    )


cdef str take_version(uint8_t form, const uint8_t **at, const uint8_t *behind):
    """Read a version; None if it does not end within the value."""
    cdef uint64_t number = 0
    cdef char text[DIGEST_DIGITS]
    cdef const uint8_t *start
    cdef int index
    if (form & PARTS or not form & DIGEST) and not take_number(at, behind, &number):
        return None
    start = at[0]
    if not form & DIGEST:
        if number > <uint64_t>(behind - start):
            return None
        at[0] += number
        return decoded(start, number)
    if behind - start < DIGEST_BYTES:
        return None
    at[0] += DIGEST_BYTES
    for index in range(DIGEST_BYTES):
        text[2 * index] = DIGITS[start[index] >> 4]
        text[2 * index + 1] = DIGITS[start[index] & 0xF]
    digest = decoded(text, DIGEST_DIGITS)
    return f"{digest}-{number}" if form & PARTS else digest


cdef inline bint take_number(const uint8_t **at, const uint8_t *behind, uint64_t *number) noexcept nogil:
    """Read a number; False if it does not end within the value."""
    cdef const uint8_t *byte = at[0]
    cdef int shift = 0
    number[0] = 0
    while byte < behind and shift < 64:
        number[0] |= <uint64_t>(byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            at[0] = byte + 1
            return True
        byte += 1
        shift += 7
    return False
