"""The C library's packed entries and its table of recent look-ups, as csrc/include/forebay declares them."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "forebay/entry.h" nogil:
    enum:
        FB_VERSION_BYTES_MAX
        FB_ENTRY_ROW_BYTES_MAX

    struct fb_entry:
        uint64_t size_bytes
        int64_t mtime_ns
        uint64_t checked_ns
        uint64_t inode
        bint is_dir
        uint32_t version_bytes
        char version[FB_VERSION_BYTES_MAX]

    uint32_t fb_entry_pack(const fb_entry *entry, uint8_t *row)
    void fb_entry_unpack(const uint8_t *row, uint32_t length_bytes, fb_entry *entry)


cdef extern from "forebay/recent.h" nogil:
    enum:
        FB_RECENT_BYTES_MIN
        FB_RECENT_BYTES_MAX
        FB_RECENT_ROW_BYTES_MAX

    struct fb_recent:
        pass

    struct fb_recent_name:
        uint64_t lo
        uint64_t hi

    struct fb_recent_row:
        uint64_t stamp
        uint8_t length_bytes
        uint8_t bytes[FB_RECENT_ROW_BYTES_MAX]

    int fb_recent_open(uint64_t bytes_max, fb_recent **out)
    void fb_recent_close(fb_recent *t)
    fb_recent_name fb_recent_name_of(
        const fb_recent *t, const void *path, size_t length_bytes, uint32_t width_bytes
    )
    int fb_recent_put(
        fb_recent *t, const fb_recent_name *name, uint64_t stamp, const void *bytes, uint32_t length_bytes
    )
    bint fb_recent_get(fb_recent *t, const fb_recent_name *name, fb_recent_row *row)
    void fb_recent_forget(fb_recent *t, const fb_recent_name *name)
    void fb_recent_clear(fb_recent *t)
    uint32_t fb_recent_count(const fb_recent *t)
    uint64_t fb_recent_bytes(const fb_recent *t)
