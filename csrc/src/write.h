/* Writing: admission, publication, deletion. */
#ifndef FB_WRITE_H
#define FB_WRITE_H

#include "segment.h"

/* Room for a record in the fastest level that has it. 0 or -ENOSPC. */
int fb_place_new(fb_store *s, uint32_t dataset, const struct fb_key *key, uint64_t length_bytes, struct fb_space *out);
/* Same, in one level only. */
int fb_place_in_level(fb_store *s, uint32_t dataset, uint32_t level, enum fb_queue queue, const struct fb_key *key,
                      uint64_t length_bytes, bool mover, struct fb_space *out);
uint32_t fb_level_count(fb_store *s);

/* Make a committed record visible, unless its segment is being retired. 0 or -ENOSPC. */
int fb_publish(fb_store *s, const struct fb_key *key, const struct fb_space *space, uint32_t expiry_s, uint32_t flags);

#endif
