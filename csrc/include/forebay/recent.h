/* What one process has looked up lately: a table path -> a few bytes, in private memory and bounded in bytes.
 *
 * A path is not kept: its name stands for it, 128 bits of SipHash under a secret of the table's own, so
 * nobody can make two paths that share one. Any row may be gone at any time. When the table is full, what was
 * added first and not asked for since gives way (second chance).
 *
 * Threads: one at a time, which the caller sees to. Memory is taken as it is needed, up to the bound. After
 * a fork each side has its own table.
 */
#ifndef FOREBAY_RECENT_H
#define FOREBAY_RECENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FB_RECENT_BYTES_MIN (UINT64_C(64) << 10)
#define FB_RECENT_BYTES_MAX (UINT64_C(64) << 20)
#define FB_RECENT_ROW_BYTES_MAX 255

struct fb_recent;

struct fb_recent_name {
    uint64_t lo;
    uint64_t hi;
};

/* What is kept of a path. The stamp is the caller's: by it he tells whether the row still holds. */
struct fb_recent_row {
    uint64_t stamp;
    uint8_t length_bytes;
    uint8_t bytes[FB_RECENT_ROW_BYTES_MAX];
};

/* -EINVAL: bytes_max is not within the bounds above; -ENOMEM; the error of getrandom. */
int fb_recent_open(uint64_t bytes_max, struct fb_recent **out);
void fb_recent_close(struct fb_recent *t);

/* The name of a path whose characters take so many bytes each: equal texts of different widths differ. */
struct fb_recent_name fb_recent_name_of(const struct fb_recent *t, const void *path, size_t length_bytes,
                                        uint32_t width_bytes);

/* Keep a row, in place of an earlier one of that name. length_bytes is 1 to FB_RECENT_ROW_BYTES_MAX. Returns
 * 0, or -ENOMEM: nothing is kept of that name then. */
int fb_recent_put(struct fb_recent *t, const struct fb_recent_name *name, uint64_t stamp, const void *bytes,
                  uint32_t length_bytes);

/* *row = what is kept, or false. */
bool fb_recent_get(struct fb_recent *t, const struct fb_recent_name *name, struct fb_recent_row *row);

void fb_recent_forget(struct fb_recent *t, const struct fb_recent_name *name);

/* Forget everything and give the memory back. */
void fb_recent_clear(struct fb_recent *t);

/* Rows kept, and the bytes that are taken for them. */
uint32_t fb_recent_count(const struct fb_recent *t);
uint64_t fb_recent_bytes(const struct fb_recent *t);

#ifdef __cplusplus
}
#endif

#endif
