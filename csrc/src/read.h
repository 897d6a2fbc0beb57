/* Reading: look-up, lease, bytes. */
#ifndef FB_READ_H
#define FB_READ_H

#include "engine.h"
#include "index.h"

/* Compare record and checksums of what a slot names with `data`, its bytes. 0; -EBADMSG: not what was
 * put; or an errno of this process's own limits, when it cannot be told now. */
int fb_block_verify(fb_store *s, const struct fb_found *found, const struct fb_key *key, const uint8_t *data);
/* Drop a slot whose bytes are not what they should be. */
void fb_block_drop(fb_store *s, const struct fb_key *key, uint64_t place);

/* Pooled private buffers; NULL when memory is out. */
void *fb_pool_take(fb_store *s, uint64_t length_bytes);
void fb_pool_give(fb_store *s, void *buffer);
void fb_pool_close(fb_store *s);

#endif
