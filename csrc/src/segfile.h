/* Segment files: where things lie in them, and this process's maps and descriptors of them. */
#ifndef FB_SEGFILE_H
#define FB_SEGFILE_H

#include "engine.h"

struct fb_geometry {
    uint64_t file_bytes;
    uint64_t data_begin;
    uint64_t table_end; /* record i lies at table_end - (i + 1) x 64 */
    uint64_t super_offset;
    uint64_t crc_begin; /* whole-file segments: chunk checksums of the file, in order */
    uint32_t unit_shift;
    bool whole;
};

uint64_t fb_whole_file_bytes(uint64_t size_bytes, uint32_t block_bytes);
static inline struct fb_tier_saved *fb_tier_of(fb_store *s, uint32_t segment)
{
    return &s->super->tiers[s->segment_tier[segment]];
}
static inline bool fb_segment_is_whole(fb_store *s, uint32_t segment)
{
    return segment >= fb_tier_of(s, segment)->whole_base;
}
/* Zero-copy reads: MEM tiers, and disk tiers on request. */
static inline bool fb_segment_maps(fb_store *s, uint32_t segment)
{
    return fb_tier_of(s, segment)->medium == FB_MEM || s->config.map_disk;
}

struct fb_geometry fb_geometry_of_whole(fb_store *s, uint32_t segment);
static inline struct fb_geometry fb_geometry_of(fb_store *s, uint32_t segment)
{
    if (fb_segment_is_whole(s, segment))
        return fb_geometry_of_whole(s, segment);
    uint64_t file_bytes = fb_tier_of(s, segment)->segment_bytes;
    return (struct fb_geometry){.file_bytes = file_bytes,
                                .data_begin = FB_SEGMENT_SUPER_BYTES,
                                .table_end = file_bytes,
                                .unit_shift = FB_UNIT_SHIFT};
}

/* The read-only map if it is there and of the file's present epoch, else NULL. The pointer is read again
 * after the epoch: another thread may have replaced an old map between the two. The caller's row holds a
 * lease. */
static inline const uint8_t *fb_map_current(fb_store *s, uint32_t segment)
{
    struct fb_map *map = &s->maps[segment];
    const uint8_t *base = atomic_load(&map->base);
    uint32_t epoch = atomic_load_explicit(&map->base_epoch, memory_order_acquire);
    if (fb_likely(base != NULL &&
                  epoch == atomic_load_explicit(&s->segments[segment].file_epoch, memory_order_relaxed) &&
                  base == atomic_load(&map->base)))
        return base;
    return NULL;
}
/* The read-only map; the caller's row holds a lease. NULL: the file is not what it should be. */
const uint8_t *fb_map_base(fb_store *s, uint32_t segment);
/* A writable map of a recycled MEM segment whose file cannot go meanwhile (an open reservation, or the
 * evictor's hold); NULL: write through the descriptor. */
uint8_t *fb_map_writable(fb_store *s, uint32_t segment);

/* A descriptor for pread and pwrite, to be given back; or a negative errno. */
int fb_descriptor_get(fb_store *s, uint32_t segment);
void fb_descriptor_put(fb_store *s, uint32_t segment, int fd);

int fb_segment_pread(fb_store *s, uint32_t segment, void *data, size_t length_bytes, uint64_t offset);
/* Through the writable map where there is one. Counts the tier's written bytes. */
int fb_segment_write(fb_store *s, uint32_t segment, const void *data, size_t length_bytes, uint64_t offset);

/* Create the file of an absent segment (whole_bytes > 0: for a whole file); and remove it, giving its
 * space back at once. */
int fb_segfile_create(fb_store *s, uint32_t segment);
void fb_segfile_remove(fb_store *s, uint32_t segment);
int fb_segfile_write_super(fb_store *s, uint32_t segment, uint32_t dataset_id, uint32_t whole_sum);
/* 0 when the file is there, of the right size and ours; -EBADMSG or an errno otherwise. */
int fb_segfile_read_super(fb_store *s, uint32_t segment, struct fb_segment_super *out);
/* A regular file of the right size has its name. */
bool fb_segfile_is_there(fb_store *s, uint32_t segment);
int fb_segfile_sync(fb_store *s, uint32_t segment);

void fb_segfile_name(fb_store *s, uint32_t segment, char out[32]);
void fb_maps_close(fb_store *s);

#endif
