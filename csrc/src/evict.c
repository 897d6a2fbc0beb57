#include "evict.h"

#include <time.h>

#include "account.h"
#include "change.h"
#include "clock.h"
#include "failpoint.h"
#include "ghost.h"
#include "health.h"
#include "index.h"
#include "pin.h"
#include "read.h"
#include "rebuild.h"
#include "retention.h"
#include "rows.h"
#include "write.h"

#define RECORDS_A_PIECE 1024u
#define FREE_TIMEOUT_MS 1000
#define FREE_STEP_NS 1000000

int fb_records_visit(fb_store *s, uint32_t segment, uint32_t first, uint32_t count, fb_record_visitor visit,
                     void *context)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    struct fb_record *piece = fb_pool_take(s, RECORDS_A_PIECE * FB_RECORD_BYTES);
    int r = piece == NULL ? -ENOMEM : 0;
    for (uint32_t done = 0; r == 0 && done < count;) {
        uint32_t n = count - done < RECORDS_A_PIECE ? count - done : RECORDS_A_PIECE;
        uint64_t lowest = g.table_end - ((uint64_t)first + done + n) * FB_RECORD_BYTES;
        r = fb_segment_pread(s, segment, piece, n * FB_RECORD_BYTES, lowest);
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            const struct fb_record *record = &piece[n - 1 - i];
            if (!visit(s, context, segment, first + done + i, record, fb_record_valid(s, segment, record)))
                r = -ECANCELED;
        }
        done += n;
    }
    if (piece != NULL)
        fb_pool_give(s, piece);
    return r == -ECANCELED ? 0 : r;
}

static bool is_live(const struct fb_record *record)
{
    return record->state == FB_RECORD_COMMITTED || record->state == FB_RECORD_PINNED;
}

static struct fb_key key_of(const struct fb_record *record)
{
    return (struct fb_key){.hi = record->hi, .lo = record->lo, .check = record->check};
}

static uint64_t location_of(uint32_t segment, uint32_t number, const struct fb_record *record)
{
    return FB_PLACE(FB_SLOT_PRESENT, 0, 0, number, record->unit, segment);
}

/* ---- moving one record ---- */

/* Copy a record's bytes into `space`, refusing bytes that are no longer what was admitted. The segment
 * is ours to retire, so its bytes stay. */
static int copy_record(fb_store *s, uint32_t segment, const struct fb_record *record,
                       const struct fb_space *space)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    struct fb_key key = key_of(record);
    uint32_t crc;
    void *buffer = fb_pool_take(s, record->length ? record->length : 1);
    if (buffer == NULL)
        return -ENOMEM;
    int r = fb_segment_pread(s, segment, buffer, record->length, (uint64_t)record->unit << g.unit_shift);
    if (r == 0)
        r = fb_space_write(s, space, buffer, &crc);
    fb_pool_give(s, buffer);
    if (r == 0 && crc != record->crc)
        r = -EBADMSG;
    if (r == 0)
        r = fb_space_commit(s, space, &key, crc, record->expiry, record->state);
    return r;
}

static void set_touch(fb_store *s, const struct fb_key *key, uint8_t touch)
{
    struct fb_found found;
    if (fb_index_find(s, key, &found) == 0)
        atomic_store_explicit(fb_touch_at(s, found.page, found.slot), touch, memory_order_relaxed);
}

/* Another may free the dataset, and with it the segment that the record moves to. */
static bool target_is_open(fb_store *s, void *context, uint64_t old_place)
{
    (void)old_place;
    return fb_space_is_open(s, context);
}

/* 0, -ENOENT (deleted meanwhile), -EBADMSG (bad bytes: drop it), -ENOSPC, -ETIMEDOUT, -ECANCELED (the segment
 * that it moved to is being retired itself), -EBUSY (the index is being rebuilt). */
static int move_record(fb_store *s, const struct fb_found *found, uint32_t segment,
                       const struct fb_record *record, uint32_t level, enum fb_queue queue, bool mover,
                       struct fb_space *space)
{
    struct fb_key key = key_of(record);
    uint32_t dataset = atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX;
    /* A copy would pass for newer than the versions of this key that are still to be scanned. */
    if (atomic_load(&s->shared->rebuilding))
        return -EBUSY;
    if (fb_place_in_level(s, dataset, level, queue, &key, record->length, mover, space) != 0)
        return -ENOSPC;
    int r = copy_record(s, segment, record, space);
    FB_POINT("evict.copied");
    if (r == 0)
        r = fb_index_move(s, key.lo, key.check, found->place,
                          fb_space_place(space, 0, FB_PLACE_VERIFIED(found->place)), target_is_open, space);
    if (r != 0)
        fb_space_abandon(s, space);
    else if (record->state == FB_RECORD_PINNED)
        fb_pin_add(s, s->segment_tier[space->segment], record->length);
    fb_space_end(s, space);
    return r;
}

/* ---- retiring ---- */

struct retirement {
    enum fb_evict_mode mode;
    uint32_t retention;
    bool doubtful; /* an entry is damaged: the table does not tell all slots that lead here */
    int error;
};

static bool writer_inside(fb_store *s, void *context, uint32_t segment, uint32_t number,
                          const struct fb_record *record, bool valid)
{
    (void)number;
    if (valid && record->state == FB_RECORD_RESERVED && fb_owner_leases(s, record->owner, segment))
        *(bool *)context = true;
    return !*(bool *)context;
}

static enum fb_fate fate_of(fb_store *s, const struct retirement *r, uint32_t segment,
                            const struct fb_found *found, uint8_t *touch)
{
    bool pinned = (FB_PLACE_FLAGS(found->place) & FB_SLOT_PINNED) != 0;
    if (r->mode == FB_EVICT_FORCE)
        return FB_DROP;
    if (pinned || r->mode == FB_EVICT_COMPACT)
        return FB_KEEP;
    if (r->mode == FB_EVICT_YIELD)
        return r->retention == FB_EPOCH || r->retention == FB_SPARE ? FB_DROP : FB_DEMOTE;
    return r->mode == FB_EVICT_ALL ? FB_DROP : fb_retention_fate(s, segment, r->retention, touch);
}

static bool may_be_dropped(const struct retirement *r, const struct fb_found *found)
{
    return r->mode == FB_EVICT_RETENTION && !(FB_PLACE_FLAGS(found->place) & FB_SLOT_PINNED);
}

/* The slot of a record, if it leads here. A writer commits its record before it publishes: it may have seen
 * the segment open, under the page's lock, and have its slot still to write. So "it is not there" is taken
 * only from a look under that lock; dead records are not published any more. 0, -ENOENT, -ETIMEDOUT. */
static int find_slot(fb_store *s, const struct fb_record *record, uint64_t location, struct fb_found *found)
{
    struct fb_key key = key_of(record);
    int r = fb_index_find(s, &key, found);
    if (r == -EBUSY || (is_live(record) && (r != 0 || FB_PLACE_LOCATION(found->place) != location)))
        r = fb_index_find_locked(s, &key, found);
    return r;
}

static int drop_record(fb_store *s, const struct fb_key *key, const struct fb_found *found, bool evicted)
{
    int r = fb_index_swap(s, key->lo, key->check, found->place, 0);
    if (r == 0 && evicted) {
        uint32_t segment = FB_PLACE_SEGMENT(found->place);
        fb_ghost_add(s, s->evicted_ghosts, key->check);
        fb_count_of(s, segment, FB_C_EVICTED, 1);
        fb_count_of(s, segment, FB_C_EVICTED_BYTES, FB_EXTENT_LENGTH(found->extent));
    }
    return r == -ENOENT ? 0 : r;
}

static bool retire_record(fb_store *s, void *context, uint32_t segment, uint32_t number,
                          const struct fb_record *record, bool valid)
{
    struct retirement *retirement = context;
    struct fb_found found;
    struct fb_key key = key_of(record);
    retirement->doubtful |= !valid || !(is_live(record) || record->state == FB_RECORD_RESERVED ||
                                        record->state == FB_RECORD_DEAD);
    if (!valid || record->state == FB_RECORD_RESERVED)
        return true;
    int r = find_slot(s, record, location_of(segment, number, record), &found);
    if (r == -ETIMEDOUT) {
        retirement->error = r;
        return false;
    }
    if (r != 0 || FB_PLACE_LOCATION(found.place) != location_of(segment, number, record)) {
        retirement->doubtful |= r == 0 && FB_PLACE_SEGMENT(found.place) == segment;
        /* Should this retiring be given up, its writer may publish it after all. */
        if (is_live(record) && !fb_owner_leases(s, record->owner, segment))
            fb_record_flip(s, segment, number, FB_RECORD_DEAD);
        return true;
    }
    uint8_t touch = atomic_load_explicit(fb_touch_at(s, found.page, found.slot), memory_order_relaxed);
    uint32_t expiry = FB_EXTENT_EXPIRY(found.extent);
    bool expired = expiry != 0 && fb_now_s(s) >= expiry;
    enum fb_fate fate =
        expired || !is_live(record) ? FB_DROP : fate_of(s, retirement, segment, &found, &touch);
    uint32_t level = fb_tier_of(s, segment)->level;
    struct fb_space space;
    if (fate == FB_KEEP) {
        enum fb_queue queue = retirement->retention == FB_S3FIFO ? FB_QUEUE_MAIN : FB_QUEUE_SMALL;
        r = move_record(s, &found, segment, record, level, queue, true, &space);
        if (r == 0) {
            fb_count_of(s, segment, FB_C_MOVED, 1);
            set_touch(s, &key, touch);
        } else if (r == -ENOSPC && may_be_dropped(retirement, &found)) {
            r = drop_record(s, &key, &found, true);
        }
    } else if (fate == FB_DEMOTE && level + 1 < fb_level_count(s)) {
        r = move_record(s, &found, segment, record, level + 1, FB_QUEUE_SMALL, false, &space);
        if (r == 0) {
            fb_count_of(s, segment, FB_C_DEMOTED, 1);
            set_touch(s, &key, 0);
        } else if (r == -ENOSPC) {
            r = drop_record(s, &key, &found, true);
        }
    } else {
        bool forced = retirement->mode == FB_EVICT_FORCE;
        r = expired ? fb_drop_expired(s, &key) : drop_record(s, &key, &found, !forced);
        /* Given more time meanwhile, it stays until its segment's turn comes again; unless all has to go. */
        if (r == -EAGAIN && forced)
            r = drop_record(s, &key, &found, false);
    }
    if (r == -EBADMSG || r == -EIO)
        r = drop_record(s, &key, &found, false);
    FB_POINT("evict.record");
    retirement->error = r == -ENOENT ? 0 : r;
    /* The file may lie there for long; a rebuild must not bring back what was newer once. */
    if (retirement->error == 0)
        fb_record_flip(s, segment, number, FB_RECORD_DEAD);
    return retirement->error == 0;
}

static void recycle(fb_store *s, uint32_t segment)
{
    struct fb_usage u;
    uint32_t tier = s->segment_tier[segment];
    fb_tier_usage(s, tier, &u);
    fb_count(s, FB_C_SEGMENTS_RETIRED, 1);
    if (fb_segment_is_whole(s, segment) || u.file_bytes > fb_tier_effective(s, tier) ||
        !fb_segfile_is_there(s, segment)) {
        /* From HELD somebody might go on to FREE, should we die here. */
        fb_segment_turn(s, segment, FB_HELD, FB_CREATING);
        fb_segfile_remove(s, segment);
        FB_POINT("evict.removed");
        fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
    } else {
        fb_segment_turn(s, segment, FB_HELD, FB_FREE);
    }
}

bool fb_segment_unhold(fb_store *s, uint32_t segment)
{
    if (fb_segment_state_of(s, segment) != FB_HELD || !fb_segment_own(s, segment))
        return false;
    fb_fence();
    bool free_now = fb_segment_state_of(s, segment) == FB_HELD && !fb_segment_is_leased(s, segment);
    if (free_now)
        recycle(s, segment);
    fb_segment_disown(s, segment);
    return free_now;
}

/* What the whole file was known by. 0 or -ETIMEDOUT. */
static int unpublish_whole(fb_store *s, uint32_t segment)
{
    struct fb_segment *seg = &s->segments[segment];
    if (!fb_segment_is_whole(s, segment))
        return 0;
    uint64_t place = FB_PLACE(FB_SLOT_PRESENT, 0, 0, 0, 0, segment);
    int r = fb_index_swap(s, atomic_load(&seg->whole_lo), atomic_load(&seg->whole_check), place, 0);
    return r == -ENOENT ? 0 : r;
}

struct sweep {
    fb_store *store;
    uint32_t first, count, dropped;
    int error;
};

static void sweep_slot(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct sweep *sweep = context;
    if (FB_PLACE_SEGMENT(place) - sweep->first >= sweep->count)
        return;
    int r = fb_index_swap(sweep->store, lo, check, place, 0);
    sweep->dropped += r == 0;
    if (r == -ETIMEDOUT)
        sweep->error = r;
    if (r == 0 && !(FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE)) {
        fb_count_of(sweep->store, FB_PLACE_SEGMENT(place), FB_C_EVICTED, 1);
        fb_count_of(sweep->store, FB_PLACE_SEGMENT(place), FB_C_EVICTED_BYTES, FB_EXTENT_LENGTH(extent));
    }
}

int fb_slots_sweep(fb_store *s, uint32_t first, uint32_t count)
{
    struct sweep sweep = {.store = s, .first = first, .count = count};
    /* A writer may have seen a segment open, under its page's lock, with its slot still to write. */
    if (fb_index_settle(s) != 0)
        return -ETIMEDOUT;
    /* Again while there are any: a page that splits meanwhile may move slots behind us. */
    do {
        sweep.dropped = 0;
        if (!fb_index_visit(s, 0, atomic_load(&s->shared->page_count), sweep_slot, &sweep))
            return -ETIMEDOUT;
    } while (sweep.dropped != 0 && sweep.error == 0);
    return sweep.error;
}

static int retire_owned(fb_store *s, uint32_t segment, enum fb_evict_mode mode)
{
    struct fb_segment *seg = &s->segments[segment];
    uint32_t dataset = atomic_load(&seg->dataset) % FB_DATASETS_MAX;
    struct retirement retirement = {.mode = mode, .retention = atomic_load(&s->datasets[dataset].retention)};
    uint32_t records = FB_WORD_RECORDS(atomic_load(&seg->word));
    bool busy = false;
    int r = fb_records_visit(s, segment, 0, records, writer_inside, &busy);
    if (r == 0 && busy)
        r = -EBUSY;
    FB_POINT("evict.retiring");
    if (r == 0)
        r = fb_records_visit(s, segment, 0, records, retire_record, &retirement);
    bool unreadable = r != 0 && r != -EBUSY && r != -ETIMEDOUT && !fb_error_is_own(-r);
    if (r == 0)
        r = retirement.error;
    if (unreadable || (r == 0 && retirement.doubtful))
        r = fb_slots_sweep(s, segment, 1);
    if (r == 0)
        r = unpublish_whole(s, segment);
    if (r != 0) {
        fb_segment_turn(s, segment, FB_RETIRING, FB_SEALED);
        return r;
    }
    fb_segment_turn(s, segment, FB_RETIRING, FB_HELD);
    FB_POINT("evict.held");
    return 0;
}

int fb_segment_retire(fb_store *s, uint32_t segment, enum fb_evict_mode mode)
{
    if (!fb_segment_own(s, segment))
        return -EBUSY;
    bool retiring =
        fb_segment_turn(s, segment, FB_SEALED, FB_RETIRING) || fb_segment_state_of(s, segment) == FB_RETIRING;
    int r = retiring ? retire_owned(s, segment, mode) : -EBUSY;
    fb_segment_disown(s, segment);
    if (r == 0)
        fb_segment_unhold(s, segment);
    return r;
}

int fb_promote(fb_store *s, const struct fb_key *key, uint64_t *moved_bytes)
{
    struct fb_found found;
    struct fb_record record;
    struct fb_space space;
    if (fb_index_find(s, key, &found) != 0 || FB_PLACE_SEGMENT(found.place) >= s->segment_count)
        return -ENOENT;
    uint32_t segment = FB_PLACE_SEGMENT(found.place), level = fb_tier_of(s, segment)->level;
    if (level == 0 || (FB_PLACE_FLAGS(found.place) & FB_SLOT_WHOLE) || fb_segment_is_whole(s, segment))
        return -ENOENT;
    /* A lease keeps the bytes while they are copied, as for any reader. */
    atomic_fetch_add(&s->row_leases[segment], 1);
    int r = atomic_load(&s->metas[found.page].sequence) == found.sequence ? 0 : -ENOENT;
    uint32_t number =
        r == 0 ? fb_record_of_place(s, found.place, key->lo, key->check, &record) : FB_NO_SEGMENT;
    if (number == FB_NO_SEGMENT || !is_live(&record))
        r = -ENOENT;
    if (r == 0)
        r = move_record(s, &found, segment, &record, 0, FB_QUEUE_MAIN, false, &space);
    if (r == 0) {
        fb_record_flip(s, segment, number, FB_RECORD_DEAD);
        atomic_fetch_add(&s->shared->deletes, 1);
        fb_count_of(s, segment, FB_C_PROMOTED, 1);
        *moved_bytes = record.length;
    }
    atomic_fetch_sub(&s->row_leases[segment], 1);
    return r;
}

/* Segments that a rebuild has not come to yet, or not to the end of. 0 or -ETIMEDOUT. */
static int free_unscanned(fb_store *s, uint32_t dataset_id)
{
    int worst = 0;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        struct fb_segment_super super;
        if (fb_segment_state_of(s, segment) != FB_UNSCANNED || !fb_segment_own(s, segment))
            continue;
        if (fb_segment_state_of(s, segment) == FB_UNSCANNED &&
            fb_segfile_read_super(s, segment, &super) == 0 && super.dataset_id == dataset_id &&
            !fb_segment_discard(s, segment))
            worst = -ETIMEDOUT;
        fb_segment_disown(s, segment);
        fb_segment_unhold(s, segment);
    }
    return worst;
}

/* One look at each segment of the dataset. 0, or the worst of what hinders; -EBUSY where another is at one.
 */
static int free_seen(fb_store *s, uint32_t dataset)
{
    int worst = 0;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        uint32_t state = fb_segment_state_of(s, segment);
        if (atomic_load(&s->segments[segment].dataset) != dataset ||
            (state != FB_OPEN && state != FB_SEALED && state != FB_RETIRING))
            continue;
        if (state == FB_OPEN && !fb_segment_is_whole(s, segment))
            fb_segment_seal(s, segment);
        int r = fb_segment_retire(s, segment, FB_EVICT_FORCE);
        worst = r != 0 && (worst == 0 || worst == -EBUSY) ? r : worst;
    }
    return worst;
}

int fb_free_dataset(fb_store *s, uint32_t dataset_id)
{
    const struct timespec step = {.tv_nsec = FREE_STEP_NS};
    if (!s->has_row)
        return -EROFS;
    int unscanned = atomic_load(&s->shared->rebuilding) ? free_unscanned(s, dataset_id) : 0;
    uint32_t dataset = fb_dataset_slot(s, dataset_id, false);
    if (dataset == FB_DATASETS_MAX)
        return unscanned;
    int64_t limit_ms = fb_boottime_ms() + FREE_TIMEOUT_MS;
    int seen = free_seen(s, dataset);
    /* Who retires a segment moves what it keeps to others of the dataset, so all are looked at again. */
    while (seen == -EBUSY && fb_boottime_ms() < limit_ms) {
        nanosleep(&step, NULL);
        seen = free_seen(s, dataset);
    }
    return seen != 0 ? seen : unscanned;
}
