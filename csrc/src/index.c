#include "index.h"

#include <unistd.h>

#include "failpoint.h"
#include "grow.h"
#include "page.h"
#include "rows.h"

#define LOCK_TIMEOUT_MS 1000u
#define LOCK_TRIES 1000
#define COUNT_TIMEOUT_MS 100u
#define SWEEP_PASSES 8

uint32_t fb_index_entry(const fb_store *s, uint64_t lo)
{
    unsigned __int128 product = (unsigned __int128)lo * FB_INDEX_ROOTS;
    uint32_t root = (uint32_t)(product >> 64);
    return (uint32_t)((uint64_t)product >> s->directory_shift) + (root << (64u - s->directory_shift));
}

void fb_index_prefetch(fb_store *s, uint64_t lo)
{
    uint32_t page = atomic_load_explicit(&s->directory[fb_index_entry(s, lo)], memory_order_relaxed);
    /* Two lines, of two slots each: half of all probes go on into the second. */
    const struct fb_slot *home = &fb_page_at(s, page)->slots[fb_home_slot(lo)];
    __builtin_prefetch(home);
    __builtin_prefetch(home + 2);
}

/* A reader that sees an odd sequence waits a moment; a writer that died is mended by whoever locks the
 * page next, so here it is only a miss. */
int fb_index_find(fb_store *s, const struct fb_key *key, struct fb_found *out)
{
    uint32_t entry = fb_index_entry(s, key->lo);
    for (int spins = 0; spins < FB_READ_SPINS; spins++) {
        uint32_t page = atomic_load_explicit(&s->directory[entry], memory_order_acquire);
        if (!fb_page_exists(s, page))
            return -ENOENT;
        struct fb_page_meta *meta = &s->metas[page];
        uint32_t sequence = atomic_load_explicit(&meta->sequence, memory_order_acquire);
        if (fb_unlikely(sequence & 1u)) {
            fb_pause();
            continue;
        }
        int slot = fb_page_find(s, page, key->lo, key->check);
        if (slot >= 0) {
            struct fb_slot *found = &fb_page_at(s, page)->slots[slot];
            out->place = fb_word_load(&found->place);
            out->extent = fb_word_load(&found->extent);
        }
        if (atomic_load_explicit(&meta->sequence, memory_order_acquire) != sequence)
            continue;
        if (slot >= 0 && FB_PLACE_STATE(out->place) == FB_SLOT_PRESENT) {
            out->page = page;
            out->slot = (uint32_t)slot;
            out->sequence = sequence;
            return 0;
        }
        /* A split that ended between the two loads has moved the key: the directory says so by now. */
        if (atomic_load_explicit(&s->directory[entry], memory_order_acquire) == page)
            return -ENOENT;
    }
    return -EBUSY;
}

bool fb_index_is_settled(const fb_store *s, uint64_t lo)
{
    uint32_t page = atomic_load_explicit(&s->directory[fb_index_entry(s, lo)], memory_order_acquire);
    return page >= atomic_load_explicit(&s->shared->page_count, memory_order_relaxed) ||
           (atomic_load_explicit(&s->metas[page].sequence, memory_order_acquire) & 1u) == 0;
}

/* ---- writers ---- */

static int lock_within(fb_store *s, uint64_t lo, uint32_t timeout_ms, uint32_t *page_out)
{
    uint32_t entry = fb_index_entry(s, lo);
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        uint32_t page = atomic_load_explicit(&s->directory[entry], memory_order_acquire);
        if (!fb_page_exists(s, page))
            break;
        int r = fb_lock(s, &s->metas[page].lock, timeout_ms);
        if (r == -ETIMEDOUT)
            return r;
        if (r == -EOWNERDEAD)
            fb_page_repair(s, page);
        if (fb_page_covers(s, page, lo)) {
            *page_out = page;
            return 0;
        }
        fb_unlock(&s->metas[page].lock);
    }
    return -ETIMEDOUT; /* a damaged directory or page leads nowhere: no reason to hang */
}

int fb_index_lock(fb_store *s, uint64_t lo, uint32_t *page_out)
{
    return lock_within(s, lo, LOCK_TIMEOUT_MS, page_out);
}

int fb_index_try_lock(fb_store *s, uint64_t lo, uint32_t *page_out)
{
    return lock_within(s, lo, 0, page_out);
}

void fb_index_unlock(fb_store *s, uint32_t page)
{
    fb_unlock(&s->metas[page].lock);
}

/* 0, -ENOSPC, or -EAGAIN: the page was split, and the key belongs to the other half now. */
static int insert(fb_store *s, uint32_t page, const struct fb_key *key, uint64_t place, uint64_t extent)
{
    if (atomic_load(&s->metas[page].used) >= FB_PAGE_SPLIT_AT) {
        int r = fb_page_split(s, page);
        if (r != 0 && atomic_load(&s->metas[page].used) >= FB_PAGE_FULL_AT)
            return -ENOSPC;
        if (r == 0 && !fb_page_covers(s, page, key->lo))
            return -EAGAIN;
    }
    fb_page_add(s, page, key, place, extent);
    return 0;
}

/* One look and one write under one lock: after a split both are done again, for meanwhile another may have
 * put the key, or the cleaner have retired the segment that the guard saw open. */
int fb_index_put(fb_store *s, const struct fb_key *key, uint64_t place, uint64_t extent, fb_guard guard,
                 void *context, uint64_t *old)
{
    uint64_t before;
    int r;
    do {
        uint32_t page;
        r = fb_index_lock(s, key->lo, &page);
        if (r != 0)
            return r;
        FB_POINT("index.locked");
        int slot = fb_page_find(s, page, key->lo, key->check);
        before = slot >= 0 ? fb_word_load(&fb_page_at(s, page)->slots[slot].place) : 0;
        if (guard != NULL && !guard(s, context, before))
            r = -ECANCELED;
        else if (slot >= 0)
            fb_page_set(s, page, (uint32_t)slot, place, extent);
        else
            r = insert(s, page, key, place, extent);
        fb_index_unlock(s, page);
    } while (r == -EAGAIN);
    if (r == 0)
        *old = before;
    return r;
}

int fb_index_swap(fb_store *s, uint64_t lo, uint64_t check, uint64_t expected, uint64_t new_place)
{
    return fb_index_move(s, lo, check, expected, new_place, NULL, NULL);
}

/* The page is locked by the caller; it is unlocked here. */
static int move_and_unlock(fb_store *s, uint32_t page, uint64_t lo, uint64_t check, uint64_t expected,
                           uint64_t new_place, fb_guard guard, void *context)
{
    const uint64_t flags = (uint64_t)3 << 2;
    int r = 0, slot = fb_page_find(s, page, lo, check);
    struct fb_slot *target = slot < 0 ? NULL : &fb_page_at(s, page)->slots[slot];
    uint64_t place = target == NULL ? 0 : fb_word_load(&target->place);
    if (target == NULL || FB_PLACE_LOCATION(place) != FB_PLACE_LOCATION(expected))
        r = -ENOENT;
    else if (guard != NULL && !guard(s, context, place))
        r = -ECANCELED;
    else if (new_place == 0)
        fb_page_remove(s, page, (uint32_t)slot);
    else
        fb_page_set(s, page, (uint32_t)slot, (new_place & ~flags) | (place & flags),
                    fb_word_load(&target->extent));
    fb_index_unlock(s, page);
    return r;
}

int fb_index_move(fb_store *s, uint64_t lo, uint64_t check, uint64_t expected, uint64_t new_place,
                  fb_guard guard, void *context)
{
    uint32_t page;
    int r = fb_index_lock(s, lo, &page);
    return r != 0 ? r : move_and_unlock(s, page, lo, check, expected, new_place, guard, context);
}

void fb_index_mark(fb_store *s, uint64_t lo, uint64_t check, uint64_t expected, uint64_t new_place)
{
    uint32_t page;
    if (fb_index_try_lock(s, lo, &page) == 0)
        move_and_unlock(s, page, lo, check, expected, new_place, NULL, NULL);
}

int fb_index_find_locked(fb_store *s, const struct fb_key *key, struct fb_found *out)
{
    uint32_t page;
    int r = fb_index_lock(s, key->lo, &page);
    if (r != 0)
        return r;
    int slot = fb_page_find(s, page, key->lo, key->check);
    struct fb_slot *found = slot < 0 ? NULL : &fb_page_at(s, page)->slots[slot];
    if (found != NULL && FB_PLACE_STATE(fb_word_load(&found->place)) == FB_SLOT_PRESENT)
        *out = (struct fb_found){.page = page,
                                 .slot = (uint32_t)slot,
                                 .sequence = atomic_load(&s->metas[page].sequence),
                                 .place = fb_word_load(&found->place),
                                 .extent = fb_word_load(&found->extent)};
    else
        r = -ENOENT;
    fb_index_unlock(s, page);
    return r;
}

/* The directory leads to a page from the moment it is complete; before, its splitter writes it unlocked. */
static bool is_in_directory(fb_store *s, uint32_t page)
{
    uint64_t entries = (uint64_t)FB_INDEX_ROOTS << s->super->directory_bits;
    uint32_t first = atomic_load(&fb_page_at(s, page)->first);
    return first < entries && atomic_load(&s->directory[first]) == page;
}

/* 0, -ETIMEDOUT, or -EAGAIN: a split is on its way, and its slots may be in a page that was passed. */
static int sweep_page(fb_store *s, uint32_t page, uint64_t mask, uint64_t bits)
{
    if (atomic_load(&fb_page_at(s, page)->span) == 0)
        return 0;
    int r = fb_lock(s, &s->metas[page].lock, LOCK_TIMEOUT_MS);
    if (r == -ETIMEDOUT)
        return r;
    bool complete = is_in_directory(s, page);
    if (r == -EOWNERDEAD && complete)
        fb_page_repair(s, page);
    for (uint32_t i = 0; complete && i < FB_PAGE_SLOTS;) {
        bool matches = (fb_word_load(&fb_page_at(s, page)->slots[i].place) & mask) == bits;
        if (!matches || !fb_page_remove(s, page, i))
            i++; /* removed, it has another in its place */
    }
    fb_index_unlock(s, page);
    return complete ? 0 : -EAGAIN;
}

int fb_index_settle(fb_store *s)
{
    int r = 0;
    for (uint32_t page = 0; r == 0 && page < atomic_load(&s->shared->page_count); page++) {
        r = sweep_page(s, page, 0, 1);
        r = r == -EAGAIN ? 0 : r;
    }
    return r;
}

int fb_index_sweep(fb_store *s, uint64_t mask, uint64_t bits)
{
    int worst = -EAGAIN;
    for (int pass = 0; worst == -EAGAIN && pass < SWEEP_PASSES; pass++) {
        worst = 0;
        for (uint32_t page = 0; worst != -ETIMEDOUT && page < atomic_load(&s->shared->page_count); page++) {
            int r = sweep_page(s, page, mask, bits);
            worst = r != 0 ? r : worst;
        }
    }
    return worst == 0 ? 0 : -ETIMEDOUT;
}

/* ---- the whole index ---- */

int fb_index_format(fb_store *s)
{
    uint32_t entries = FB_INDEX_ROOTS << s->super->directory_bits;
    uint32_t pages = FB_INDEX_ROOTS << FB_PAGES_FIRST_BITS;
    uint32_t span = entries / pages;
    atomic_store(&s->shared->page_count, 0);
    atomic_store(&s->shared->spare_page, 0);
    for (uint32_t number = 0; number < pages; number++) {
        uint32_t fresh;
        int r = fb_grow_page(s, &fresh);
        if (r != 0)
            return r;
        fb_page_reset(s, fresh, number * span, span);
        for (uint32_t i = 0; i < span; i++)
            atomic_store(&s->directory[number * span + i], fresh);
    }
    return 0;
}

bool fb_index_headers_hold(fb_store *s)
{
    uint64_t entries = (uint64_t)FB_INDEX_ROOTS << s->super->directory_bits;
    uint32_t pages = atomic_load(&s->shared->page_count);
    for (uint32_t number = 0; number < pages; number++) {
        struct fb_page *p = fb_page_at(s, number);
        uint64_t first = atomic_load(&p->first), span = atomic_load(&p->span);
        if (span != 0 && (p->magic != FB_PAGE_MAGIC || p->number != number || first + span > entries))
            return false;
        if (atomic_load(&s->metas[number].split_to) > pages)
            return false;
    }
    return true;
}

int fb_index_adopt(fb_store *s, uint32_t page_count)
{
    uint64_t entries = (uint64_t)FB_INDEX_ROOTS << s->super->directory_bits, covered = 0;
    for (uint32_t i = 0; i < entries; i++)
        atomic_store_explicit(&s->directory[i], UINT32_MAX, memory_order_relaxed);
    for (uint32_t number = 0; number < page_count; number++) {
        struct fb_page *p = fb_page_at(s, number);
        uint64_t first = atomic_load(&p->first), span = atomic_load(&p->span);
        if (span == 0) /* left by a split that was cut short */
            continue;
        if (p->magic != FB_PAGE_MAGIC || p->number != number || first + span > entries)
            return -EBADMSG;
        for (uint64_t i = first; i < first + span; i++) {
            if (atomic_load_explicit(&s->directory[i], memory_order_relaxed) != UINT32_MAX)
                return -EBADMSG;
            atomic_store_explicit(&s->directory[i], number, memory_order_relaxed);
        }
        covered += span;
        uint32_t used = 0;
        for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++)
            used += FB_PLACE_STATE(fb_word_load(&p->slots[i].place)) != FB_SLOT_EMPTY;
        atomic_store(&s->metas[number].used, used);
        if (used > FB_PAGE_FULL_AT)
            return -EBADMSG;
    }
    return covered == entries ? 0 : -EBADMSG;
}

void fb_index_forget_verified(fb_store *s)
{
    uint32_t pages = atomic_load(&s->shared->page_count);
    for (uint32_t page = 0; page < pages; page++)
        for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++) {
            _Atomic uint64_t *place = &fb_page_at(s, page)->slots[i].place;
            fb_word_store(place, fb_word_load(place) & ~((uint64_t)0xff << 4));
        }
}

static bool copy_page(fb_store *s, uint32_t page, struct fb_slot *out)
{
    for (int spins = 0; spins < FB_READ_SPINS; spins++) {
        uint32_t sequence = atomic_load_explicit(&s->metas[page].sequence, memory_order_acquire);
        if (sequence & 1u) {
            fb_pause();
            continue;
        }
        struct fb_slot *slots = fb_page_at(s, page)->slots;
        for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++) {
            atomic_store_explicit(&out[i].place, fb_word_load(&slots[i].place), memory_order_relaxed);
            atomic_store_explicit(&out[i].lo, fb_word_load(&slots[i].lo), memory_order_relaxed);
            atomic_store_explicit(&out[i].check, fb_word_load(&slots[i].check), memory_order_relaxed);
            atomic_store_explicit(&out[i].extent, fb_word_load(&slots[i].extent), memory_order_relaxed);
        }
        if (atomic_load_explicit(&s->metas[page].sequence, memory_order_acquire) == sequence)
            return true;
    }
    return false;
}

bool fb_index_visit(fb_store *s, uint32_t first_page, uint32_t page_count, fb_visitor visit, void *context)
{
    struct fb_slot *copy = malloc(sizeof(struct fb_slot) * FB_PAGE_SLOTS);
    bool all = copy != NULL;
    for (uint32_t page = first_page; copy != NULL && page < first_page + page_count; page++) {
        if (atomic_load(&fb_page_at(s, page)->span) == 0)
            continue;
        if (!copy_page(s, page, copy)) {
            all = false;
            continue;
        }
        for (uint32_t i = 0; i < FB_PAGE_SLOTS; i++) {
            uint64_t place = atomic_load_explicit(&copy[i].place, memory_order_relaxed);
            uint64_t lo = atomic_load_explicit(&copy[i].lo, memory_order_relaxed);
            if (FB_PLACE_STATE(place) == FB_SLOT_PRESENT && fb_page_covers(s, page, lo))
                visit(context, lo, atomic_load_explicit(&copy[i].check, memory_order_relaxed), place,
                      atomic_load_explicit(&copy[i].extent, memory_order_relaxed));
        }
    }
    free(copy);
    return all;
}

/* 0, -EAGAIN (a split of another page is writing this one), -ETIMEDOUT. */
static int visit_page_locked(fb_store *s, uint32_t page, fb_visitor visit, void *context)
{
    if (atomic_load(&fb_page_at(s, page)->span) == 0)
        return 0;
    int r = fb_lock(s, &s->metas[page].lock, COUNT_TIMEOUT_MS);
    if (r == -ETIMEDOUT)
        return r;
    bool complete = is_in_directory(s, page);
    if (r == -EOWNERDEAD && complete)
        fb_page_repair(s, page);
    struct fb_slot *slots = fb_page_at(s, page)->slots;
    for (uint32_t i = 0; complete && i < FB_PAGE_SLOTS; i++) {
        uint64_t place = fb_word_load(&slots[i].place);
        if (FB_PLACE_STATE(place) == FB_SLOT_PRESENT)
            visit(context, fb_word_load(&slots[i].lo), fb_word_load(&slots[i].check), place,
                  fb_word_load(&slots[i].extent));
    }
    fb_index_unlock(s, page);
    return complete ? 0 : -EAGAIN;
}

int fb_index_visit_locked(fb_store *s, fb_visitor visit, void *context)
{
    uint32_t pages = atomic_load(&s->shared->page_count), spare = atomic_load(&s->shared->spare_page);
    for (uint32_t page = 0; page < pages; page++) {
        int r = visit_page_locked(s, page, visit, context);
        if (r != 0)
            return r;
    }
    /* A split takes the spare page or appends one. */
    bool unsplit =
        pages == atomic_load(&s->shared->page_count) && spare == atomic_load(&s->shared->spare_page);
    return unsplit ? 0 : -EAGAIN;
}

void fb_index_mend(fb_store *s)
{
    for (uint32_t page = 0; page < atomic_load(&s->shared->page_count); page++) {
        uint32_t lock = atomic_load(&s->metas[page].lock);
        if (lock == 0 || !fb_owner_is_dead(s, lock) || !is_in_directory(s, page))
            continue;
        int r = fb_lock(s, &s->metas[page].lock, 0);
        if (r == -EOWNERDEAD)
            fb_page_repair(s, page);
        if (r != -ETIMEDOUT)
            fb_index_unlock(s, page);
    }
}

void fb_key_for(fb_store *s, const void *key, size_t length_bytes, struct fb_key *out)
{
    uint64_t name[2];
    fb_murmur3_x64_128(key, length_bytes, 0, name);
    /* The slot is a cache miss; it comes while the second hash is made. */
    fb_index_prefetch(s, name[0]);
    out->lo = name[0];
    out->hi = name[1];
    out->check = fb_siphash13(s->secret, key, length_bytes);
}
