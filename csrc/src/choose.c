/* Which segments of a tier go, and when. */
#include "clock.h"
#include "evict.h"
#include "health.h"
#include "index.h"
#include "retention.h"
#include "segment.h"

#define GIVE_WAY_AFTER_S 600u
#define WANTED_FOR_S 30u
#define SEGMENTS_A_CALL 8u

struct live_bytes {
    fb_store *store;
    uint64_t *bytes;
    bool pinned_only;
};

static void add_live(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct live_bytes *live = context;
    (void)lo;
    (void)check;
    if (FB_PLACE_SEGMENT(place) < live->store->segment_count && !(FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE) &&
        (!live->pinned_only || (FB_PLACE_FLAGS(place) & FB_SLOT_PINNED)))
        live->bytes[FB_PLACE_SEGMENT(place)] += fb_record_extent(FB_EXTENT_LENGTH(extent));
}

/* Bytes a segment that pinned slots name, to be freed; NULL when they could not all be counted. */
static uint64_t *count_pinned(fb_store *s)
{
    struct live_bytes live = {s, calloc(s->segment_count, sizeof(uint64_t)), true};
    if (live.bytes != NULL && !fb_index_visit(s, 0, atomic_load(&s->shared->page_count), add_live, &live)) {
        free(live.bytes);
        return NULL;
    }
    return live.bytes;
}

static bool begin_count(fb_store *s)
{
    struct fb_live_count *count = &s->live_count;
    if (count->bytes == NULL)
        count->bytes = malloc(s->segment_count * sizeof *count->bytes);
    if (count->bytes == NULL)
        return false;
    memset(count->bytes, 0, s->segment_count * sizeof *count->bytes);
    count->page = 0;
    count->deletes = atomic_load(&s->shared->deletes);
    count->age = atomic_load(&s->shared->age);
    count->used_by = 0;
    count->complete = false;
    return true;
}

/* Go on with the count of what is live, or begin one where this tier has used the last. True when it is
 * complete. It can err: a slot that moves meanwhile is counted twice or not at all. Whoever retires a segment
 * by it keeps what is live all the same. */
static bool live_is_counted(fb_store *s, uint32_t tier)
{
    struct fb_live_count *count = &s->live_count;
    struct live_bytes live = {s, NULL, false};
    if ((count->bytes == NULL || (count->used_by & 1u << tier)) && !begin_count(s))
        return false;
    if (count->complete)
        return true;
    uint32_t pages = atomic_load(&s->shared->page_count);
    uint32_t n = pages - count->page < count->pages_a_round ? pages - count->page : count->pages_a_round;
    live.bytes = count->bytes;
    if (!fb_index_visit(s, count->page, n, add_live, &live)) {
        begin_count(s);
        return false;
    }
    count->page += n;
    count->complete = count->page == pages;
    return count->complete;
}

/* One that cannot go now (a stopped writer is in it, pins find no room) goes behind the others, or nothing
 * else would ever go. */
static int retire_or_defer(fb_store *s, uint32_t segment, enum fb_evict_mode mode)
{
    int r = fb_segment_retire(s, segment, mode);
    if (r != 0)
        atomic_store(&s->segments[segment].age, atomic_fetch_add(&s->shared->age, 1) + 1);
    return r;
}

/* Segments whose records are dead, wholly or, when room is wanted, by half at least. */
static uint32_t reclaim_dead(fb_store *s, uint32_t tier, bool wanted)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    const uint64_t *live = s->live_count.bytes;
    uint32_t done = 0;
    for (uint32_t segment = 0; segment < s->segment_count && done < SEGMENTS_A_CALL; segment++) {
        if (s->segment_tier[segment] != tier || fb_segment_state_of(s, segment) != FB_SEALED ||
            atomic_load(&s->segments[segment].age) > s->live_count.age)
            continue;
        uint64_t capacity =
            fb_segment_is_whole(s, segment) ? fb_geometry_of(s, segment).file_bytes : t->segment_bytes;
        bool half_dead = live[segment] * 2 <= capacity && !fb_segment_is_whole(s, segment);
        if (live[segment] == 0 || (wanted && half_dead))
            done += fb_segment_retire(s, segment, FB_EVICT_COMPACT) == 0;
    }
    return done;
}

/* The index is counted only after something was deleted, expired or replaced. */
static void reclaim_some(fb_store *s, uint32_t tier, bool wanted)
{
    if (atomic_load(&s->shared->deletes) == s->compacted_deletes[tier][wanted] || !live_is_counted(s, tier) ||
        reclaim_dead(s, tier, wanted) == SEGMENTS_A_CALL)
        return;
    s->compacted_deletes[tier][wanted] = s->live_count.deletes;
    s->live_count.used_by |= 1u << tier;
}

/* Sealed, or open for more puts, which the cleaner then seals first. */
static bool may_go(fb_store *s, uint32_t segment)
{
    uint32_t state = fb_segment_state_of(s, segment);
    return state == FB_SEALED || (state == FB_OPEN && !fb_segment_is_whole(s, segment));
}

/* Where pins would only be moved about nothing is won: they go from a segment that has room for as much again
 * to the open one, and stay there. */
static bool may_make_way(fb_store *s, uint32_t segment, uint64_t pinned_bytes)
{
    if (!may_go(s, segment))
        return false;
    return fb_segment_state_of(s, segment) == FB_OPEN
               ? pinned_bytes == 0
               : pinned_bytes * 2 <= fb_tier_of(s, segment)->segment_bytes;
}

/* The dataset unread longest, for ten minutes at least, gives its oldest segment to one that wants room.
 * `pinned`: bytes a segment; NULL: none. */
static uint32_t giving_way(fb_store *s, uint32_t tier, const uint64_t *pinned)
{
    uint32_t now = fb_now_s(s), idle_longest = 0, victim = FB_NO_SEGMENT;
    uint64_t oldest = UINT64_MAX;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        if (s->segment_tier[segment] != tier ||
            !may_make_way(s, segment, pinned != NULL ? pinned[segment] : 0))
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

/* Nothing sealed is left to evict: of the datasets that let go, the one unread longest ends its open segment.
 */
static bool seal_idlest(fb_store *s, uint32_t tier)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    uint32_t idlest = FB_NO_SEGMENT, read_last = UINT32_MAX;
    for (uint32_t segment = t->segment_base; segment < t->segment_base + t->segment_count; segment++) {
        struct fb_dataset *d = &s->datasets[atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX];
        if (fb_segment_state_of(s, segment) != FB_OPEN || atomic_load(&d->retention) == FB_EPOCH ||
            atomic_load(&d->read_s) >= read_last)
            continue;
        read_last = atomic_load(&d->read_s);
        idlest = segment;
    }
    if (idlest != FB_NO_SEGMENT)
        fb_segment_seal(s, idlest);
    return idlest != FB_NO_SEGMENT;
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

static bool make_way(fb_store *s, uint32_t tier)
{
    uint32_t spare = fb_retention_spare(s, tier);
    if (spare != FB_NO_SEGMENT)
        return retire_or_defer(s, spare, FB_EVICT_ALL) == 0;
    /* Pins are counted only where something is idle, which is rare. */
    if (giving_way(s, tier, NULL) == FB_NO_SEGMENT)
        return false;
    uint64_t *pinned = count_pinned(s);
    uint32_t victim = pinned == NULL ? FB_NO_SEGMENT : giving_way(s, tier, pinned);
    free(pinned);
    if (victim == FB_NO_SEGMENT)
        return false;
    if (!fb_segment_is_whole(s, victim))
        fb_segment_seal(s, victim);
    return retire_or_defer(s, victim, FB_EVICT_ALL) == 0;
}

/* The file system or a memory limit leaves less than is used: what would be kept goes too, first what was
 * read longest ago. False: nothing can go. */
static bool yield_kept(fb_store *s, uint32_t tier)
{
    uint32_t victim = FB_NO_SEGMENT, read_first = UINT32_MAX;
    uint64_t oldest = UINT64_MAX;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        if (s->segment_tier[segment] != tier || !may_go(s, segment))
            continue;
        uint32_t dataset = atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX;
        uint32_t read = atomic_load(&s->datasets[dataset].read_s);
        uint64_t age = fb_segment_state_of(s, segment) == FB_OPEN ? UINT64_MAX - 1
                                                                  : atomic_load(&s->segments[segment].age);
        if (read < read_first || (read == read_first && age < oldest)) {
            read_first = read;
            oldest = age;
            victim = segment;
        }
    }
    if (victim == FB_NO_SEGMENT)
        return false;
    if (!fb_segment_is_whole(s, victim))
        fb_segment_seal(s, victim);
    return retire_or_defer(s, victim, FB_EVICT_YIELD) == 0;
}

bool fb_tier_evict(fb_store *s, uint32_t tier)
{
    struct fb_tier_live *live = &s->shared->tiers[tier];
    struct fb_tier_saved *saved = &s->super->tiers[tier];
    struct fb_usage u;
    if (fb_tier_failed(s, tier)) /* what cannot be read now may be there again later */
        return false;
    fb_tier_usage(s, tier, &u);
    give_back_files(s, tier, &u);
    uint64_t high, low, limit = fb_tier_effective(s, tier) / 1000 * saved->high_permille;
    fb_tier_marks(s, tier, &high, &low);
    bool asked = room_is_wanted(s), wanted = asked && u.used_bytes + u.segment_bytes > limit;
    if (u.used_bytes > high)
        atomic_store(&live->evicting, 1);
    reclaim_some(s, tier, wanted);
    fb_tier_usage(s, tier, &u);
    uint32_t done = 0;
    for (; atomic_load(&live->evicting) && done < SEGMENTS_A_CALL; done++) {
        if (u.used_bytes <= low) {
            atomic_store(&live->evicting, 0);
            break;
        }
        uint32_t victim = fb_retention_victim(s, tier);
        if (victim == FB_NO_SEGMENT && asked && seal_idlest(s, tier))
            victim = fb_retention_victim(s, tier);
        if (victim == FB_NO_SEGMENT || retire_or_defer(s, victim, FB_EVICT_RETENTION) != 0)
            break;
        fb_tier_usage(s, tier, &u);
    }
    for (; u.used_bytes > fb_tier_effective(s, tier) && done < SEGMENTS_A_CALL && yield_kept(s, tier); done++)
        fb_tier_usage(s, tier, &u);
    return (wanted && done == 0 && make_way(s, tier)) || done > 0;
}
