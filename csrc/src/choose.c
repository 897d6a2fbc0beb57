/* Which segments of a tier go, and when. */
#include "clock.h"
#include "evict.h"
#include "index.h"
#include "retention.h"
#include "segment.h"

#define GIVE_WAY_AFTER_S 600u
#define WANTED_FOR_S 30u
#define SEGMENTS_A_CALL 8u

struct live_bytes {
    fb_store *store;
    uint64_t *bytes;
};

static void add_live(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct live_bytes *live = context;
    (void)lo;
    (void)check;
    if (FB_PLACE_SEGMENT(place) < live->store->segment_count && !(FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE))
        live->bytes[FB_PLACE_SEGMENT(place)] += fb_record_extent(FB_EXTENT_LENGTH(extent));
}

/* Segments whose records are dead, wholly or, when room is wanted, by half at least. The index is
 * counted only after something was deleted, expired or replaced. */
static uint32_t reclaim_dead(fb_store *s, uint32_t tier, bool wanted)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    struct live_bytes live = {s, calloc(s->segment_count, sizeof(uint64_t))};
    uint32_t done = 0;
    if (live.bytes == NULL)
        return 0;
    fb_index_visit(s, 0, atomic_load(&s->shared->page_count), add_live, &live);
    for (uint32_t segment = 0; segment < s->segment_count && done < SEGMENTS_A_CALL; segment++) {
        if (s->segment_tier[segment] != tier || fb_segment_state_of(s, segment) != FB_SEALED)
            continue;
        uint64_t capacity = fb_segment_is_whole(s, segment) ? fb_geometry_of(s, segment).file_bytes : t->segment_bytes;
        bool half_dead = live.bytes[segment] * 2 <= capacity && !fb_segment_is_whole(s, segment);
        if (live.bytes[segment] == 0 || (wanted && half_dead))
            done += fb_segment_retire(s, segment, FB_EVICT_COMPACT) == 0;
    }
    free(live.bytes);
    return done;
}

/* The dataset unread longest, for ten minutes at least, gives its oldest segment to one that wants room. */
static uint32_t giving_way(fb_store *s, uint32_t tier)
{
    uint32_t now = fb_now_s(s), idle_longest = 0, victim = FB_NO_SEGMENT;
    uint64_t oldest = UINT64_MAX;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        if (s->segment_tier[segment] != tier || fb_segment_state_of(s, segment) != FB_SEALED)
            continue;
        struct fb_dataset *d = &s->datasets[atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX];
        uint32_t wanted = atomic_load(&d->wanted_s), read = atomic_load(&d->read_s);
        uint32_t idle = now > read ? now - read : 0;
        if (idle < GIVE_WAY_AFTER_S || (wanted != 0 && now - wanted < WANTED_FOR_S))
            continue;
        uint64_t age = atomic_load(&s->segments[segment].age);
        if (idle > idle_longest || (idle == idle_longest && age < oldest)) {
            idle_longest = idle;
            oldest = age;
            victim = segment;
        }
    }
    return victim;
}

static bool room_is_wanted(fb_store *s)
{
    uint32_t now = fb_now_s(s);
    for (uint32_t i = 0; i < FB_DATASETS_MAX; i++) {
        uint32_t wanted = atomic_load(&s->datasets[i].wanted_s);
        if (wanted != 0 && now - wanted < WANTED_FOR_S)
            return true;
    }
    return false;
}

/* Files beyond the quota in force go back to the file system. */
static void give_back_files(fb_store *s, uint32_t tier, struct fb_usage *u)
{
    while (u->file_bytes > fb_tier_effective(s, tier) && u->free_first != FB_NO_SEGMENT) {
        uint32_t segment = u->free_first;
        if (!fb_segment_own(s, segment))
            return;
        if (fb_segment_turn(s, segment, FB_FREE, FB_CREATING)) {
            fb_segfile_remove(s, segment);
            fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
        }
        fb_segment_disown(s, segment);
        fb_tier_usage(s, tier, u);
    }
}

bool fb_tier_evict(fb_store *s, uint32_t tier)
{
    struct fb_tier_live *live = &s->shared->tiers[tier];
    struct fb_tier_saved *saved = &s->super->tiers[tier];
    struct fb_usage u;
    fb_tier_usage(s, tier, &u);
    give_back_files(s, tier, &u);
    uint64_t high, low, limit = fb_tier_effective(s, tier) / 1000 * saved->high_permille;
    fb_tier_marks(s, tier, &high, &low);
    bool full = u.used_bytes + u.segment_bytes > limit, wanted = full && room_is_wanted(s);
    if (u.used_bytes > high)
        atomic_store(&live->evicting, 1);
    if (atomic_load(&s->shared->deletes) != s->compacted_deletes[tier]) {
        uint32_t seen = atomic_load(&s->shared->deletes);
        if (reclaim_dead(s, tier, wanted) < SEGMENTS_A_CALL)
            s->compacted_deletes[tier] = seen;
        fb_tier_usage(s, tier, &u);
    }
    uint32_t done = 0;
    for (; atomic_load(&live->evicting) && done < SEGMENTS_A_CALL; done++) {
        if (u.used_bytes <= low) {
            atomic_store(&live->evicting, 0);
            break;
        }
        uint32_t victim = fb_retention_victim(s, tier);
        if (victim == FB_NO_SEGMENT || fb_segment_retire(s, victim, FB_EVICT_RETENTION) != 0)
            break;
        fb_tier_usage(s, tier, &u);
    }
    if (wanted && done == 0) {
        uint32_t victim = giving_way(s, tier);
        if (victim != FB_NO_SEGMENT)
            done += fb_segment_retire(s, victim, FB_EVICT_ALL) == 0;
    }
    return done > 0;
}
