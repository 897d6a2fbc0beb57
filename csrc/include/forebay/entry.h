/* An entry, what is known of one object or directory, in as few bytes as it takes.
 *
 * A packed entry is for the memory of one process and never lies in a file: its form may change with any
 * build. Numbers take the bytes that they need. A version is kept as what it is most often made of: an MD5 as
 * 16 bytes, numbers joined by '-' as numbers (and those that repeat the entry's size or mtime as a word of
 * that), anything else as it is.
 *
 * Both functions: any thread, no allocation, no alignment asked of a row.
 */
#ifndef FOREBAY_ENTRY_H
#define FOREBAY_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FB_VERSION_BYTES_MAX 192
#define FB_ENTRY_ROW_BYTES_MAX 232

struct fb_entry {
    uint64_t size_bytes;
    int64_t mtime_ns;
    uint64_t checked_ns;
    uint64_t inode;
    bool is_dir;
    uint32_t version_bytes;
    char version[FB_VERSION_BYTES_MAX];
};

/* Returns how many bytes of row were written, 1 or more; the caller guarantees that version_bytes is at most
 * FB_VERSION_BYTES_MAX. */
uint32_t fb_entry_pack(const struct fb_entry *entry, uint8_t row[FB_ENTRY_ROW_BYTES_MAX]);

/* *entry = what was packed. The row is one that fb_entry_pack wrote, in all its length. */
void fb_entry_unpack(const uint8_t *row, uint32_t length_bytes, struct fb_entry *entry);

#ifdef __cplusplus
}
#endif

#endif
