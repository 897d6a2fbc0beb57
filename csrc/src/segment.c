#include "segment.h"

#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account.h"
#include "clock.h"
#include "failpoint.h"
#include "health.h"
#include "maintain.h"
#include "platform.h"
#include "rows.h"

#define DATASET_TIMEOUT_MS 1000u
#define MOVER_RESERVE 2u /* segments that only the evictor may take */
#define EVICT_AHEAD 6u

/* ---- states ---- */

bool fb_segment_turn(fb_store *s, uint32_t segment, uint32_t from, uint32_t to)
{
    _Atomic uint64_t *word = &s->segments[segment].word;
    uint64_t seen = atomic_load(word);
    while (FB_WORD_STATE(seen) == from) {
        uint64_t next = (seen & ~(0xfull << 60)) | (uint64_t)to << 60;
        if (atomic_compare_exchange_weak(word, &seen, next))
            return true;
    }
    return false;
}

void fb_segment_renew(fb_store *s, uint32_t segment, uint32_t state)
{
    struct fb_segment *seg = &s->segments[segment];
    uint32_t generation = atomic_fetch_add(&seg->generation, 1) + 1;
    /* What is put from now on is newer than all that a rebuild still finds. */
    atomic_fetch_and(&seg->flags, ~(uint32_t)FB_SEG_REBUILT);
    uint32_t end = fb_segment_is_whole(s, segment) ? 0 : FB_SEGMENT_SUPER_BYTES >> FB_UNIT_SHIFT;
    atomic_store(&seg->word, FB_WORD(state, generation, 0, end));
}

void fb_segment_seal(fb_store *s, uint32_t segment)
{
    struct fb_segment *seg = &s->segments[segment];
    /* A writer may come late, when others have sealed it, or even taken it into another use. */
    if (fb_segment_state_of(s, segment) != FB_OPEN)
        return;
    if (fb_tier_of(s, segment)->medium != FB_MEM)
        atomic_fetch_or(&seg->flags, FB_SEG_UNSYNCED);
    atomic_store(&seg->age, atomic_fetch_add(&s->shared->age, 1) + 1);
    fb_segment_turn(s, segment, FB_OPEN, FB_SEALED);
}

uint64_t fb_tier_effective(fb_store *s, uint32_t tier)
{
    return atomic_load(&s->shared->tiers[tier].effective_bytes);
}

/* Not in the hands of a process that is about to take it, or was when it was stopped. */
static bool is_to_be_had(fb_store *s, uint32_t segment)
{
    uint32_t owner = atomic_load(&s->segments[segment].owner);
    return owner == 0 || fb_owner_is_dead(s, owner);
}

static void add_usage(fb_store *s, uint32_t segment, struct fb_usage *u)
{
    uint32_t state = fb_segment_state_of(s, segment);
    bool whole = fb_segment_is_whole(s, segment);
    if (state == FB_BAD)
        return;
    if (state == FB_ABSENT) {
        if (u->absent_first == FB_NO_SEGMENT && !whole && is_to_be_had(s, segment))
            u->absent_first = segment;
        return;
    }
    uint64_t bytes = whole ? fb_geometry_of(s, segment).file_bytes : u->segment_bytes;
    u->file_bytes += bytes;
    if (state != FB_FREE) {
        u->used_bytes += bytes;
    } else {
        u->free_count++;
        if (u->free_first == FB_NO_SEGMENT && is_to_be_had(s, segment))
            u->free_first = segment;
    }
}

void fb_tier_usage(fb_store *s, uint32_t tier, struct fb_usage *out)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    struct fb_usage u = {
        .segment_bytes = t->segment_bytes, .free_first = FB_NO_SEGMENT, .absent_first = FB_NO_SEGMENT};
    for (uint32_t i = 0; i < t->segment_count; i++)
        add_usage(s, t->segment_base + i, &u);
    for (uint32_t i = 0; i < t->whole_count; i++)
        add_usage(s, t->whole_base + i, &u);
    *out = u;
}

/* ---- datasets ---- */

static uint32_t slot_of_id(fb_store *s, uint32_t dataset_id, bool create)
{
    uint64_t wanted = (uint64_t)dataset_id + 1;
    uint32_t slot = (dataset_id * 2654435761u) % FB_DATASETS_MAX;
    for (uint32_t n = 0; n < FB_DATASETS_MAX; n++, slot = (slot + 1) % FB_DATASETS_MAX) {
        uint64_t seen = atomic_load(&s->datasets[slot].id_plus_1);
        if (seen == 0 && !create)
            return FB_DATASETS_MAX;
        if (seen == 0 && atomic_compare_exchange_strong(&s->datasets[slot].id_plus_1, &seen, wanted)) {
            /* Nobody knows how long it was not read: the time until it gives way counts from here. */
            atomic_store(&s->datasets[slot].read_s, fb_now_s(s));
            return slot;
        }
        if (seen == wanted)
            return slot;
    }
    return FB_DATASETS_MAX;
}

uint32_t fb_dataset_slot(fb_store *s, uint32_t dataset_id, bool create)
{
    uint32_t number = FB_DATASET_NUMBER(dataset_id);
    uint32_t keeper = create && number != dataset_id ? slot_of_id(s, number, true) : 0;
    if (keeper == FB_DATASETS_MAX)
        return FB_DATASETS_MAX;
    uint32_t slot = slot_of_id(s, dataset_id, create);
    if (create && number != dataset_id && slot != FB_DATASETS_MAX)
        atomic_store(&s->datasets[slot].keeper, keeper + 1);
    if (create && slot != FB_DATASETS_MAX && atomic_load(&s->datasets[slot].account) == 0) {
        uint32_t account = fb_account_of_id(s, dataset_id, true);
        atomic_store(&s->datasets[slot].account, account != 0 ? account : FB_ACCOUNTS);
    }
    return slot;
}

/* ---- taking a segment ---- */

/* Whoever wants to change a segment's state writes its own lock word first, so that a segment in an
 * in-between state always tells whether its owner still lives. */
bool fb_segment_own(fb_store *s, uint32_t segment)
{
    uint32_t seen = atomic_load(&s->segments[segment].owner);
    if (seen != 0 && (seen == s->me || !fb_owner_is_dead(s, seen)))
        return false;
    return atomic_compare_exchange_strong(&s->segments[segment].owner, &seen, s->me);
}

void fb_segment_disown(fb_store *s, uint32_t segment)
{
    atomic_store(&s->segments[segment].owner, 0);
}

/* A MEM segment may be written through a map only when every page of it exists: a hole in a full tmpfs
 * would be a SIGBUS. */
static void fill_holes(fb_store *s, uint32_t tier, uint32_t segment)
{
    struct fb_segment *seg = &s->segments[segment];
    uint64_t bytes = s->super->tiers[tier].segment_bytes;
    struct stat st;
    if (s->super->tiers[tier].medium != FB_MEM || (atomic_load(&seg->flags) & FB_SEG_RECYCLED))
        return;
    int fd = fb_descriptor_get(s, segment);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0) {
        uint64_t present = (uint64_t)st.st_blocks * 512;
        uint64_t missing = present < bytes ? bytes - present : 0;
        if ((missing == 0 || fb_tier_has_room(s, tier, missing)) && fb_reserve_bytes(fd, 0, bytes) == 0)
            atomic_fetch_or(&seg->flags, FB_SEG_RECYCLED);
    }
    fb_descriptor_put(s, segment, fd);
}

bool fb_segment_take(fb_store *s, uint32_t segment, uint32_t from)
{
    if (!fb_segment_own(s, segment))
        return false;
    if (fb_segment_turn(s, segment, from, FB_CREATING))
        return true;
    fb_segment_disown(s, segment);
    return false;
}

static int create_taken(fb_store *s, uint32_t segment)
{
    atomic_store(&s->segments[segment].flags, 0);
    FB_POINT("segment.creating");
    int r = fb_segfile_create(s, segment);
    if (r == 0)
        return 0;
    /* Something that cannot be removed has the file's name: this number is not used again. */
    bool in_the_way = r == -EEXIST || r == -EISDIR;
    fb_segment_turn(s, segment, FB_CREATING, in_the_way ? FB_BAD : FB_ABSENT);
    fb_segment_disown(s, segment);
    return in_the_way ? -EAGAIN : r;
}

/* The quota in force is what fits; the maintainer raises it again when there is room. */
void fb_tier_shrink(fb_store *s, uint32_t tier, uint64_t bytes)
{
    struct fb_tier_live *t = &s->shared->tiers[tier];
    atomic_store(&t->effective_bytes, bytes);
    atomic_store(&t->shrunk, 1);
}

void fb_tier_marks(fb_store *s, uint32_t tier, uint64_t *high, uint64_t *low)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    uint64_t effective = fb_tier_effective(s, tier);
    *high = effective / 1000 * t->high_permille;
    *low = effective / 1000 * t->low_permille;
    /* In a tier of few segments the evictor begins while there are still some for puts that go on; in one
     * of very few, as soon as only its own reserve is left. */
    uint64_t ahead = EVICT_AHEAD * t->segment_bytes;
    if (effective < 4 * ahead)
        ahead = (MOVER_RESERVE + 1) * t->segment_bytes;
    uint64_t latest = effective > ahead ? effective - ahead : 0;
    if (*high > latest) {
        *low = *low > *high - latest ? *low - (*high - latest) : 0;
        *high = latest;
    }
}

/* Used bytes that a new segment may bring the tier to. */
static uint64_t limit_for(fb_store *s, uint32_t tier, uint32_t dataset, bool mover)
{
    uint64_t effective = fb_tier_effective(s, tier), limit = effective;
    uint64_t segment_bytes = s->super->tiers[tier].segment_bytes, reserve = MOVER_RESERVE * segment_bytes;
    if (mover)
        return effective;
    uint32_t retention = atomic_load(&s->datasets[dataset].retention);
    uint64_t high, low;
    fb_tier_marks(s, tier, &high, &low);
    if (retention == FB_SPARE)
        return low;
    if (retention == FB_EPOCH)
        limit = effective / 1000 * s->super->tiers[tier].high_permille;
    else if (effective > reserve)
        limit = effective - reserve;
    /* A tier of very few segments still holds one. */
    return limit < segment_bytes ? segment_bytes : limit;
}

/* Take one; then look again: whoever took another at the same moment counts too by now, and of those who
 * find it too much each gives its own back. 0, -EAGAIN, -ENOSPC. */
static int take_within(fb_store *s, uint32_t tier, uint32_t segment, bool recycle, uint64_t limit)
{
    struct fb_usage u;
    if (!fb_segment_take(s, segment, recycle ? FB_FREE : FB_ABSENT))
        return -EAGAIN;
    FB_POINT("segment.taken");
    fb_tier_usage(s, tier, &u);
    if (u.used_bytes <= limit && (recycle || u.file_bytes <= fb_tier_effective(s, tier)))
        return 0;
    fb_segment_turn(s, segment, FB_CREATING, recycle ? FB_FREE : FB_ABSENT);
    fb_segment_disown(s, segment);
    return -ENOSPC;
}

/* Where the file system or the user's quota is full the tier is as large as it has become. */
static void shrink_if_full(fb_store *s, uint32_t tier, int error, uint64_t file_bytes)
{
    if ((error == -ENOSPC || error == -EDQUOT) && file_bytes < fb_tier_effective(s, tier))
        fb_tier_shrink(s, tier, file_bytes);
}

/* A free segment of a tier, ours in state CREATING. */
static int acquire(fb_store *s, uint32_t dataset, uint32_t tier, bool mover, uint32_t *out)
{
    for (int tries = 0; tries < 16; tries++) {
        struct fb_usage u;
        uint64_t limit = limit_for(s, tier, dataset, mover);
        fb_tier_usage(s, tier, &u);
        if (fb_tier_failed(s, tier) || u.used_bytes + u.segment_bytes > limit)
            return -ENOSPC;
        uint64_t high, low;
        fb_tier_marks(s, tier, &high, &low);
        if (u.used_bytes >= high && atomic_load(&s->datasets[dataset].retention) != FB_EPOCH)
            fb_maintainer_wake(s);
        bool recycle = u.free_first != FB_NO_SEGMENT;
        uint32_t segment = recycle ? u.free_first : u.absent_first;
        if (segment == FB_NO_SEGMENT ||
            (!recycle && u.file_bytes + u.segment_bytes > fb_tier_effective(s, tier)))
            return -ENOSPC;
        if (!recycle && !fb_tier_has_room(s, tier, u.segment_bytes)) {
            fb_tier_shrink(s, tier, u.file_bytes);
            return -ENOSPC;
        }
        int r = take_within(s, tier, segment, recycle, limit);
        if (r == 0 && recycle)
            fill_holes(s, tier, segment);
        else if (r == 0)
            r = create_taken(s, segment);
        if (r == -EAGAIN)
            continue;
        if (r == 0) {
            *out = segment;
        } else {
            shrink_if_full(s, tier, r, u.file_bytes);
            fb_tier_fault(s, tier, -r);
        }
        return r;
    }
    return -ENOSPC;
}

int fb_segment_open(fb_store *s, uint32_t dataset, uint32_t tier, enum fb_queue queue, bool mover)
{
    struct fb_dataset *d = &s->datasets[dataset];
    uint32_t segment = FB_NO_SEGMENT;
    int r = fb_lock(s, &d->lock, DATASET_TIMEOUT_MS);
    if (r == -ETIMEDOUT)
        return -ENOSPC;
    r = atomic_load(&d->open[tier][queue]) != 0 ? 0 : acquire(s, dataset, tier, mover, &segment);
    if (r == 0 && segment != FB_NO_SEGMENT) {
        struct fb_segment *seg = &s->segments[segment];
        atomic_store(&seg->dataset, dataset);
        /* What is loaded now and read later is not idle. */
        if (!mover)
            atomic_store(&d->read_s, fb_now_s(s));
        if (queue == FB_QUEUE_MAIN)
            atomic_fetch_or(&seg->flags, FB_SEG_MAIN_QUEUE);
        else
            atomic_fetch_and(&seg->flags, ~(uint32_t)FB_SEG_MAIN_QUEUE);
        FB_POINT("segment.acquired");
        fb_segment_renew(s, segment, FB_CREATING);
        r = fb_segfile_write_super(s, segment, (uint32_t)(atomic_load(&d->id_plus_1) - 1), 0);
        if (r == 0) {
            fb_segment_turn(s, segment, FB_CREATING, FB_OPEN);
            FB_POINT("segment.opened");
            atomic_store(&d->open[tier][queue], segment + 1);
        } else {
            fb_tier_fault(s, tier, -r);
            if (!fb_error_is_own(-r))
                fb_segfile_remove(s, segment);
            fb_segment_turn(s, segment, FB_CREATING, fb_error_is_own(-r) ? FB_FREE : FB_ABSENT);
        }
        fb_segment_disown(s, segment);
    }
    fb_unlock(&d->lock);
    return r;
}

void fb_segment_refuse(fb_store *s, uint32_t segment, int error)
{
    struct fb_usage u;
    uint32_t tier = s->segment_tier[segment];
    if (error != -ENOSPC && error != -EDQUOT)
        return;
    fb_segment_seal(s, segment);
    fb_tier_usage(s, tier, &u);
    shrink_if_full(s, tier, error, u.file_bytes);
}
