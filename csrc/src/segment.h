/* Segments: their life from absent to recycled, and room for records in them. */
#ifndef FB_SEGMENT_H
#define FB_SEGMENT_H

#include "engine.h"
#include "segfile.h"

struct fb_usage {
    uint64_t used_bytes; /* open, sealed, retiring, held, unscanned */
    uint64_t file_bytes; /* used and free: what lies in the file system */
    uint64_t segment_bytes;
    uint32_t free_count, free_first, absent_first; /* FB_NO_SEGMENT: none */
};

/* Where a record goes. */
struct fb_space {
    uint32_t segment, record, unit, generation;
    uint64_t offset; /* of the data in the file */
    uint64_t length_bytes;
    uint8_t *writable; /* the segment's writable map, or NULL: through the descriptor */
};

enum fb_queue { FB_QUEUE_SMALL = 0, FB_QUEUE_MAIN = 1 };

void fb_tier_usage(fb_store *s, uint32_t tier, struct fb_usage *out);
uint64_t fb_tier_effective(fb_store *s, uint32_t tier);
/* Used bytes at which eviction begins and ends. */
void fb_tier_marks(fb_store *s, uint32_t tier, uint64_t *high, uint64_t *low);

/* Slot of a dataset in the shared table; FB_DATASETS_MAX when it is not there (or the table is full). */
uint32_t fb_dataset_slot(fb_store *s, uint32_t dataset_id, bool create);

/* Reserve room for one record of a dataset in a tier. The table entry (reserved, ours) is written, and
 * the segment leased until fb_space_end, which every reservation needs, published or abandoned.
 * `mover`: the evictor, which may use the room above the high watermark. 0, -ENOSPC, or an errno. */
int fb_space_reserve(fb_store *s, uint32_t dataset, uint32_t tier, enum fb_queue queue,
                     const struct fb_key *key, uint64_t length_bytes, bool mover, struct fb_space *out);
/* Write the data and its checksums; *crc is the record's. */
int fb_space_write(fb_store *s, const struct fb_space *space, const void *data, uint32_t *crc);
/* The data is there: write its checksums only (it was filled in place). */
int fb_space_checksum(fb_store *s, const struct fb_space *space, const void *data, uint32_t *crc);
/* Data that comes in pieces, in order, into a segment that takes no other: write one behind done_bytes,
 * and into sums the checksums of its chunks as far as they go; then all checksums. */
int fb_space_append(fb_store *s, const struct fb_space *space, uint64_t done_bytes, const void *data,
                    uint64_t length_bytes, uint32_t *sums);
int fb_space_end_append(fb_store *s, const struct fb_space *space, const uint32_t *sums, uint32_t *crc);
int fb_space_commit(fb_store *s, const struct fb_space *space, const struct fb_key *key, uint32_t crc,
                    uint32_t expiry_s, uint32_t state);
void fb_space_abandon(fb_store *s, const struct fb_space *space);
void fb_space_end(fb_store *s, const struct fb_space *space);
uint64_t fb_space_place(const struct fb_space *space, uint32_t flags, uint32_t verified);

/* Bytes that a record of this length takes, its chunk checksums included. */
uint64_t fb_record_extent(uint64_t length_bytes);
/* How many checksums cover so many bytes, one for each chunk begun. */
uint32_t fb_chunk_count(uint64_t length_bytes);
/* Offset of the chunk checksums behind a record's data, or in a whole-file segment. */
uint64_t fb_chunk_sums_offset(const struct fb_geometry *g, uint64_t data_offset, uint64_t length_bytes);

/* Offset of a table entry in the file. */
uint64_t fb_record_offset(fb_store *s, uint32_t segment, uint32_t record);
/* One table entry. -EBADMSG: not a valid entry of this use of the segment. */
int fb_record_read(fb_store *s, uint32_t segment, uint32_t record, struct fb_record *out);
bool fb_record_valid(fb_store *s, uint32_t segment, const struct fb_record *record);
int fb_record_write(fb_store *s, uint32_t segment, uint32_t record, struct fb_record *value);
int fb_record_flip(fb_store *s, uint32_t segment, uint32_t record, uint32_t state);
/* The record number of a place: its low bits name one of a few. FB_NO_SEGMENT: none fits. */
uint32_t fb_record_of_place(fb_store *s, uint64_t place, uint64_t lo, uint64_t check, struct fb_record *out);

/* Take the right to change a segment's state; false: another live process has it. */
bool fb_segment_own(fb_store *s, uint32_t segment);
void fb_segment_disown(fb_store *s, uint32_t segment);
/* Own it and turn it from this state to CREATING; false: somebody else has it. */
bool fb_segment_take(fb_store *s, uint32_t segment, uint32_t from);
/* A write into an open segment failed: where the file system is full, nothing more goes into it, and the
 * tier is as large as it has become. */
void fb_segment_refuse(fb_store *s, uint32_t segment, int error);
/* No room for more than this: puts above it are not admitted until the maintainer finds room again. */
void fb_tier_shrink(fb_store *s, uint32_t tier, uint64_t bytes);

/* Give a dataset an open segment in a tier, unless it has one by now. 0, -ENOSPC, or an errno. */
int fb_segment_open(fb_store *s, uint32_t dataset, uint32_t tier, enum fb_queue queue, bool mover);
void fb_segment_seal(fb_store *s, uint32_t segment);
/* Compare-and-swap the state, all else kept. */
bool fb_segment_turn(fb_store *s, uint32_t segment, uint32_t from, uint32_t to);
static inline uint32_t fb_segment_state_of(fb_store *s, uint32_t segment)
{
    return FB_WORD_STATE(atomic_load(&s->segments[segment].word));
}
/* Begin a new use: generation + 1, empty, in `state`. The caller owns the segment. */
void fb_segment_renew(fb_store *s, uint32_t segment, uint32_t state);

#endif
