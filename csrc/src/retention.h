/* Retention: what a hit leaves behind, and what becomes of a record whose segment is evicted. */
#ifndef FB_RETENTION_H
#define FB_RETENTION_H

#include "engine.h"
#include "index.h"

/* Note a hit of a dataset kept by s3fifo or lru. */
void fb_retention_touch(fb_store *s, const struct fb_key *key, const struct fb_found *found,
                        uint32_t retention);

enum fb_fate { FB_DROP, FB_KEEP, FB_DEMOTE };

/* The fate of a record of an evicted segment, by its touch byte; *touch is what it carries on. */
enum fb_fate fb_retention_fate(fb_store *s, uint32_t segment, uint32_t retention, uint8_t *touch);

/* The oldest sealed segment of what goes first; FB_NO_SEGMENT: none. */
uint32_t fb_retention_spare(fb_store *s, uint32_t tier);

/* A tier's next victim among the sealed segments that their retention lets go; FB_NO_SEGMENT: none. */
uint32_t fb_retention_victim(fb_store *s, uint32_t tier);

/* Keys that were hit twice in a slower tier; take: 0 or -ENOENT. Lossy when it overflows. */
void fb_promote_later(fb_store *s, const struct fb_key *key);
int fb_promote_take(fb_store *s, struct fb_key *key);

#endif
