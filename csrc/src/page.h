/* One page of the index: slots by linear probing, changed under the page's lock and sequence word so that a
 * writer killed at any instruction leaves what fb_page_repair can mend. */
#ifndef FB_PAGE_H
#define FB_PAGE_H

#include "index.h"

#define FB_READ_SPINS 2000

static inline uint64_t fb_word_load(_Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

/* Release, so that the odd sequence before it is seen no later than the slot. */
static inline void fb_word_store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static inline uint32_t fb_home_slot(uint64_t lo)
{
    return (uint32_t)(((lo & 0xffffffffu) * FB_PAGE_SLOTS) >> 32);
}

/* In line, for it is where a hit spends its time. Under the page's lock or sequence word: slot number or -1.
 */
static inline uint32_t fb_next_slot(uint32_t slot)
{
    return slot + 1 == FB_PAGE_SLOTS ? 0 : slot + 1;
}

static inline int fb_page_find(fb_store *s, uint32_t page, uint64_t lo, uint64_t check)
{
    struct fb_slot *slots = fb_page_at(s, page)->slots;
    uint32_t slot = fb_home_slot(lo);
    for (uint32_t n = 0; n < FB_PAGE_SLOTS; n++, slot = fb_next_slot(slot)) {
        if (FB_PLACE_STATE(fb_word_load(&slots[slot].place)) == FB_SLOT_EMPTY)
            return -1;
        if (fb_word_load(&slots[slot].lo) == lo && fb_word_load(&slots[slot].check) == check &&
            FB_PLACE_STATE(fb_word_load(&slots[slot].place)) != FB_SLOT_MOVING)
            return (int)slot;
    }
    return -1;
}

/* The directory leads from this key to this page. */
bool fb_page_covers(fb_store *s, uint32_t page, uint64_t lo);
void fb_page_reset(fb_store *s, uint32_t number, uint32_t first, uint32_t span);
/* Add a key that is not there; the page is not full. */
void fb_page_add(fb_store *s, uint32_t page, const struct fb_key *key, uint64_t place, uint64_t extent);
/* Move the upper half of what the page covers to a new one. 0, -ENOSPC, -ETIMEDOUT. */
int fb_page_split(fb_store *s, uint32_t page);

#endif
