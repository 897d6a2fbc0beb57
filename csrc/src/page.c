#include "page.h"

#include "failpoint.h"
#include "grow.h"
#include "quota.h"

static void begin_write(fb_store *s, uint32_t page)
{
    struct fb_page_meta *meta = &s->metas[page];
    uint32_t sequence = atomic_load_explicit(&meta->sequence, memory_order_relaxed);
    atomic_store_explicit(&meta->sequence, sequence | 1u, memory_order_relaxed);
}

static void end_write(fb_store *s, uint32_t page)
{
    struct fb_page_meta *meta = &s->metas[page];
    uint32_t sequence = atomic_load_explicit(&meta->sequence, memory_order_relaxed);
    atomic_store_explicit(&meta->sequence, (sequence | 1u) + 1u, memory_order_seq_cst);
}

/* Copy a slot with its touch byte; the target's place is written last. */
static void move_slot(fb_store *s, uint32_t from_page, uint32_t from, uint32_t to_page, uint32_t to)
{
    struct fb_slot *a = &fb_page_at(s, from_page)->slots[from], *b = &fb_page_at(s, to_page)->slots[to];
    fb_word_store(&b->place, FB_SLOT_MOVING);
    fb_word_store(&b->lo, fb_word_load(&a->lo));
    fb_word_store(&b->check, fb_word_load(&a->check));
    fb_word_store(&b->extent, fb_word_load(&a->extent));
    fb_word_store(&b->place, fb_word_load(&a->place));
    atomic_store_explicit(fb_touch_at(s, to_page, to),
                          atomic_load_explicit(fb_touch_at(s, from_page, from), memory_order_relaxed),
                          memory_order_relaxed);
}

static uint32_t free_slot(fb_store *s, uint32_t page, uint64_t lo)
{
    struct fb_slot *slots = fb_page_at(s, page)->slots;
    uint32_t slot = fb_home_slot(lo);
    while (FB_PLACE_STATE(fb_word_load(&slots[slot].place)) != FB_SLOT_EMPTY)
        slot = fb_next_slot(slot);
    return slot;
}

void fb_page_set(fb_store *s, uint32_t page, uint32_t slot, uint64_t place, uint64_t extent)
{
    struct fb_slot *target = &fb_page_at(s, page)->slots[slot];
    uint64_t old_place = fb_word_load(&target->place), old_extent = fb_word_load(&target->extent);
    bool same = fb_quota_is_same(s, place, extent, old_place, old_extent);
    if (!same)
        fb_quota_charge(s, place, extent);
    begin_write(s, page);
    if (old_extent != extent) {
        fb_word_store(&target->place, FB_SLOT_MOVING);
        fb_word_store(&target->extent, extent);
    }
    FB_POINT("index.set");
    fb_word_store(&target->place, place);
    end_write(s, page);
    if (!same)
        fb_quota_release(s, old_place, old_extent);
}

/* Knuth's deletion for linear probing: pull back what probed past the hole. The sequence is odd. */
static void remove_slot(fb_store *s, uint32_t page, uint32_t slot)
{
    struct fb_slot *slots = fb_page_at(s, page)->slots;
    uint32_t hole = slot;
    for (uint32_t next = fb_next_slot(hole);; next = fb_next_slot(next)) {
        if (FB_PLACE_STATE(fb_word_load(&slots[next].place)) == FB_SLOT_EMPTY || next == slot)
            break;
        uint32_t home = fb_home_slot(fb_word_load(&slots[next].lo));
        uint32_t past_home = (next + FB_PAGE_SLOTS - home) % FB_PAGE_SLOTS;
        uint32_t past_hole = (next + FB_PAGE_SLOTS - hole) % FB_PAGE_SLOTS;
        if (past_home >= past_hole) {
            move_slot(s, page, next, page, hole);
            FB_POINT("index.shift");
            hole = next;
        }
    }
    fb_word_store(&slots[hole].place, 0);
    atomic_fetch_sub(&s->metas[page].used, 1);
}

bool fb_page_remove(fb_store *s, uint32_t page, uint32_t slot)
{
    const uint64_t tombstone = FB_PLACE(FB_SLOT_TOMBSTONE, 0, 0, 0, 0, 0);
    if (atomic_load(&s->shared->rebuilding)) {
        fb_page_set(s, page, slot, tombstone, 0);
        return false;
    }
    struct fb_slot *target = &fb_page_at(s, page)->slots[slot];
    uint64_t place = fb_word_load(&target->place), extent = fb_word_load(&target->extent);
    begin_write(s, page);
    remove_slot(s, page, slot);
    end_write(s, page);
    FB_POINT("index.removed");
    fb_quota_release(s, place, extent);
    return true;
}

void fb_page_add(fb_store *s, uint32_t page, const struct fb_key *key, uint64_t place, uint64_t extent)
{
    uint32_t slot = free_slot(s, page, key->lo);
    struct fb_slot *target = &fb_page_at(s, page)->slots[slot];
    fb_quota_charge(s, place, extent);
    begin_write(s, page);
    fb_word_store(&target->lo, key->lo);
    fb_word_store(&target->check, key->check);
    fb_word_store(&target->extent, extent);
    atomic_store_explicit(fb_touch_at(s, page, slot), 0, memory_order_relaxed);
    FB_POINT("index.add");
    fb_word_store(&target->place, place);
    atomic_fetch_add(&s->metas[page].used, 1);
    end_write(s, page);
}

/* ---- splitting ---- */

void fb_page_reset(fb_store *s, uint32_t number, uint32_t first, uint32_t span)
{
    struct fb_page *page = fb_page_at(s, number);
    page->magic = FB_PAGE_MAGIC;
    page->number = number;
    atomic_store(&page->first, first);
    atomic_store(&page->span, span);
    for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++)
        fb_word_store(&page->slots[i].place, 0);
    atomic_store(&s->metas[number].used, 0);
}

bool fb_page_covers(fb_store *s, uint32_t page, uint64_t lo)
{
    struct fb_page *p = fb_page_at(s, page);
    return fb_index_entry(s, lo) - atomic_load(&p->first) < atomic_load(&p->span);
}

static void copy_moving(fb_store *s, uint32_t from, uint32_t to)
{
    struct fb_slot *slots = fb_page_at(s, from)->slots;
    for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++) {
        uint32_t state = FB_PLACE_STATE(fb_word_load(&slots[i].place));
        uint64_t lo = fb_word_load(&slots[i].lo);
        if ((state == FB_SLOT_PRESENT || state == FB_SLOT_TOMBSTONE) && fb_page_covers(s, to, lo)) {
            move_slot(s, from, i, to, free_slot(s, to, lo));
            atomic_fetch_add(&s->metas[to].used, 1);
        }
    }
}

/* Remove what another page covers, what was being overwritten, and second copies that a cut-short
 * removal left. Each removal is safe against being killed in the middle of it. */
static void purge(fb_store *s, uint32_t page)
{
    struct fb_slot *slots = fb_page_at(s, page)->slots;
    for (uint32_t i = 0; i < FB_PAGE_SLOTS;) {
        uint64_t place = fb_word_load(&slots[i].place), lo = fb_word_load(&slots[i].lo);
        uint32_t state = FB_PLACE_STATE(place);
        bool wrong =
            state == FB_SLOT_MOVING ||
            (state != FB_SLOT_EMPTY && (!fb_page_covers(s, page, lo) ||
                                        fb_page_find(s, page, lo, fb_word_load(&slots[i].check)) != (int)i));
        if (wrong)
            remove_slot(s, page, i);
        else
            i++;
    }
}

/* From here on the new page is complete; done again after a crash it gives the same result. The old page's
 * sequence is odd from before the directory leads to the new page until the old page is without what moved:
 * otherwise
 *   1. a reader finds a slot in the old page,
 *   2. the directory leads to the new page, and a cleaner unpublishes the slot there and sees no lease,
 *   3. the reader takes its lease, finds the old page's sequence as it was, and uses bytes that are gone.
 * Only entries that still lead to the old page are changed: of those that do not, the new page may have been
 * split itself since. */
static void finish_split(fb_store *s, uint32_t page, uint32_t fresh)
{
    struct fb_page *q = fb_page_at(s, fresh);
    uint64_t entries = (uint64_t)FB_INDEX_ROOTS << s->super->directory_bits;
    uint32_t first = atomic_load(&q->first), span = atomic_load(&q->span);
    for (uint64_t i = first; i < (uint64_t)first + span && i < entries; i++) {
        uint32_t old = page;
        atomic_compare_exchange_strong(&s->directory[i], &old, fresh);
    }
    FB_POINT("split.directory");
    atomic_store(&fb_page_at(s, page)->span, first - atomic_load(&fb_page_at(s, page)->first));
    purge(s, page);
    FB_POINT("split.purged");
    atomic_store(&s->metas[page].split_to, 0);
}

int fb_page_split(fb_store *s, uint32_t page)
{
    struct fb_page *p = fb_page_at(s, page);
    struct fb_page_meta *meta = &s->metas[page];
    uint32_t span = atomic_load(&p->span), fresh;
    if (span < 2)
        return -ENOSPC;
    int r = fb_grow_page(s, &fresh);
    if (r != 0)
        return r;
    atomic_store(&meta->split_stage, 1);
    atomic_store(&meta->split_to, fresh + 1);
    fb_page_reset(s, fresh, atomic_load(&p->first) + span / 2, span - span / 2);
    FB_POINT("split.reset");
    copy_moving(s, page, fresh);
    FB_POINT("split.copied");
    begin_write(s, page);
    atomic_store(&meta->split_stage, 2);
    finish_split(s, page, fresh);
    end_write(s, page);
    return 0;
}

void fb_page_repair(fb_store *s, uint32_t page)
{
    struct fb_page_meta *meta = &s->metas[page];
    uint32_t fresh = atomic_load(&meta->split_to);
    fb_count(s, FB_C_PAGE_REPAIRS, 1);
    fb_quota_doubt(s);
    begin_write(s, page);
    if (fresh != 0 && atomic_load(&meta->split_stage) == 2) {
        finish_split(s, page, fresh - 1);
    } else if (fresh != 0) {
        atomic_store(&fb_page_at(s, fresh - 1)->span, 0);
        /* In this order: another split may take the spare page at once. */
        atomic_store(&meta->split_to, 0);
        atomic_store(&s->shared->spare_page, fresh);
    }
    purge(s, page);
    uint32_t used = 0;
    for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++)
        used += FB_PLACE_STATE(fb_word_load(&fb_page_at(s, page)->slots[i].place)) != FB_SLOT_EMPTY;
    atomic_store(&meta->used, used);
    end_write(s, page);
}
