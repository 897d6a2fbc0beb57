#include "pin.h"

#include "batch.h"
#include "change.h"
#include "index.h"
#include "page.h"
#include "platform.h"
#include "rows.h"
#include "segment.h"

#define PIN_SHARE_PERCENT 80u
#define COUNT_AGAIN_MS 1000
#define PINNED ((uint64_t)FB_SLOT_PINNED << 2)

/* ---- room ---- */

struct pin_sum {
    fb_store *store;
    uint32_t tier;
    uint64_t bytes;
};

static uint32_t tier_of_place(fb_store *s, uint64_t place)
{
    return s->segment_tier[FB_PLACE_SEGMENT(place) % s->segment_count];
}

static void add_pinned(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct pin_sum *sum = context;
    (void)lo;
    (void)check;
    if ((place & PINNED) && tier_of_place(sum->store, place) == sum->tier)
        sum->bytes += FB_EXTENT_LENGTH(extent);
}

static uint64_t claimed(fb_store *s, uint32_t tier)
{
    uint64_t bytes = 0;
    for (uint32_t row = 0; row < atomic_load(&s->shared->rows_high); row++) {
        uint64_t claim = atomic_load(&s->rows[row].pin_claims[tier]);
        if (claim != 0 && fb_byte_is_locked(s->probe_fd, row))
            bytes += claim;
    }
    return bytes;
}

/* What is pinned or claimed. Claims come first, so that what is pinned meanwhile may count twice, but never
 * not at all; and if anybody claims meanwhile the hint stays as it is. */
static uint64_t count_again(fb_store *s, uint32_t tier)
{
    struct pin_sum sum = {.store = s, .tier = tier};
    uint64_t hint = atomic_load(&s->shared->tiers[tier].pinned_hint);
    uint64_t bytes = claimed(s, tier);
    if (!fb_index_visit(s, 0, atomic_load(&s->shared->page_count), add_pinned, &sum))
        return hint; /* a page could not be seen */
    bytes += sum.bytes;
    atomic_compare_exchange_strong(&s->shared->tiers[tier].pinned_hint, &hint, bytes);
    return bytes;
}

static uint64_t limit_of(fb_store *s, uint32_t tier)
{
    return fb_tier_effective(s, tier) / 100 * PIN_SHARE_PERCENT;
}

int fb_pin_claim(fb_store *s, uint32_t tier, uint64_t bytes, struct fb_pin_room *refused)
{
    uint64_t limit = limit_of(s, tier);
    atomic_fetch_add(&s->rows[s->row].pin_claims[tier], bytes);
    uint64_t taken = atomic_fetch_add(&s->shared->tiers[tier].pinned_hint, bytes) + bytes;
    if (taken > limit)
        taken = count_again(s, tier);
    if (taken <= limit)
        return 0;
    fb_pin_settle(s, tier, bytes, false);
    if (refused != NULL) {
        *refused =
            (struct fb_pin_room){.wanted_bytes = bytes, .pinned_bytes = taken - bytes, .limit_bytes = limit};
        memcpy(refused->tier_path, s->super->tiers[tier].path, sizeof refused->tier_path - 1);
    }
    return -EDQUOT;
}

bool fb_pin_try(fb_store *s, uint32_t tier, uint64_t bytes)
{
    int64_t now = fb_boottime_ms();
    if (now - atomic_load(&s->pins_refused_ms[tier]) < COUNT_AGAIN_MS &&
        atomic_load(&s->shared->tiers[tier].pinned_hint) + bytes > limit_of(s, tier))
        return false;
    if (fb_pin_claim(s, tier, bytes, NULL) == 0)
        return true;
    atomic_store(&s->pins_refused_ms[tier], now);
    return false;
}

/* The hint first: who counts in between takes the claim for one that stands. */
void fb_pin_settle(fb_store *s, uint32_t tier, uint64_t bytes, bool pinned)
{
    if (!pinned)
        atomic_fetch_sub(&s->shared->tiers[tier].pinned_hint, bytes);
    atomic_fetch_sub(&s->rows[s->row].pin_claims[tier], bytes);
}

void fb_pin_add(fb_store *s, uint32_t tier, uint64_t bytes)
{
    atomic_fetch_add(&s->shared->tiers[tier].pinned_hint, bytes);
}

void fb_pin_forget(fb_store *s, uint32_t tier)
{
    atomic_store(&s->shared->tiers[tier].pinned_hint, UINT64_MAX / 2);
}

/* ---- marks ---- */

/* Mark a block as pinned or not, in its slot and in its record. *bytes: its length, 0 if it was so already.
 * 0, -ENOENT, -ETIMEDOUT, -EROFS. */
static int mark(fb_store *s, const struct fb_key *key, bool pinned, uint32_t *tier, uint64_t *bytes)
{
    uint32_t page, slot;
    int r = fb_slot_lock(s, key, &page, &slot);
    if (r != 0)
        return r;
    struct fb_slot *target = &fb_page_at(s, page)->slots[slot];
    uint64_t place = atomic_load(&target->place), extent = atomic_load(&target->extent);
    bool before = (place & PINNED) != 0;
    *bytes = 0;
    if ((FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE) || fb_is_expired(s, extent)) {
        r = -ENOENT;
    } else if (before != pinned) {
        *tier = tier_of_place(s, place);
        *bytes = FB_EXTENT_LENGTH(extent);
        fb_page_set(s, page, slot, place ^ PINNED, extent);
        /* While the lock is held the segment is not recycled, nor the record buried. */
        struct fb_record record;
        uint32_t number = fb_record_of_place(s, place, key->lo, key->check, &record);
        if (number != FB_NO_SEGMENT)
            fb_record_flip(s, FB_PLACE_SEGMENT(place), number,
                           pinned ? FB_RECORD_PINNED : FB_RECORD_COMMITTED);
    }
    fb_index_unlock(s, page);
    return r;
}

/* ---- pinning ---- */

struct pinning {
    uint64_t claims[FB_TIERS_MAX];
};

/* Add what its pin would take. */
static int weigh(fb_store *s, const struct fb_key *key, void *context)
{
    struct pinning *pinning = context;
    struct fb_found found;
    int r = fb_index_find_locked(s, key, &found);
    if (r == 0 && !(FB_PLACE_FLAGS(found.place) & (FB_SLOT_WHOLE | FB_SLOT_PINNED)) &&
        !fb_is_expired(s, found.extent))
        pinning->claims[tier_of_place(s, found.place)] += FB_EXTENT_LENGTH(found.extent);
    return r;
}

/* All tiers, or none. */
static int claim_all(fb_store *s, struct pinning *pinning, struct fb_pin_room *refused)
{
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        int r = pinning->claims[tier] == 0 ? 0 : fb_pin_claim(s, tier, pinning->claims[tier], refused);
        if (r == 0)
            continue;
        while (tier-- > 0)
            fb_pin_settle(s, tier, pinning->claims[tier], false);
        return r;
    }
    return 0;
}

static int pin_claimed(fb_store *s, const struct fb_key *key, void *context)
{
    struct pinning *pinning = context;
    uint32_t tier = 0;
    uint64_t bytes = 0;
    int r = mark(s, key, true, &tier, &bytes);
    if (r != 0 || bytes == 0)
        return r;
    if (pinning->claims[tier] >= bytes) {
        pinning->claims[tier] -= bytes;
        fb_pin_settle(s, tier, bytes, true);
    } else {
        fb_pin_add(s, tier, bytes); /* it was moved, or put, since it was weighed */
    }
    return 0;
}

static void give_back(fb_store *s, const struct pinning *pinning)
{
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++)
        if (pinning->claims[tier] != 0)
            fb_pin_settle(s, tier, pinning->claims[tier], false);
}

int fb_pin(fb_store *s, const struct fb_key *key, struct fb_pin_room *refused)
{
    struct pinning pinning = {0};
    if (!s->has_row)
        return -EROFS;
    int r = weigh(s, key, &pinning);
    if (r == 0)
        r = claim_all(s, &pinning, refused);
    if (r != 0)
        return r;
    r = pin_claimed(s, key, &pinning);
    give_back(s, &pinning);
    return r;
}

int fb_unpin(fb_store *s, const struct fb_key *key)
{
    uint32_t tier;
    uint64_t bytes;
    return mark(s, key, false, &tier, &bytes);
}

int fb_pin_many(fb_store *s, struct fb_batch *batch)
{
    struct pinning pinning = {0};
    if (!s->has_row)
        return -EROFS;
    int r = fb_batch_walk(s, batch, weigh, &pinning);
    batch->done = 0;
    if (r == 0)
        r = claim_all(s, &pinning, &batch->refused);
    if (r != 0)
        return r;
    r = fb_batch_walk(s, batch, pin_claimed, &pinning);
    give_back(s, &pinning);
    return r;
}

static int unpin_one(fb_store *s, const struct fb_key *key, void *context)
{
    (void)context;
    return fb_unpin(s, key);
}

int fb_unpin_many(fb_store *s, struct fb_batch *batch)
{
    return fb_batch_walk(s, batch, unpin_one, NULL);
}
