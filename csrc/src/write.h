/* Writing: admission and publication. */
#ifndef FB_WRITE_H
#define FB_WRITE_H

#include "segment.h"

/* Room for a record in one level. 0 or -ENOSPC. */
int fb_place_in_level(fb_store *s, uint32_t dataset, uint32_t level, enum fb_queue queue,
                      const struct fb_key *key, uint64_t length_bytes, bool mover, struct fb_space *out);
uint32_t fb_level_count(fb_store *s);

/* Asked under the page's lock by whoever publishes. The cleaner sets RETIRING before it looks for a slot, and
 * takes that lock where it sees none: either RETIRING is seen here, or the cleaner finds the slot. */
bool fb_space_is_open(fb_store *s, const struct fb_space *space);
/* Make a committed record visible, unless its segment is being retired, or its dataset over its quota by now.
 * 0 or -ENOSPC. */
int fb_publish(fb_store *s, const struct fb_key *key, const struct fb_space *space, uint32_t expiry_s,
               uint32_t flags);

/* Count what became of a put, and remember what was refused: a miss of it has that cause. 0 or -ENOSPC. */
int fb_count_put(fb_store *s, uint32_t account, const struct fb_key *key, int r, uint64_t length_bytes);

/* What is unpublished under the page's lock is leased under it too, so that its segment is not written anew
 * before its record is marked dead; fb_bury does that and ends the lease. Of places that name no record:
 * nothing. */
void fb_hold_old(fb_store *s, uint64_t place);
void fb_bury(fb_store *s, const struct fb_key *key, uint64_t place);
/* A pinned block that is replaced stays pinned, if its pin still fits. */
void fb_keep_pin(fb_store *s, const struct fb_key *key, uint64_t old_place);
/* Remove the slot if it still names this place, and bury what it named. 0, -ENOENT, -ETIMEDOUT. */
int fb_unpublish(fb_store *s, const struct fb_key *key, uint64_t place);

#endif
