#include "segment.h"

#include <stddef.h>

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

uint64_t fb_record_offset(fb_store *s, uint32_t segment, uint32_t record)
{
    return fb_geometry_of(s, segment).table_end - (record + 1ull) * FB_RECORD_BYTES;
}

int fb_record_write(fb_store *s, uint32_t segment, uint32_t record, struct fb_record *value)
{
    value->self_crc = fb_crc32c(0, value, offsetof(struct fb_record, self_crc));
    return fb_segment_write(s, segment, value, sizeof *value, fb_record_offset(s, segment, record));
}

int fb_record_flip(fb_store *s, uint32_t segment, uint32_t record, uint32_t state)
{
    return fb_segment_write(s, segment, &state, sizeof state,
                            fb_record_offset(s, segment, record) + offsetof(struct fb_record, state));
}

bool fb_record_valid(fb_store *s, uint32_t segment, const struct fb_record *record)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint64_t offset = (uint64_t)record->unit << g.unit_shift;
    return record->self_crc == fb_crc32c(0, record, offsetof(struct fb_record, self_crc)) &&
           record->generation == atomic_load(&s->segments[segment].generation) &&
           record->length <= FB_BLOCK_BYTES_MAX && record->unit <= FB_PLACE_UNIT_MAX &&
           offset >= g.data_begin &&
           offset + record->length <=
               (g.whole ? atomic_load(&s->segments[segment].whole_bytes) : g.file_bytes);
}

int fb_record_read(fb_store *s, uint32_t segment, uint32_t record, struct fb_record *out)
{
    struct fb_record value;
    int r = fb_segment_pread(s, segment, &value, sizeof value, fb_record_offset(s, segment, record));
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
