/* Walk the whole store: pages against the directory, slots against records, data against checksums. */
#include <stdio.h>

#include "evict.h"
#include "health.h"
#include "index.h"
#include "read.h"
#include "rows.h"
#include "segment.h"

struct check {
    fb_store *store;
    struct fb_check_report *report;
    bool repair, data;
};

static void note(struct check *c, const char *what, uint64_t a, uint64_t b)
{
    if (c->report->first[0] == 0)
        snprintf(c->report->first, sizeof c->report->first, "%s %llu/%llu", what, (unsigned long long)a,
                 (unsigned long long)b);
}

static void repair_slot(struct check *c, uint64_t lo, uint64_t check, uint64_t place)
{
    struct fb_key key = {.lo = lo, .check = check};
    if (!c->repair)
        return;
    fb_block_drop(c->store, &key, place);
    c->report->repaired++;
}

static bool read_and_verify(struct check *c, const struct fb_found *found, const struct fb_key *key)
{
    fb_store *s = c->store;
    uint32_t segment = FB_PLACE_SEGMENT(found->place), length = FB_EXTENT_LENGTH(found->extent);
    struct fb_geometry g = fb_geometry_of(s, segment);
    void *buffer = fb_pool_take(s, length ? length : 1);
    if (buffer == NULL)
        return true;
    int r =
        fb_segment_pread(s, segment, buffer, length, (uint64_t)FB_PLACE_UNIT(found->place) << g.unit_shift);
    if (r == 0)
        r = fb_block_verify(s, found, key, buffer);
    c->report->bytes_verified += length;
    fb_pool_give(s, buffer);
    return r == 0 || fb_error_is_own(-r);
}

/* What was checked may have been evicted meanwhile; only a slot that still stands is wrong. */
static bool still_there(fb_store *s, const struct fb_key *key, uint64_t place)
{
    struct fb_found found;
    return fb_index_find(s, key, &found) == 0 && FB_PLACE_LOCATION(found.place) == FB_PLACE_LOCATION(place);
}

static void check_record_of(struct check *c, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    fb_store *s = c->store;
    struct fb_record record;
    struct fb_key key = {.lo = lo, .check = check};
    struct fb_found found = {.place = place, .extent = extent};
    uint32_t number = fb_record_of_place(s, place, lo, check, &record);
    bool named = number != FB_NO_SEGMENT && record.length == FB_EXTENT_LENGTH(extent) &&
                 (record.state == FB_RECORD_COMMITTED || record.state == FB_RECORD_PINNED);
    if (!named && still_there(s, &key, place)) {
        c->report->bad_slots++;
        note(c, "slot without its record in segment/unit", FB_PLACE_SEGMENT(place), FB_PLACE_UNIT(place));
        repair_slot(c, lo, check, place);
    } else if (named && c->data) {
        key.hi = record.hi;
        if (!read_and_verify(c, &found, &key) && still_there(s, &key, place)) {
            c->report->bad_checksums++;
            note(c, "data differs from its checksum in segment/unit", FB_PLACE_SEGMENT(place),
                 FB_PLACE_UNIT(place));
            repair_slot(c, lo, check, place);
        }
    }
}

static void check_slot(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct check *c = context;
    fb_store *s = c->store;
    c->report->slots++;
    if (FB_PLACE_SEGMENT(place) >= s->segment_count) {
        c->report->bad_slots++;
        note(c, "slot names a segment that does not exist:", FB_PLACE_SEGMENT(place), s->segment_count);
        repair_slot(c, lo, check, place);
        return;
    }
    if (FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE)
        return;
    /* Held meanwhile, so that what fails says something of the file and not of this process's limits. */
    int fd = fb_descriptor_get(s, FB_PLACE_SEGMENT(place));
    if (fd < 0 && fb_error_is_own(-fd))
        return;
    check_record_of(c, lo, check, place, extent);
    if (fd >= 0)
        fb_descriptor_put(s, FB_PLACE_SEGMENT(place), fd);
}

static bool check_record(fb_store *s, void *context, uint32_t segment, uint32_t number,
                         const struct fb_record *record, bool valid)
{
    struct check *c = context;
    struct fb_found found;
    c->report->records++;
    if (!valid) {
        c->report->bad_records++;
        note(c, "table entry not valid in segment/record", segment, number);
        return true;
    }
    struct fb_key key = {.hi = record->hi, .lo = record->lo, .check = record->check};
    bool live = record->state == FB_RECORD_COMMITTED || record->state == FB_RECORD_PINNED;
    bool indexed = live && fb_index_find(s, &key, &found) == 0 && FB_PLACE_SEGMENT(found.place) == segment &&
                   FB_PLACE_UNIT(found.place) == record->unit;
    /* Space that nothing names: what a process killed in mid-put leaves, reclaimed with its segment. */
    c->report->orphan_records += live && !indexed;
    return true;
}

static void check_pages(struct check *c)
{
    fb_store *s = c->store;
    uint64_t entries = (uint64_t)FB_INDEX_ROOTS << s->super->directory_bits;
    for (uint64_t i = 0; i < entries; i++) {
        uint32_t page = atomic_load(&s->directory[i]);
        struct fb_page *p = page < atomic_load(&s->shared->page_count) ? fb_page_at(s, page) : NULL;
        if (p != NULL && i - atomic_load(&p->first) < atomic_load(&p->span) && p->magic == FB_PAGE_MAGIC)
            continue;
        c->report->bad_pages++;
        note(c, "directory entry leads to the wrong page:", i, page);
    }
    for (uint32_t page = 0; page < atomic_load(&s->shared->page_count); page++) {
        uint32_t lock = atomic_load(&s->metas[page].lock);
        c->report->pages++;
        if (lock == 0 || !fb_owner_is_dead(s, lock))
            continue;
        c->report->bad_pages++;
        note(c, "page left locked by a dead process:", page, lock);
        if (c->repair && s->has_row && fb_lock(s, &s->metas[page].lock, 1000) == -EOWNERDEAD) {
            fb_page_repair(s, page);
            fb_index_unlock(s, page);
            c->report->repaired++;
        }
    }
}

int fb_check(fb_store *s, bool repair, bool data, struct fb_check_report *out)
{
    struct check c = {.store = s, .report = out, .repair = repair && s->has_row, .data = data};
    memset(out, 0, sizeof *out);
    check_pages(&c);
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        uint32_t state = fb_segment_state_of(s, segment);
        if (state != FB_OPEN && state != FB_SEALED)
            continue;
        out->segments++;
        uint32_t records = FB_WORD_RECORDS(atomic_load(&s->segments[segment].word));
        fb_records_visit(s, segment, 0, records, check_record, &c);
    }
    fb_index_visit(s, 0, atomic_load(&s->shared->page_count), check_slot, &c);
    return 0;
}
