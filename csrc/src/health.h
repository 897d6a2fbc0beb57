/* Tier directories as they fare: room, memory limits, faults and their end. */
#ifndef FB_HEALTH_H
#define FB_HEALTH_H

#include "engine.h"

/* A limit or a right of this process, or pressure: it says nothing of the file or the disk. */
bool fb_error_is_own(int error);
/* An operation in a tier failed with this errno. What is this process's own, and what is wrong with one
 * file only, does not count; the rest, three times in five seconds, or a directory that is gone or can
 * only be read, takes the tier out. */
void fb_tier_fault(fb_store *s, uint32_t tier, int error);
static inline bool fb_tier_failed(fb_store *s, uint32_t tier)
{
    return atomic_load_explicit(&s->shared->tiers[tier].failed, memory_order_relaxed) != 0;
}
/* Try a failed tier: write, sync, read back, remove. Three clean probes bring it back. */
void fb_tier_probe(fb_store *s, uint32_t tier);

/* Whether `bytes` more may be written there: 10 % of the file system stays free, and for MEM tiers 10 %
 * of every memory cgroup above us, for tmpfs pages beyond that limit kill instead of failing. */
bool fb_tier_has_room(fb_store *s, uint32_t tier, uint64_t bytes);

#endif
