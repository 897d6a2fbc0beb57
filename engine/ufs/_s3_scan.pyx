"""Objects of a listing: read from its document as nearly all servers write it, and described as paths.

What is out of the ordinary is left to a parser. What is read holds no markup but what was looked at, so that
it means what a parser would find.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, strlen

from forebay.ufs._s3_get import version_of
from forebay.ufs._s3_names import Key, is_marker, is_path
from forebay.ufs.base import ObjectInfo


cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *) noexcept

cdef extern from "<string.h>" nogil:
    void *memmem(const void *, size_t, const void *, size_t)


cdef enum:
    # What has more digits does not fit into 63 bits.
    SIZE_DIGITS_MAX = 18

cdef int64_t NS_PER_S = 1_000_000_000


cdef struct Text:
    const char *start
    const char *end


cdef struct Contents:
    Text key
    Text modified
    Text etag
    Text size


def scan(bytes document not None, seconds_of):
    """Return the objects of a listing, and the document without them; None: a parser has to read it.

    seconds_of reads a time.
    """
    cdef Text rest = Text(PyBytes_AS_STRING(document), PyBytes_AS_STRING(document) + PyBytes_GET_SIZE(document))
    cdef const char *begin = rest.start
    cdef const char *first = find(rest, b"<Contents>")
    cdef Text modified = Text(NULL, NULL)
    cdef Contents contents
    cdef object seconds = 0
    cdef list keys = []
    # Remarks and sections could hold what looks like an object.
    if first is NULL or find(rest, b"<!") is not NULL:
        return None
    rest.start = first
    while take(&rest, b"<Contents>"):
        if not take_contents(&rest, &contents):
            return None
        # Objects that were written one after another share it.
        if not is_same(contents.modified, modified):
            modified = contents.modified
            seconds = seconds_of(decoded(modified))
        keys.append(key_of(contents, seconds))
        take_space(&rest)
    if find(rest, b"<Contents") is not NULL:
        return None
    return keys, document[:first - begin] + document[rest.start - begin:]


def described(keys, Py_ssize_t prefix_length, str parent not None):
    """Return objects by their paths below parent, and the number of those that no path can name.

    Their keys have the prefix of that length. Empty ones that mark directories are not counted.
    """
    cdef list infos = []
    cdef Py_ssize_t hidden = 0
    cdef str name
    for key, size, modified_s, version in keys:
        name = key[prefix_length:]
        if is_plain(name) or is_path(name):
            infos.append(made(ObjectInfo, (parent + name, size, modified_s * NS_PER_S, version, False)))
        elif not is_marker(name, size):
            hidden += 1
    return infos, hidden


cdef bint is_plain(str name) noexcept:
    """Say whether a path can name it, where that is seen at a glance: no part is empty or ends in a dot."""
    cdef Py_UCS4 character, before = c"/"
    for character in name:
        if character == 0 or (character == c"/" and (before == c"/" or before == c".")):
            return False
        before = character
    return before != c"/" and before != c"."


cdef object key_of(Contents contents, object seconds):
    cdef object size = number(contents.size)
    cdef str version = decoded(contents.etag)
    if not version or '"' in version:
        version = version_of(version, seconds, size)
    return made(Key, (decoded(contents.key), size, seconds, version))


cdef object made(type kind, tuple values):
    """Make a named tuple that the garbage collector does not look at: it holds only texts and numbers."""
    cdef tuple arguments = (values,)
    cdef object item = (<PyTypeObject *>tuple).tp_new(kind, <PyObject *>arguments, NULL)
    PyObject_GC_UnTrack(<PyObject *>item)
    return item


cdef bint take_contents(Text *rest, Contents *found) noexcept nogil:
    """Read up to the end of an object; False: a parser has to."""
    cdef Text name, text
    cdef Text *field
    found.key = found.modified = found.etag = found.size = Text(NULL, NULL)
    while True:
        take_space(rest)
        if take(rest, b"</Contents>"):
            break
        if not take_element(rest, &name, &text):
            return False
        if is_text(name, b"Key"):
            field = &found.key
        elif is_text(name, b"LastModified"):
            field = &found.modified
        elif is_text(name, b"ETag"):
            field = &found.etag
        elif is_text(name, b"Size"):
            field = &found.size
        else:
            continue
        if field.start is not NULL or text.start is NULL:
            return False
        field[0] = text
    take_quotes(&found.etag)
    return (
        is_as_it_stands(found.key)
        and found.key.start < found.key.end
        and is_as_it_stands(found.modified)
        and is_as_it_stands(found.etag)
        and is_number(found.size)
    )


cdef bint take_element(Text *rest, Text *name, Text *text) noexcept nogil:
    """Read an element; its text starts nowhere if there are others in it. False: a parser has to read it."""
    cdef const char *at = rest.start
    if at == rest.end or at[0] != c"<":
        return False
    name.start = at = at + 1
    while at < rest.end and (c"a" <= at[0] <= c"z" or c"A" <= at[0] <= c"Z" or c"0" <= at[0] <= c"9"):
        at += 1
    name.end = at
    if name.start == at or at == rest.end or at[0] != c">":
        return False
    text.start = rest.start = at + 1
    while True:
        at = <const char *>memchr(rest.start, c"<", rest.end - rest.start)
        if at is NULL:
            return False
        text.end, rest.start = at, at + 1
        if take(rest, b"/") and take_name(rest, name[0]) and take(rest, b">"):
            return True
        text.start = NULL


cdef inline bint take(Text *rest, const char *expected) noexcept nogil:
    """Step over what is expected; False if something else stands there."""
    cdef Py_ssize_t length = strlen(expected)
    if rest.end - rest.start < length or memcmp(rest.start, expected, length):
        return False
    rest.start += length
    return True


cdef inline bint take_name(Text *rest, Text name) noexcept nogil:
    cdef Py_ssize_t length = name.end - name.start
    if rest.end - rest.start < length or memcmp(rest.start, name.start, length):
        return False
    rest.start += length
    return True


cdef inline void take_space(Text *rest) noexcept nogil:
    while rest.start < rest.end and (rest.start[0] == c" " or c"\t" <= rest.start[0] <= c"\r"):
        rest.start += 1


cdef inline void take_quotes(Text *etag) noexcept nogil:
    """Leave out the quotes around it, which nearly all servers write so."""
    cdef Text inner = etag[0]
    if take(&inner, b"&quot;") and inner.end - inner.start >= 6 and memcmp(inner.end - 6, b"&quot;", 6) == 0:
        etag.start, etag.end = inner.start, inner.end - 6


cdef inline bint is_as_it_stands(Text text) noexcept nogil:
    """Say whether a parser would make nothing else of a text."""
    cdef const char *at = text.start
    while at < text.end:
        if at[0] == c"&" or at[0] == c"\r":
            return False
        at += 1
    return True


cdef inline bint is_number(Text text) noexcept nogil:
    cdef const char *at = text.start
    while at < text.end:
        if not c"0" <= at[0] <= c"9":
            return False
        at += 1
    return 0 < text.end - text.start <= SIZE_DIGITS_MAX


cdef inline bint is_text(Text text, const char *expected) noexcept nogil:
    cdef Py_ssize_t length = strlen(expected)
    return text.end - text.start == length and memcmp(text.start, expected, length) == 0


cdef inline bint is_same(Text one, Text other) noexcept nogil:
    cdef Py_ssize_t length = one.end - one.start
    return length == other.end - other.start and (length == 0 or memcmp(one.start, other.start, length) == 0)


cdef inline const char *find(Text text, const char *wanted) noexcept nogil:
    return <const char *>memmem(text.start, text.end - text.start, wanted, strlen(wanted))


cdef inline str decoded(Text text):
    return PyUnicode_DecodeUTF8(<char *>text.start, text.end - text.start, "surrogateescape")


cdef inline int64_t number(Text text) noexcept nogil:
    cdef int64_t found = 0
    while text.start < text.end:
        found = 10 * found + (text.start[0] - c"0")
        text.start += 1
    return found
