#include "batch.h"

#define STRETCH 32u /* keys that are hashed ahead, so that their slots come from memory meanwhile */

int fb_batch_walk(fb_store *s, struct fb_batch *batch, fb_each each, void *context)
{
    struct fb_key keys[STRETCH];
    int r = 0;
    for (uint64_t first = 0; r == 0 && first < batch->count; first += STRETCH) {
        uint64_t left = batch->count - first, n = left < STRETCH ? left : STRETCH;
        for (uint64_t i = 0; i < n; i++)
            fb_key_for(s, batch->names[first + i].bytes, batch->names[first + i].length_bytes, &keys[i]);
        for (uint64_t i = 0; r == 0 && i < n; i++) {
            r = each(s, &keys[i], context);
            batch->done += r == 0;
            r = r == -ENOENT ? 0 : r;
        }
    }
    return r;
}

static int delete_one(fb_store *s, const struct fb_key *key, void *context)
{
    (void)context;
    return fb_delete(s, key);
}

int fb_delete_many(fb_store *s, struct fb_batch *batch)
{
    return fb_batch_walk(s, batch, delete_one, NULL);
}

static int expire_one(fb_store *s, const struct fb_key *key, void *context)
{
    return fb_expire(s, key, *(const double *)context);
}

int fb_expire_many(fb_store *s, struct fb_batch *batch)
{
    return fb_batch_walk(s, batch, expire_one, &batch->ttl_s);
}

static int note_one(fb_store *s, const struct fb_key *key, void *context)
{
    uint8_t **next = context;
    bool there = fb_contains(s, key);
    *(*next)++ = there;
    return there ? 0 : -ENOENT;
}

int fb_contains_many(fb_store *s, struct fb_batch *batch)
{
    uint8_t *next = batch->there;
    return fb_batch_walk(s, batch, note_one, &next);
}
