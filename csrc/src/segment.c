#include "segment.h"

#include <stddef.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "failpoint.h"
#include "health.h"
#include "maintain.h"
#include "platform.h"
#include "rows.h"

#define DATASET_TIMEOUT_MS 500u
#define MOVER_RESERVE 2u /* segments that only the evictor may take */
#define EVICT_AHEAD 6u
#define CHUNKS_MAX (FB_BLOCK_BYTES_MAX / FB_CHUNK_BYTES)

uint32_t fb_chunk_count(uint64_t length_bytes)
{
    return (uint32_t)((length_bytes + FB_CHUNK_BYTES - 1) / FB_CHUNK_BYTES);
}

uint64_t fb_record_extent(uint64_t length_bytes)
{
    uint32_t chunks = fb_chunk_count(length_bytes);
    uint64_t bytes = ((length_bytes + 7) & ~7ull) + (chunks > 1 ? chunks * 4ull : 0);
    return (bytes + 63) & ~63ull;
}

uint64_t fb_chunk_sums_offset(const struct fb_geometry *g, uint64_t data_offset, uint64_t length_bytes)
{
    if (g->whole)
        return g->crc_begin + data_offset / FB_CHUNK_BYTES * 4;
    return data_offset + ((length_bytes + 7) & ~7ull);
}

uint64_t fb_space_place(const struct fb_space *space, uint32_t flags, uint32_t verified)
{
    return FB_PLACE(FB_SLOT_PRESENT, flags, verified, space->record, space->unit, space->segment);
}

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
    struct fb_usage u = {.segment_bytes = t->segment_bytes, .free_first = FB_NO_SEGMENT, .absent_first = FB_NO_SEGMENT};
    for (uint32_t i = 0; i < t->segment_count; i++)
        add_usage(s, t->segment_base + i, &u);
    for (uint32_t i = 0; i < t->whole_count; i++)
        add_usage(s, t->whole_base + i, &u);
    *out = u;
}

/* ---- datasets ---- */

uint32_t fb_dataset_slot(fb_store *s, uint32_t dataset_id, bool create)
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
    if (atomic_load(&s->datasets[dataset].retention) == FB_EPOCH)
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
        if (segment == FB_NO_SEGMENT || (!recycle && u.file_bytes + u.segment_bytes > fb_tier_effective(s, tier)))
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

static int open_segment(fb_store *s, uint32_t dataset, uint32_t tier, enum fb_queue queue, bool mover)
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

/* ---- room for a record ---- */

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

static uint64_t record_offset(fb_store *s, uint32_t segment, uint32_t record)
{
    return fb_geometry_of(s, segment).table_end - (record + 1ull) * FB_RECORD_BYTES;
}

static int put_bytes(fb_store *s, const struct fb_space *space, const void *data, size_t length_bytes, uint64_t offset)
{
    if (space->writable == NULL)
        return fb_segment_write(s, space->segment, data, length_bytes, offset);
    memcpy(space->writable + offset, data, length_bytes);
    return 0;
}

static int put_record(fb_store *s, const struct fb_space *space, struct fb_record *record)
{
    record->self_crc = fb_crc32c(0, record, offsetof(struct fb_record, self_crc));
    return put_bytes(s, space, record, sizeof *record, record_offset(s, space->segment, space->record));
}

/* 0: *out is reserved; -EAGAIN: this segment is full or no longer open; -ESTALE: it was open, closed, and is
 * open again for another dataset. The caller leases it. */
static int reserve_leased(fb_store *s, uint32_t segment, uint32_t dataset, uint64_t length_bytes, struct fb_space *out)
{
    struct fb_segment *seg = &s->segments[segment];
    uint64_t file_bytes = fb_tier_of(s, segment)->segment_bytes;
    uint64_t seen = atomic_load(&seg->word);
    for (;;) {
        if (FB_WORD_STATE(seen) != FB_OPEN)
            return -EAGAIN;
        /* Written before the segment was opened, so of the use that the word is of. */
        if (atomic_load(&seg->dataset) != dataset)
            return -ESTALE;
        uint64_t align = length_bytes >= FB_CHUNK_BYTES ? 4096 : 64;
        uint64_t start = ((uint64_t)FB_WORD_END(seen) * 64 + align - 1) & ~(align - 1);
        uint64_t end = start + fb_record_extent(length_bytes);
        uint32_t records = FB_WORD_RECORDS(seen);
        if (end + (records + 1ull) * FB_RECORD_BYTES > file_bytes || start >> FB_UNIT_SHIFT > FB_PLACE_UNIT_MAX ||
            records >= FB_WORD_RECORDS_MAX)
            return -EAGAIN;
        uint64_t next = FB_WORD(FB_OPEN, FB_WORD_GENERATION(seen), records + 1, end >> FB_UNIT_SHIFT);
        if (!atomic_compare_exchange_weak(&seg->word, &seen, next))
            continue;
        *out = (struct fb_space){.segment = segment,
                                 .record = records,
                                 .unit = (uint32_t)(start >> FB_UNIT_SHIFT),
                                 .generation = atomic_load(&seg->generation),
                                 .offset = start,
                                 .length_bytes = length_bytes};
        return 0;
    }
}

/* A writer leases the segment from before its compare-and-swap until it has published: one that is
 * stopped before its table entry is written is seen by the cleaner through the lease alone. */
static int reserve_in(fb_store *s, uint32_t segment, uint32_t dataset, uint64_t length_bytes, struct fb_space *out)
{
    atomic_fetch_add_explicit(&s->row_leases[segment], 1, memory_order_seq_cst);
    int r = reserve_leased(s, segment, dataset, length_bytes, out);
    if (r != 0)
        atomic_fetch_sub_explicit(&s->row_leases[segment], 1, memory_order_seq_cst);
    return r;
}

void fb_space_end(fb_store *s, const struct fb_space *space)
{
    atomic_fetch_sub_explicit(&s->row_leases[space->segment], 1, memory_order_seq_cst);
}

int fb_space_reserve(fb_store *s, uint32_t dataset, uint32_t tier, enum fb_queue queue, const struct fb_key *key,
                     uint64_t length_bytes, bool mover, struct fb_space *out)
{
    struct fb_dataset *d = &s->datasets[dataset];
    uint64_t file_bytes = s->super->tiers[tier].segment_bytes;
    if (s->super->tiers[tier].segment_count == 0 ||
        fb_record_extent(length_bytes) + FB_SEGMENT_SUPER_BYTES + 4096 + FB_RECORD_BYTES > file_bytes)
        return -ENOSPC;
    for (int tries = 0; tries < 32; tries++) {
        uint32_t open = atomic_load(&d->open[tier][queue]);
        if (open == 0) {
            int r = open_segment(s, dataset, tier, queue, mover);
            if (r != 0)
                return r;
            continue;
        }
        int r = reserve_in(s, open - 1, dataset, length_bytes, out);
        if (r == 0) {
            struct fb_record record = {.hi = key->hi,
                                       .lo = key->lo,
                                       .check = key->check,
                                       .unit = out->unit,
                                       .length = (uint32_t)length_bytes,
                                       .generation = out->generation,
                                       .owner = s->me,
                                       .state = FB_RECORD_RESERVED};
            FB_POINT("put.reserved");
            out->writable = fb_map_writable(s, out->segment);
            r = put_record(s, out, &record);
            if (r != 0) {
                fb_tier_fault(s, tier, -r);
                fb_segment_refuse(s, out->segment, r);
                fb_space_end(s, out);
            }
            return r;
        }
        if (r == -EAGAIN)
            fb_segment_seal(s, open - 1);
        FB_POINT("segment.sealed");
        atomic_compare_exchange_strong(&d->open[tier][queue], &open, 0);
    }
    return -ENOSPC;
}

static int write_sums(fb_store *s, const struct fb_space *space, const uint32_t *sums, uint32_t *crc)
{
    struct fb_geometry g = fb_geometry_of(s, space->segment);
    uint32_t chunks = fb_chunk_count(space->length_bytes);
    *crc = chunks == 0 ? 0 : chunks == 1 ? sums[0] : fb_crc32c(0, sums, chunks * 4);
    if (chunks <= 1 && !g.whole)
        return 0;
    return put_bytes(s, space, sums, chunks * 4, fb_chunk_sums_offset(&g, space->offset, space->length_bytes));
}

static void count_written(fb_store *s, uint32_t segment, uint64_t bytes)
{
    fb_count(s, FB_C_WRITTEN_BYTES_MEM + fb_tier_of(s, segment)->medium, bytes);
}

int fb_space_checksum(fb_store *s, const struct fb_space *space, const void *data, uint32_t *crc)
{
    uint32_t sums[CHUNKS_MAX];
    fb_crc32c_chunks(data, space->length_bytes, FB_CHUNK_BYTES, sums);
    count_written(s, space->segment, space->length_bytes);
    return write_sums(s, space, sums, crc);
}

/* Data, padding and checksums by one call. */
static int write_vector(fb_store *s, const struct fb_space *space, const void *data, uint32_t *sums, uint32_t *crc)
{
    struct fb_geometry g = fb_geometry_of(s, space->segment);
    uint32_t chunks = fb_chunk_count(space->length_bytes);
    fb_crc32c_chunks(data, space->length_bytes, FB_CHUNK_BYTES, sums);
    if (g.whole || chunks <= 1) {
        int r = fb_segment_write(s, space->segment, data, space->length_bytes, space->offset);
        return r != 0 ? r : write_sums(s, space, sums, crc);
    }
    uint64_t padding = 0, pad_bytes = ((space->length_bytes + 7) & ~7ull) - space->length_bytes;
    struct iovec parts[3] = {{(void *)(uintptr_t)data, space->length_bytes}, {&padding, pad_bytes}, {sums, chunks * 4}};
    uint64_t total = space->length_bytes + pad_bytes + chunks * 4;
    int fd = fb_descriptor_get(s, space->segment);
    if (fd < 0)
        return fd;
    ssize_t n = pwritev(fd, parts, 3, (off_t)space->offset);
    int r = n < 0 && errno != EINTR ? -errno : 0;
    fb_descriptor_put(s, space->segment, fd);
    *crc = fb_crc32c(0, sums, chunks * 4);
    if (r == 0 && (uint64_t)n != total) {
        r = fb_segment_write(s, space->segment, data, space->length_bytes, space->offset);
        if (r == 0)
            r = write_sums(s, space, sums, crc);
    }
    return r;
}

int fb_space_write(fb_store *s, const struct fb_space *space, const void *data, uint32_t *crc)
{
    uint32_t sums[CHUNKS_MAX];
    int r;
    if (space->writable != NULL) {
        fb_copy_crc32c_chunks(space->writable + space->offset, data, space->length_bytes, FB_CHUNK_BYTES, sums);
        r = write_sums(s, space, sums, crc);
    } else {
        r = write_vector(s, space, data, sums, crc);
    }
    if (r == 0)
        count_written(s, space->segment, space->length_bytes);
    else
        fb_tier_fault(s, s->segment_tier[space->segment], -r);
    return r;
}

int fb_space_commit(fb_store *s, const struct fb_space *space, const struct fb_key *key, uint32_t crc,
                    uint32_t expiry_s, uint32_t state)
{
    struct fb_record record = {.hi = key->hi,
                               .lo = key->lo,
                               .check = key->check,
                               .sequence = atomic_fetch_add(&s->shared->sequence, 1) + 1,
                               .unit = space->unit,
                               .length = (uint32_t)space->length_bytes,
                               .generation = space->generation,
                               .owner = s->me,
                               .expiry = expiry_s,
                               .crc = crc,
                               .state = state};
    FB_POINT("put.written");
    int r = put_record(s, space, &record);
    FB_POINT("put.committed");
    return r;
}

void fb_space_abandon(fb_store *s, const struct fb_space *space)
{
    fb_record_flip(s, space->segment, space->record, FB_RECORD_DEAD);
}

/* ---- table entries ---- */

int fb_record_write(fb_store *s, uint32_t segment, uint32_t record, struct fb_record *value)
{
    value->self_crc = fb_crc32c(0, value, offsetof(struct fb_record, self_crc));
    return fb_segment_write(s, segment, value, sizeof *value, record_offset(s, segment, record));
}

int fb_record_flip(fb_store *s, uint32_t segment, uint32_t record, uint32_t state)
{
    return fb_segment_write(s, segment, &state, sizeof state,
                            record_offset(s, segment, record) + offsetof(struct fb_record, state));
}

bool fb_record_valid(fb_store *s, uint32_t segment, const struct fb_record *record)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint64_t offset = (uint64_t)record->unit << g.unit_shift;
    return record->self_crc == fb_crc32c(0, record, offsetof(struct fb_record, self_crc)) &&
           record->generation == atomic_load(&s->segments[segment].generation) &&
           record->length <= FB_BLOCK_BYTES_MAX && record->unit <= FB_PLACE_UNIT_MAX && offset >= g.data_begin &&
           offset + record->length <= (g.whole ? atomic_load(&s->segments[segment].whole_bytes) : g.file_bytes);
}

int fb_record_read(fb_store *s, uint32_t segment, uint32_t record, struct fb_record *out)
{
    struct fb_record value;
    int r = fb_segment_pread(s, segment, &value, sizeof value, record_offset(s, segment, record));
    if (r != 0)
        return r;
    if (!fb_record_valid(s, segment, &value))
        return -EBADMSG;
    *out = value;
    return 0;
}

uint32_t fb_record_of_place(fb_store *s, uint64_t place, uint64_t lo, uint64_t check, struct fb_record *out)
{
    uint32_t segment = FB_PLACE_SEGMENT(place);
    if (segment >= s->segment_count)
        return FB_NO_SEGMENT;
    uint32_t records = FB_WORD_RECORDS(atomic_load(&s->segments[segment].word));
    for (uint32_t record = FB_PLACE_RECORD(place); record < records; record += 1u << 14) {
        struct fb_record found;
        if (fb_record_read(s, segment, record, &found) == 0 && found.unit == FB_PLACE_UNIT(place) &&
            found.lo == lo && found.check == check) {
            *out = found;
            return record;
        }
    }
    return FB_NO_SEGMENT;
}
