#include "write.h"

#include "account.h"
#include "clock.h"
#include "failpoint.h"
#include "ghost.h"
#include "health.h"
#include "index.h"
#include "maintain.h"
#include "pin.h"
#include "quota.h"
#include "read.h"

uint32_t fb_level_count(fb_store *s)
{
    return s->super->tiers[s->super->tier_count - 1].level + 1;
}

/* Directories of one level share in proportion to what they may hold: a key's hash picks where to try
 * first. */
int fb_place_in_level(fb_store *s, uint32_t dataset, uint32_t level, enum fb_queue queue,
                      const struct fb_key *key, uint64_t length_bytes, bool mover, struct fb_space *out)
{
    uint32_t members[FB_TIERS_MAX], count = 0;
    uint64_t total = 0;
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++)
        if (s->super->tiers[tier].level == level && !fb_tier_failed(s, tier)) {
            members[count++] = tier;
            total += fb_tier_effective(s, tier);
        }
    if (total == 0)
        return -ENOSPC;
    uint64_t point = (uint64_t)((unsigned __int128)key->check * total >> 64);
    uint32_t first = 0;
    while (first + 1 < count && point >= fb_tier_effective(s, members[first]))
        point -= fb_tier_effective(s, members[first++]);
    for (uint32_t n = 0; n < count; n++)
        if (fb_space_reserve(s, dataset, members[(first + n) % count], queue, key, length_bytes, mover,
                             out) == 0)
            return 0;
    return -ENOSPC;
}

static bool level_is_of(fb_store *s, uint32_t level, uint32_t medium)
{
    uint32_t tier = 0;
    while (s->super->tiers[tier].level != level)
        tier++;
    return s->super->tiers[tier].medium == medium;
}

/* In the levels of a medium, or in all others. */
static int place_in_levels(fb_store *s, uint32_t dataset, uint32_t medium, bool preferred,
                           const struct fb_key *key, uint64_t length_bytes, struct fb_space *out)
{
    uint32_t retention = atomic_load(&s->datasets[dataset].retention);
    enum fb_queue queue = retention == FB_S3FIFO && fb_ghost_has(s, s->evicted_ghosts, key->check)
                              ? FB_QUEUE_MAIN
                              : FB_QUEUE_SMALL;
    for (uint32_t level = 0; level < fb_level_count(s); level++)
        if (level_is_of(s, level, medium) == preferred &&
            fb_place_in_level(s, dataset, level, queue, key, length_bytes, false, out) == 0)
            return 0;
    return -ENOSPC;
}

static int place_new(fb_store *s, uint32_t dataset, uint32_t medium, const struct fb_key *key,
                     uint64_t length_bytes, struct fb_space *out)
{
    if (place_in_levels(s, dataset, medium, true, key, length_bytes, out) == 0 ||
        place_in_levels(s, dataset, medium, false, key, length_bytes, out) == 0)
        return 0;
    if (atomic_load(&s->datasets[dataset].retention) == FB_SPARE)
        return -ENOSPC; /* nothing makes way for it */
    /* Once a second: a full cache is normal, and what does not fit is no reason to keep a processor busy. */
    uint32_t now = fb_now_s(s);
    if (atomic_exchange(&s->datasets[dataset].wanted_s, now) != now)
        fb_maintainer_wake(s);
    return -ENOSPC;
}

static bool has_record(fb_store *s, uint64_t place)
{
    return FB_PLACE_STATE(place) == FB_SLOT_PRESENT && FB_PLACE_SEGMENT(place) < s->segment_count;
}

void fb_hold_old(fb_store *s, uint64_t place)
{
    if (has_record(s, place))
        atomic_fetch_add(&s->row_leases[FB_PLACE_SEGMENT(place)], 1);
}

void fb_keep_pin(fb_store *s, const struct fb_key *key, uint64_t old_place)
{
    if (FB_PLACE_STATE(old_place) == FB_SLOT_PRESENT && (FB_PLACE_FLAGS(old_place) & FB_SLOT_PINNED))
        fb_pin(s, key, NULL);
}

void fb_bury(fb_store *s, const struct fb_key *key, uint64_t place)
{
    struct fb_record record;
    if (!has_record(s, place))
        return;
    uint32_t number = fb_record_of_place(s, place, key->lo, key->check, &record);
    if (number != FB_NO_SEGMENT)
        fb_record_flip(s, FB_PLACE_SEGMENT(place), number, FB_RECORD_DEAD);
    atomic_fetch_sub(&s->row_leases[FB_PLACE_SEGMENT(place)], 1);
    atomic_fetch_add(&s->shared->deletes, 1);
}

static bool hold_old(fb_store *s, void *context, uint64_t old_place)
{
    (void)context;
    fb_hold_old(s, old_place);
    return true;
}

int fb_unpublish(fb_store *s, const struct fb_key *key, uint64_t place)
{
    int r = fb_index_move(s, key->lo, key->check, place, 0, hold_old, NULL);
    if (r == 0)
        fb_bury(s, key, place);
    return r;
}

bool fb_space_is_open(fb_store *s, const struct fb_space *space)
{
    uint32_t state = fb_segment_state_of(s, space->segment);
    return (state == FB_OPEN || state == FB_SEALED) &&
           atomic_load(&s->segments[space->segment].generation) == space->generation;
}

static bool may_publish(fb_store *s, void *context, uint64_t old_place)
{
    const struct fb_space *space = context;
    bool may = fb_space_is_open(s, space) &&
               fb_quota_allows(s, fb_dataset_of(s, space->segment), space->length_bytes);
    if (may)
        fb_hold_old(s, old_place);
    return may;
}

int fb_publish(fb_store *s, const struct fb_key *key, const struct fb_space *space, uint32_t expiry_s,
               uint32_t flags)
{
    struct fb_space wanted = *space;
    uint64_t old;
    uint32_t verified = atomic_load(&s->shared->verify_generation);
    int r = fb_index_put(s, key, fb_space_place(space, flags, verified),
                         FB_EXTENT(space->length_bytes, expiry_s), may_publish, &wanted, &old);
    FB_POINT("put.published");
    if (r != 0) {
        fb_space_abandon(s, space);
        return -ENOSPC;
    }
    if (expiry_s != 0)
        atomic_store(&s->shared->any_expiry, 1);
    fb_bury(s, key, old);
    if (!(flags & FB_SLOT_PINNED))
        fb_keep_pin(s, key, old);
    return 0;
}

static int admit(fb_store *s, const struct fb_terms *terms, const struct fb_key *key, uint64_t length_bytes,
                 struct fb_space *out)
{
    if (!s->has_row || length_bytes > FB_BLOCK_BYTES_MAX)
        return -ENOSPC;
    uint32_t dataset = fb_dataset_slot(s, terms->dataset, true);
    if (dataset == FB_DATASETS_MAX)
        return -ENOSPC;
    if (!fb_quota_allows(s, &s->datasets[dataset], length_bytes))
        return -ENOSPC;
    fb_maintainer_start(s);
    return place_new(s, dataset, terms->medium, key, length_bytes, out);
}

int fb_count_put(fb_store *s, uint32_t account, const struct fb_key *key, int r, uint64_t length_bytes)
{
    fb_count_in(s, account, r == 0 ? FB_C_PUT : FB_C_NOT_ADMITTED, 1);
    fb_count_in(s, account, r == 0 ? FB_C_PUT_BYTES : FB_C_NOT_ADMITTED_BYTES, length_bytes);
    if (r != 0 && !fb_ghost_has(s, s->refused_ghosts, key->check))
        fb_ghost_add(s, s->refused_ghosts, key->check);
    return r == 0 ? 0 : -ENOSPC;
}

void fb_refuse(fb_store *s, const struct fb_key *key, uint32_t dataset_id, uint64_t length_bytes)
{
    if (s->has_row)
        fb_count_put(s, fb_account_of_id(s, dataset_id, true), key, -ENOSPC, length_bytes);
}

/* A write that failed: nothing more goes into this segment, and where the file system was full the tier
 * is as large as it has become. */
static void write_failed(fb_store *s, const struct fb_space *space, int error)
{
    fb_space_abandon(s, space);
    fb_segment_refuse(s, space->segment, error);
}

static int finish(fb_store *s, const struct fb_key *key, const struct fb_space *space, uint32_t crc,
                  uint32_t expiry_s, bool pinned)
{
    uint32_t tier = s->segment_tier[space->segment];
    bool pin = pinned && fb_pin_try(s, tier, space->length_bytes);
    int r = fb_space_commit(s, space, key, crc, expiry_s, pin ? FB_RECORD_PINNED : FB_RECORD_COMMITTED);
    if (r != 0)
        write_failed(s, space, r);
    else
        r = fb_publish(s, key, space, expiry_s, pin ? FB_SLOT_PINNED : 0);
    if (pin)
        fb_pin_settle(s, tier, space->length_bytes, r == 0);
    return r;
}

int fb_put(fb_store *s, const struct fb_key *key, const struct fb_terms *terms, const void *data,
           uint64_t length_bytes)
{
    struct fb_space space;
    uint32_t crc;
    int r = admit(s, terms, key, length_bytes, &space);
    if (r != 0 && !s->has_row)
        return s->read_only ? -EROFS : -ENOSPC;
    uint32_t account = fb_account_of_id(s, terms->dataset, true);
    if (r != 0)
        return fb_count_put(s, account, key, r, length_bytes);
    r = fb_space_write(s, &space, data, &crc);
    if (r != 0)
        write_failed(s, &space, r);
    else
        r = finish(s, key, &space, crc, fb_expiry_of(s, terms->ttl_s), terms->pinned);
    fb_space_end(s, &space);
    return fb_count_put(s, account, key, r, length_bytes);
}

int fb_reserve(fb_store *s, const struct fb_key *key, const struct fb_terms *terms, uint64_t length_bytes,
               struct fb_fill *fill)
{
    struct fb_space space = {.segment = FB_NO_SEGMENT};
    struct fb_fill f = {.length_bytes = length_bytes,
                        .key = *key,
                        .dataset = terms->dataset,
                        .segment = FB_NO_SEGMENT,
                        .owner = s->me,
                        .expiry_s = fb_expiry_of(s, terms->ttl_s),
                        .pinned = terms->pinned};
    if (admit(s, terms, key, length_bytes, &space) == 0) {
        f.segment = space.segment;
        f.record = space.record;
        f.unit = space.unit;
        f.generation = space.generation;
        f.writable = space.writable;
        if (space.writable != NULL)
            f.data = space.writable + space.offset;
    }
    if (f.data == NULL) {
        f.owned = fb_pool_take(s, length_bytes ? length_bytes : 1);
        if (f.owned == NULL) {
            if (f.segment != FB_NO_SEGMENT) {
                fb_space_abandon(s, &space);
                fb_space_end(s, &space);
            }
            return -ENOMEM;
        }
        f.data = f.owned;
    }
    *fill = f;
    return 0;
}

static struct fb_space space_of(const struct fb_fill *fill)
{
    return (struct fb_space){.segment = fill->segment,
                             .record = fill->record,
                             .unit = fill->unit,
                             .generation = fill->generation,
                             .offset = (uint64_t)fill->unit << FB_UNIT_SHIFT,
                             .length_bytes = fill->length_bytes,
                             .writable = fill->writable};
}

static void end_fill(fb_store *s, struct fb_fill *fill)
{
    if (fill->owned != NULL)
        fb_pool_give(s, fill->owned);
    fill->owned = NULL;
    fill->data = NULL;
    fill->segment = FB_NO_SEGMENT;
}

int fb_fill_commit(fb_store *s, struct fb_fill *fill)
{
    int r = -ENOSPC;
    uint32_t crc;
    /* A fill inherited over fork belongs to the parent. */
    if (fill->segment != FB_NO_SEGMENT && fill->owner == s->me) {
        struct fb_space space = space_of(fill);
        r = fill->owned != NULL ? fb_space_write(s, &space, fill->data, &crc)
                                : fb_space_checksum(s, &space, fill->data, &crc);
        if (r != 0)
            write_failed(s, &space, r);
        else
            r = finish(s, &fill->key, &space, crc, fill->expiry_s, fill->pinned);
        fb_space_end(s, &space);
    }
    if (s->has_row)
        fb_count_put(s, fb_account_of_id(s, fill->dataset, true), &fill->key, r, fill->length_bytes);
    end_fill(s, fill);
    return r == 0 ? 0 : -ENOSPC;
}

void fb_fill_abandon(fb_store *s, struct fb_fill *fill)
{
    if (fill->segment != FB_NO_SEGMENT && fill->owner == s->me) {
        struct fb_space space = space_of(fill);
        fb_space_abandon(s, &space);
        fb_space_end(s, &space);
    }
    end_fill(s, fill);
}
