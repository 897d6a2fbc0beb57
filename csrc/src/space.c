#include "segment.h"

#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

#include "account.h"
#include "failpoint.h"
#include "health.h"

#define CHUNKS_MAX (FB_BLOCK_BYTES_MAX / FB_CHUNK_BYTES)

uint64_t fb_space_place(const struct fb_space *space, uint32_t flags, uint32_t verified)
{
    return FB_PLACE(FB_SLOT_PRESENT, flags, verified, space->record, space->unit, space->segment);
}

static int put_bytes(fb_store *s, const struct fb_space *space, const void *data, size_t length_bytes,
                     uint64_t offset)
{
    if (space->writable == NULL)
        return fb_segment_write(s, space->segment, data, length_bytes, offset);
    memcpy(space->writable + offset, data, length_bytes);
    return 0;
}

static int put_record(fb_store *s, const struct fb_space *space, struct fb_record *record)
{
    record->self_crc = fb_crc32c(0, record, offsetof(struct fb_record, self_crc));
    return put_bytes(s, space, record, sizeof *record, fb_record_offset(s, space->segment, space->record));
}

/* 0: *out is reserved; -EAGAIN: this segment is full or no longer open; -ESTALE: it was open, closed, and is
 * open again for another dataset. The caller leases it. */
static int reserve_leased(fb_store *s, uint32_t segment, uint32_t dataset, uint64_t length_bytes,
                          struct fb_space *out)
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
        if (end + (records + 1ull) * FB_RECORD_BYTES > file_bytes ||
            start >> FB_UNIT_SHIFT > FB_PLACE_UNIT_MAX || records >= FB_WORD_RECORDS_MAX)
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
static int reserve_in(fb_store *s, uint32_t segment, uint32_t dataset, uint64_t length_bytes,
                      struct fb_space *out)
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

int fb_space_reserve(fb_store *s, uint32_t dataset, uint32_t tier, enum fb_queue queue,
                     const struct fb_key *key, uint64_t length_bytes, bool mover, struct fb_space *out)
{
    struct fb_dataset *d = &s->datasets[dataset];
    uint64_t file_bytes = s->super->tiers[tier].segment_bytes;
    if (s->super->tiers[tier].segment_count == 0 ||
        fb_record_extent(length_bytes) + FB_SEGMENT_SUPER_BYTES + 4096 + FB_RECORD_BYTES > file_bytes)
        return -ENOSPC;
    for (int tries = 0; tries < 32; tries++) {
        uint32_t open = atomic_load(&d->open[tier][queue]);
        if (open == 0) {
            int r = fb_segment_open(s, dataset, tier, queue, mover);
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
    return put_bytes(s, space, sums, chunks * 4,
                     fb_chunk_sums_offset(&g, space->offset, space->length_bytes));
}

static void count_written(fb_store *s, uint32_t segment, uint64_t bytes)
{
    fb_count_of(s, segment, FB_C_WRITTEN_BYTES_MEM + fb_tier_of(s, segment)->medium, bytes);
}

int fb_space_checksum(fb_store *s, const struct fb_space *space, const void *data, uint32_t *crc)
{
    uint32_t sums[CHUNKS_MAX];
    fb_crc32c_chunks(data, space->length_bytes, FB_CHUNK_BYTES, sums);
    count_written(s, space->segment, space->length_bytes);
    return write_sums(s, space, sums, crc);
}

/* Data, padding and checksums by one call. */
static int write_vector(fb_store *s, const struct fb_space *space, const void *data, uint32_t *sums,
                        uint32_t *crc)
{
    uint32_t chunks = fb_chunk_count(space->length_bytes);
    fb_crc32c_chunks(data, space->length_bytes, FB_CHUNK_BYTES, sums);
    if (chunks <= 1) {
        int r = fb_segment_write(s, space->segment, data, space->length_bytes, space->offset);
        return r != 0 ? r : write_sums(s, space, sums, crc);
    }
    uint64_t padding = 0, pad_bytes = ((space->length_bytes + 7) & ~7ull) - space->length_bytes;
    struct iovec parts[3] = {
        {(void *)(uintptr_t)data, space->length_bytes}, {&padding, pad_bytes}, {sums, chunks * 4}};
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
        fb_copy_crc32c_chunks(space->writable + space->offset, data, space->length_bytes, FB_CHUNK_BYTES,
                              sums);
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

/* While the piece is in the caches: its checksums, and then its one copy. */
static void extend_sums(uint32_t *sums, uint64_t done_bytes, const uint8_t *data, uint64_t length_bytes)
{
    while (length_bytes > 0) {
        uint64_t within = done_bytes % FB_CHUNK_BYTES, left = FB_CHUNK_BYTES - within;
        uint64_t part = left < length_bytes ? left : length_bytes;
        uint32_t *sum = &sums[done_bytes / FB_CHUNK_BYTES];
        *sum = fb_crc32c(within == 0 ? 0 : *sum, data, part);
        data += part;
        done_bytes += part;
        length_bytes -= part;
    }
}

int fb_space_append(fb_store *s, const struct fb_space *space, uint64_t done_bytes, const void *data,
                    uint64_t length_bytes, uint32_t *sums)
{
    extend_sums(sums, done_bytes, data, length_bytes);
    int r = put_bytes(s, space, data, length_bytes, space->offset + done_bytes);
    if (r == 0)
        count_written(s, space->segment, length_bytes);
    else
        fb_tier_fault(s, s->segment_tier[space->segment], -r);
    return r;
}

int fb_space_end_append(fb_store *s, const struct fb_space *space, const uint32_t *sums, uint32_t *crc)
{
    int r = write_sums(s, space, sums, crc);
    if (r != 0)
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
