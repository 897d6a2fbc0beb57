#include "rebuild.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evict.h"
#include "failpoint.h"
#include "health.h"
#include "index.h"
#include "pin.h"
#include "rows.h"
#include "segment.h"
#include "write.h"

#define SEGMENTS_A_CALL 4u
#define RECORDS_A_LOOK 1024u /* a stretch without one valid entry ends the table */

static int stat_segment(fb_store *s, uint32_t segment, struct stat *st)
{
    char name[32];
    fb_segfile_name(s, segment, name);
    return fstatat(s->tier_fds[s->segment_tier[segment]], name, st, AT_SYMLINK_NOFOLLOW);
}

void fb_rebuild_begin(fb_store *s)
{
    bool any = false;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        struct stat st;
        if (stat_segment(s, segment, &st) != 0)
            continue;
        atomic_store(&s->segments[segment].file_epoch, 1);
        /* Until the scan tells: what lies there counts against the quota. */
        if (fb_segment_is_whole(s, segment))
            atomic_store(&s->segments[segment].whole_bytes, (uint64_t)st.st_size);
        atomic_store(&s->segments[segment].word, FB_WORD(FB_UNSCANNED, 0, 0, 0));
        any = true;
    }
    atomic_store(&s->shared->rebuilding, any);
}

struct scan {
    uint32_t dataset;
    uint32_t records; /* one past the last valid entry */
    uint32_t live;
    uint64_t end;
    uint64_t sequence;
    bool any_valid;
    int error;
};

struct rival {
    const struct fb_record *record;
    struct fb_key key;
    uint64_t place;
    bool same; /* the slot names this very record, from a scan that was cut short */
};

static void raise(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t seen = atomic_load(word);
    while (seen < value && !atomic_compare_exchange_weak(word, &seen, value))
        ;
}

/* Of two records of one key the one committed last wins; what was put since the store was opened is
 * newer than all that is scanned. */
static bool is_newer(fb_store *s, void *context, uint64_t old_place)
{
    struct rival *rival = context;
    struct fb_record other;
    if (FB_PLACE_STATE(old_place) == FB_SLOT_EMPTY)
        return true;
    uint32_t segment = FB_PLACE_SEGMENT(old_place);
    rival->same = FB_PLACE_LOCATION(old_place) == FB_PLACE_LOCATION(rival->place);
    if (rival->same || FB_PLACE_STATE(old_place) == FB_SLOT_TOMBSTONE || segment >= s->segment_count ||
        !(atomic_load(&s->segments[segment].flags) & FB_SEG_REBUILT))
        return false;
    bool newer = fb_record_of_place(s, old_place, rival->key.lo, rival->key.check, &other) == FB_NO_SEGMENT ||
                 other.sequence < rival->record->sequence;
    if (newer)
        fb_hold_old(s, old_place);
    return newer;
}

static bool scan_record(fb_store *s, void *context, uint32_t segment, uint32_t number,
                        const struct fb_record *record, bool valid)
{
    struct scan *scan = context;
    if (!valid)
        return true;
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint64_t end = ((uint64_t)record->unit << g.unit_shift) + fb_record_extent(record->length);
    scan->any_valid = true;
    scan->records = number + 1;
    scan->end = end > scan->end ? end : scan->end;
    scan->sequence = record->sequence > scan->sequence ? record->sequence : scan->sequence;
    bool live = record->state == FB_RECORD_COMMITTED || record->state == FB_RECORD_PINNED;
    scan->live += live;
    /* A TTL counts on a clock that did not survive: what had one is given up. */
    if (!live || record->expiry != 0)
        return true;
    struct rival rival = {.record = record,
                          .key = {.hi = record->hi, .lo = record->lo, .check = record->check},
                          .place = FB_PLACE(FB_SLOT_PRESENT, 0, 0, number, record->unit, segment)};
    uint64_t old = 0, pinned = record->state == FB_RECORD_PINNED ? (uint64_t)FB_SLOT_PINNED << 2 : 0;
    int r = fb_index_put(s, &rival.key, rival.place | pinned, FB_EXTENT(record->length, 0), is_newer, &rival,
                         &old);
    if (r == -ETIMEDOUT)
        scan->error = r;
    if (r == -ECANCELED && !rival.same)
        fb_record_flip(s, segment, number, FB_RECORD_DEAD);
    if (r == 0)
        fb_bury(s, &rival.key, old);
    if (r == 0 && pinned)
        fb_pin_add(s, s->segment_tier[segment], record->length);
    return scan->error == 0;
}

static bool whole_is_complete(fb_store *s, uint32_t segment, const struct scan *scan)
{
    struct fb_segment *seg = &s->segments[segment];
    uint64_t block_bytes = atomic_load(&seg->whole_block_bytes);
    return scan->live == (atomic_load(&seg->whole_bytes) + block_bytes - 1) / block_bytes;
}

static int adopt_super(fb_store *s, uint32_t segment, uint32_t *dataset)
{
    struct fb_segment *seg = &s->segments[segment];
    struct fb_segment_super super;
    int r = fb_segfile_read_super(s, segment, &super);
    if (r != 0)
        return r;
    bool whole = fb_segment_is_whole(s, segment);
    if (whole && (super.whole_block_bytes < FB_CHUNK_BYTES || super.whole_block_bytes > FB_BLOCK_BYTES_MAX ||
                  (super.whole_block_bytes & (super.whole_block_bytes - 1)) || super.whole_bytes == 0 ||
                  super.whole_bytes > super.file_bytes ||
                  fb_whole_file_bytes(super.whole_bytes, super.whole_block_bytes) != super.file_bytes))
        return -EBADMSG;
    *dataset = fb_dataset_slot(s, super.dataset_id, true);
    if (*dataset == FB_DATASETS_MAX)
        return -EBADMSG;
    atomic_store(&seg->generation, super.generation);
    atomic_store(&seg->dataset, *dataset);
    atomic_store(&seg->whole_bytes, super.whole_bytes);
    atomic_store(&seg->whole_block_bytes, super.whole_block_bytes);
    atomic_store(&seg->whole_lo, super.whole_key.lo);
    atomic_store(&seg->whole_check, super.whole_key.check);
    return 0;
}

static uint32_t table_capacity(fb_store *s, uint32_t segment)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    struct fb_segment *seg = &s->segments[segment];
    uint64_t records = (g.table_end - g.data_begin) / FB_RECORD_BYTES;
    if (g.whole)
        records = (atomic_load(&seg->whole_bytes) + atomic_load(&seg->whole_block_bytes) - 1) /
                  atomic_load(&seg->whole_block_bytes);
    return (uint32_t)(records < 1u << 21 ? records : (1u << 21) - 1);
}

static int scan_table(fb_store *s, uint32_t segment, struct scan *scan)
{
    uint32_t capacity = table_capacity(s, segment);
    for (uint32_t first = 0; first < capacity && scan->error == 0; first += RECORDS_A_LOOK) {
        uint32_t n = capacity - first < RECORDS_A_LOOK ? capacity - first : RECORDS_A_LOOK;
        scan->any_valid = false;
        /* Readers may ask for these records as soon as the first slot is there. */
        atomic_store(&s->segments[segment].word,
                     FB_WORD(FB_UNSCANNED, atomic_load(&s->segments[segment].generation), first + n, 0));
        int r = fb_records_visit(s, segment, first, n, scan_record, scan);
        if (r != 0)
            return r;
        if (!scan->any_valid)
            break;
    }
    return scan->error;
}

bool fb_segment_discard(fb_store *s, uint32_t segment)
{
    struct fb_segment *seg = &s->segments[segment];
    uint32_t generation = atomic_load(&seg->generation);
    if (FB_WORD_RECORDS(atomic_load(&seg->word)) != 0) {
        if (fb_index_sweep(s, FB_PLACE(3, 0, 0, 0, 0, 0xffff),
                           FB_PLACE(FB_SLOT_PRESENT, 0, 0, 0, 0, segment)) != 0)
            return false;
        atomic_store(&seg->word, FB_WORD(FB_HELD, generation, 0, 0));
        return true;
    }
    atomic_store(&seg->word, FB_WORD(FB_CREATING, generation, 0, 0));
    fb_segfile_remove(s, segment);
    atomic_store(&seg->word, FB_WORD(FB_ABSENT, generation, 0, 0));
    return true;
}

/* False: not now, for lack of something of this process, or because a stopped one holds a page. */
static bool scan_segment(fb_store *s, uint32_t segment)
{
    struct fb_segment *seg = &s->segments[segment];
    bool whole = fb_segment_is_whole(s, segment);
    struct scan scan = {.end = whole ? 0 : FB_SEGMENT_SUPER_BYTES};
    int r = adopt_super(s, segment, &scan.dataset);
    if (r != 0)
        return !fb_error_is_own(-r) && fb_segment_discard(s, segment);
    atomic_store(&seg->flags, FB_SEG_REBUILT);
    r = scan_table(s, segment, &scan);
    FB_POINT("rebuild.scanned");
    if (r == -ETIMEDOUT || fb_error_is_own(-r))
        return false;
    raise(&s->shared->sequence, scan.sequence);
    raise(&s->shared->age, scan.sequence);
    atomic_store(&seg->age, scan.sequence);
    /* Where the table cannot be read to its end, what was found stays, and nothing comes behind it. */
    atomic_store(&seg->word, FB_WORD(FB_SEALED, atomic_load(&seg->generation), scan.records,
                                     whole ? 0 : (uint32_t)(scan.end >> FB_UNIT_SHIFT)));
    if (whole && r == 0 && whole_is_complete(s, segment, &scan)) {
        struct fb_key key = {.lo = atomic_load(&seg->whole_lo), .check = atomic_load(&seg->whole_check)};
        uint64_t old;
        fb_index_put(s, &key, FB_PLACE(FB_SLOT_PRESENT, FB_SLOT_WHOLE, 0, 0, 0, segment), FB_EXTENT(0, 0),
                     NULL, NULL, &old);
    }
    fb_count(s, FB_C_REBUILT_SEGMENTS, 1);
    return true;
}

bool fb_rebuild_some(fb_store *s)
{
    if (!atomic_load(&s->shared->rebuilding))
        return false;
    uint32_t done = 0;
    bool left = false; /* by a process that scans it at the moment, too */
    for (uint32_t segment = 0; segment < s->segment_count && done < SEGMENTS_A_CALL; segment++) {
        if (fb_segment_state_of(s, segment) != FB_UNSCANNED)
            continue;
        left = true;
        if (!fb_segment_own(s, segment))
            continue;
        if (fb_segment_state_of(s, segment) == FB_UNSCANNED)
            done += scan_segment(s, segment);
        fb_segment_disown(s, segment);
    }
    if (!left) {
        atomic_store(&s->shared->rebuilding, 0);
        if (fb_index_sweep(s, FB_PLACE(3, 0, 0, 0, 0, 0), FB_PLACE(FB_SLOT_TOMBSTONE, 0, 0, 0, 0, 0)) != 0)
            atomic_store(&s->shared->rebuilding, 1);
    }
    return done > 0;
}

static void drop_slot(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    fb_store *s = context;
    uint32_t segment = FB_PLACE_SEGMENT(place);
    (void)extent;
    if (segment >= s->segment_count || fb_segment_state_of(s, segment) == FB_ABSENT)
        fb_index_swap(s, lo, check, place, 0);
}

void fb_drop_lost_segments(fb_store *s)
{
    bool lost = false;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        struct stat st;
        uint32_t state = fb_segment_state_of(s, segment);
        /* What is still to be scanned is judged then; a directory that is out may come back as it was. */
        if (state == FB_ABSENT || state == FB_UNSCANNED || s->tier_fds[s->segment_tier[segment]] < 0)
            continue;
        bool whole = fb_segment_is_whole(s, segment);
        uint64_t bytes =
            whole ? fb_geometry_of(s, segment).file_bytes : fb_tier_of(s, segment)->segment_bytes;
        if (stat_segment(s, segment, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes)
            continue;
        fb_segfile_remove(s, segment);
        atomic_store(&s->segments[segment].word,
                     FB_WORD(FB_ABSENT, atomic_load(&s->segments[segment].generation), 0, 0));
        lost = true;
    }
    if (lost)
        fb_index_visit(s, 0, atomic_load(&s->shared->page_count), drop_slot, s);
}
