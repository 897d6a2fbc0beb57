/* Reading: look-up, lease, bytes. */
#ifndef FB_READ_H
#define FB_READ_H

#include "account.h"
#include "engine.h"
#include "index.h"

/* As fb_index_find, but a page that somebody writes is waited for a moment, and mended if the writer died. */
int fb_block_find(fb_store *s, const struct fb_key *key, struct fb_found *found);

/* Compare record and checksums of what a slot names with `data`, its bytes. 0; -EBADMSG: not what was
 * put; or an errno of this process's own limits, when it cannot be told now. */
int fb_block_verify(fb_store *s, const struct fb_found *found, const struct fb_key *key, const uint8_t *data);
/* The slot says from now on that its bytes were seen good in this generation of the store; if a writer has
 * its page, the next reader verifies again. */
void fb_block_mark_verified(fb_store *s, const struct fb_key *key, const struct fb_found *found);
/* Drop a slot whose bytes are not what they should be. */
void fb_block_drop(fb_store *s, const struct fb_key *key, uint64_t place);

/* Its dataset is not idle. The word is written only when it changes. */
static inline struct fb_dataset *fb_dataset_is_read(fb_store *s, uint32_t segment)
{
    struct fb_dataset *d = fb_dataset_of(s, segment);
    uint32_t now = atomic_load_explicit(&s->shared->now_s, memory_order_relaxed);
    if (atomic_load_explicit(&d->read_s, memory_order_relaxed) != now)
        atomic_store_explicit(&d->read_s, now, memory_order_relaxed);
    return d;
}

/* This process's views keep so much evicted space that it gets private copies from now on. */
static inline bool fb_holds_too_much(fb_store *s)
{
    return atomic_load_explicit(&s->rows[s->row].held_bytes, memory_order_relaxed) > s->config.max_held_bytes;
}

/* Pooled private buffers; NULL when memory is out. */
void *fb_pool_take(fb_store *s, uint64_t length_bytes);
void fb_pool_give(fb_store *s, void *buffer);
void fb_pool_close(fb_store *s);

#endif
