/* Taking segments out of use: unpublish, wait for leases, recycle. */
#ifndef FB_EVICT_H
#define FB_EVICT_H

#include "engine.h"

enum fb_evict_mode {
    FB_EVICT_RETENTION, /* as the dataset's retention says */
    FB_EVICT_COMPACT,   /* keep all that is live */
    FB_EVICT_ALL,       /* drop everything but pins */
    FB_EVICT_YIELD,     /* the tier has to become smaller: to the next level where retention moves at all */
    FB_EVICT_FORCE,     /* drop everything */
};

/* Retire one sealed segment (or one left RETIRING by a dead process). 0: recycled or held; -EBUSY: a
 * writer is still in it, or somebody else retires it; -ENOSPC: no room to move what stays. */
int fb_segment_retire(fb_store *s, uint32_t segment, enum fb_evict_mode mode);
/* HELD and no longer leased: recycle. True when it was. */
bool fb_segment_unhold(fb_store *s, uint32_t segment);

/* Drop every slot that leads into one of these segments, which are RETIRING: where a table is damaged or
 * cannot be read, the index alone says which blocks go. 0 or -ETIMEDOUT. */
int fb_slots_sweep(fb_store *s, uint32_t first, uint32_t count);

/* Move one block to the fastest level that has room. 0, -ENOENT, -ENOSPC. */
int fb_promote(fb_store *s, const struct fb_key *key, uint64_t *moved_bytes);

/* Bring a tier from above high to below low, or make room that another dataset wants; some segments a
 * call. True when there is more to do. */
bool fb_tier_evict(fb_store *s, uint32_t tier);

/* Table entries of a segment, from the last to the first, by pieces. Stops when visit returns false. */
typedef bool (*fb_record_visitor)(fb_store *s, void *context, uint32_t segment, uint32_t number,
                                  const struct fb_record *record, bool valid);
int fb_records_visit(fb_store *s, uint32_t segment, uint32_t first, uint32_t count, fb_record_visitor visit,
                     void *context);

#endif
