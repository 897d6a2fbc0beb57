/* Changes to what is there, under the lock of its page. */
#ifndef FB_CHANGE_H
#define FB_CHANGE_H

#include "engine.h"

/* Lock a key's page and find its slot: 0, -ENOENT (unlocked), -ETIMEDOUT, -EROFS. */
int fb_slot_lock(fb_store *s, const struct fb_key *key, uint32_t *page, uint32_t *slot);
/* The time of what has this extent is over. */
bool fb_is_expired(fb_store *s, uint64_t extent);

/* Remove a key whose time is over, as its slot says under the page's lock: it may have been given more since
 * it was seen. 0, -ENOENT, -EAGAIN (not over), -ETIMEDOUT. */
int fb_drop_expired(fb_store *s, const struct fb_key *key);

#endif
