/* Fingerprints of what was evicted lately, and of what was not admitted: two tables, oldest overwritten first
 * within a set of eight. */
#ifndef FB_GHOST_H
#define FB_GHOST_H

#include "engine.h"

static inline _Atomic uint32_t *fb_ghost_set(fb_store *s, _Atomic uint32_t *table, uint64_t check)
{
    uint32_t sets = s->super->ghost_count / FB_GHOST_WAYS;
    return table + (check >> 32) % sets * FB_GHOST_WAYS;
}

static inline bool fb_ghost_has(fb_store *s, _Atomic uint32_t *table, uint64_t check)
{
    _Atomic uint32_t *set = fb_ghost_set(s, table, check);
    for (uint32_t way = 1; way < FB_GHOST_WAYS; way++)
        if (atomic_load_explicit(&set[way], memory_order_relaxed) == ((uint32_t)check | 1u))
            return true;
    return false;
}

/* Way 0 counts insertions; 1 to 7 hold fingerprints, never 0. */
static inline void fb_ghost_add(fb_store *s, _Atomic uint32_t *table, uint64_t check)
{
    _Atomic uint32_t *set = fb_ghost_set(s, table, check);
    uint32_t next = atomic_fetch_add_explicit(&set[0], 1, memory_order_relaxed);
    atomic_store_explicit(&set[1 + next % (FB_GHOST_WAYS - 1)], (uint32_t)check | 1u, memory_order_relaxed);
}

#endif
