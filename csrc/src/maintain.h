/* The maintainer: the one process that evicts, expires and repairs at the moment. */
#ifndef FB_MAINTAIN_H
#define FB_MAINTAIN_H

#include "engine.h"

/* Start the thread here when nobody maintains; cheap when somebody does. Called by whoever admits. */
void fb_maintainer_start(fb_store *s);
void fb_maintainer_stop(fb_store *s);
void fb_maintainer_wake(fb_store *s);

/* After fork, in the child: the thread and its lock are the parent's. */
void fb_maintainer_forget(fb_store *s);

/* One round: rebuilding, held segments and eviction; and, when `upkeep` is due, all that can wait a
 * little. True when there is more to do at once. */
bool fb_maintain_round(fb_store *s, bool upkeep);

/* Puts of its dataset go into this segment. */
bool fb_segment_is_current(fb_store *s, uint32_t segment);

/* Sync what was sealed in disk tiers since the last call. */
void fb_sync_sealed(fb_store *s);

#endif
