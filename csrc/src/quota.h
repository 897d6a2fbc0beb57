/* Quotas: what a dataset may have committed, and the running sum of what it has.
 *
 * The sum of a dataset is that of the lengths of the slots that lead to its segments. It changes under the
 * lock of the slot's page: it grows before a slot is there, and shrinks after it is gone. So whoever is
 * killed in between leaves it too high, never too low, and with it a page that is repaired by whoever locks
 * it next: after a repair the maintainer counts anew. */
#ifndef FB_QUOTA_H
#define FB_QUOTA_H

#include "engine.h"

/* Whether a dataset may have so much more. Asked before room is sought, and once more under the lock of the
 * page by whoever publishes: so it has at most one block more than its quota for each that publishes just
 * then. */
bool fb_quota_allows(fb_store *s, struct fb_dataset *dataset, uint64_t bytes);

/* A slot that holds this is about to be there; is gone. */
void fb_quota_charge(fb_store *s, uint64_t place, uint64_t extent);
void fb_quota_release(fb_store *s, uint64_t place, uint64_t extent);
/* Both are of one dataset and length: neither is called. */
bool fb_quota_is_same(fb_store *s, uint64_t place, uint64_t extent, uint64_t old_place, uint64_t old_extent);

/* A page was repaired: some sum may be too high. */
void fb_quota_doubt(fb_store *s);
/* Count anew if there is doubt; where it changes meanwhile, later. By the maintainer. */
void fb_quota_mend(fb_store *s);
/* Count all, when nobody else has the store open. */
void fb_quota_count(fb_store *s);

/* What the sum says. */
uint64_t fb_quota_used(fb_store *s, struct fb_dataset *dataset);

#endif
