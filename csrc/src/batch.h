/* Many keys at a time: one after the other, so that nobody waits longer than for one of them. */
#ifndef FB_BATCH_H
#define FB_BATCH_H

#include "engine.h"

/* 0: it is there, and it was done; -ENOENT; or an error that ends the batch. */
typedef int (*fb_each)(fb_store *s, const struct fb_key *key, void *context);

/* Call `each` for every key, adding to batch->done those that are there. What was done before an error stays
 * done. */
int fb_batch_walk(fb_store *s, struct fb_batch *batch, fb_each each, void *context);

#endif
