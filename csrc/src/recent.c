/* The table of recent look-ups; see forebay/recent.h.
 *
 *     index      buckets of 16 slots, a cache line each: the bucket by the name's first word; in a slot
 *                8 bits of its second word, and the place of the record
 *     records    chunks, filled one after the other: name, stamp, row
 *
 * A record is dead when no slot leads to it: replaced, forgotten, or driven out of a full bucket. When all
 * chunks are in use, the oldest is compacted where it lies and filled again: what was asked for since it was
 * written stays, up to 7/8 of it, and has to be asked for again to stay the next time. So a put never costs
 * more than a walk through one chunk, and what is kept needs no fixed size.
 */
#include "forebay/recent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "forebay/hash.h"

#define BUCKET_SLOTS 16u
#define BUCKET_BYTES (BUCKET_SLOTS * sizeof(uint32_t))
#define CHUNKS_MIN 8u
#define CHUNK_BYTES_MAX (32u << 10)
/* Of a chunk that is compacted, this share is free afterwards, whatever was used. */
#define FREED_SHARE 8u

/* The index is this share of all memory: half of the slots are free when all records are 68 bytes long. */
#define INDEX_SHARE 10u

/* Of a slot, the upper bits; the lower are 1 + the record's place in units, 0 for a slot that is free. */
#define TAG_SHIFT 24
#define UNIT_BYTES 4u

struct __attribute__((packed, aligned(UNIT_BYTES))) record {
    struct fb_recent_name name;
    uint64_t stamp;
    uint8_t length_bytes; /* of the row; 0 behind the last record of a chunk that has room left */
    bool used;
    uint8_t row[];
};

#define RECORD_BYTES_MIN offsetof(struct record, row)
#define RECORD_BYTES_MAX (RECORD_BYTES_MIN + FB_RECENT_ROW_BYTES_MAX)

_Static_assert(RECORD_BYTES_MIN == 26, "a record of 64 bytes has room for a row of 38");
_Static_assert((FB_RECENT_BYTES_MAX - FB_RECENT_BYTES_MAX / INDEX_SHARE) / UNIT_BYTES < 1u << TAG_SHIFT,
               "every place fits into a slot");
_Static_assert((FB_RECENT_BYTES_MIN - FB_RECENT_BYTES_MIN / INDEX_SHARE) / CHUNKS_MIN - UNIT_BYTES >=
                   FREED_SHARE * (RECORD_BYTES_MAX + UNIT_BYTES),
               "what is freed of the smallest chunk is room for a record");

struct fb_recent {
    uint8_t secret[FB_HASH_SECRET_BYTES];
    uint32_t bucket_count;
    uint32_t chunk_bytes;
    uint32_t chunk_count;
    uint32_t chunks_begun;
    uint32_t chunk; /* the one that is being filled */
    uint32_t end;   /* of what is in it */
    uint32_t count;
    uint32_t next_victim;
    uint32_t *index; /* NULL until something is put; the records lie behind it */
    uint8_t *records;
};

/* ---- slots ---- */

static uint32_t record_bytes(uint32_t length_bytes)
{
    return (uint32_t)(RECORD_BYTES_MIN + length_bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
}

static uint32_t slot_value(const struct fb_recent_name *name, uint32_t place)
{
    return (uint32_t)(name->hi >> 56) << TAG_SHIFT | (place / UNIT_BYTES + 1);
}

static uint32_t *bucket_of(const struct fb_recent *t, const struct fb_recent_name *name)
{
    return t->index + ((name->lo >> 32) * t->bucket_count >> 32) * BUCKET_SLOTS;
}

static struct record *record_at(const struct fb_recent *t, uint32_t place)
{
    return (struct record *)(void *)(t->records + place);
}

static struct record *record_of(const struct fb_recent *t, uint32_t slot)
{
    return record_at(t, ((slot & ((1u << TAG_SHIFT) - 1)) - 1) * UNIT_BYTES);
}

/* The slot that leads to the record of that name, or NULL. */
static uint32_t *find(const struct fb_recent *t, const struct fb_recent_name *name)
{
    if (t->index == NULL)
        return NULL;
    uint32_t *bucket = bucket_of(t, name), tag = (uint32_t)(name->hi >> 56);
    for (uint32_t i = 0; i < BUCKET_SLOTS; i++) {
        if (bucket[i] == 0 || bucket[i] >> TAG_SHIFT != tag)
            continue;
        const struct record *record = record_of(t, bucket[i]);
        if (record->name.lo == name->lo && record->name.hi == name->hi)
            return &bucket[i];
    }
    return NULL;
}

/* The slot that leads to this very record, or NULL: the record is dead. */
static uint32_t *slot_leading_to(const struct fb_recent *t, const struct fb_recent_name *name, uint32_t place)
{
    uint32_t *bucket = bucket_of(t, name), wanted = slot_value(name, place);
    for (uint32_t i = 0; i < BUCKET_SLOTS; i++)
        if (bucket[i] == wanted)
            return &bucket[i];
    return NULL;
}

static void drop(struct fb_recent *t, uint32_t *slot)
{
    *slot = 0;
    t->count--;
}

/* A free slot of the name's bucket; in a full one, what was not asked for gives way, or else one in turn. */
static uint32_t *take_slot(struct fb_recent *t, const struct fb_recent_name *name)
{
    uint32_t *bucket = bucket_of(t, name), *victim = NULL;
    for (uint32_t i = 0; i < BUCKET_SLOTS; i++) {
        if (bucket[i] == 0)
            return &bucket[i];
        if (victim == NULL && !record_of(t, bucket[i])->used)
            victim = &bucket[i];
    }
    if (victim == NULL)
        victim = &bucket[t->next_victim++ % BUCKET_SLOTS];
    drop(t, victim);
    return victim;
}

/* ---- chunks ---- */

/* Drops the records of a chunk but those that were used, which move to its beginning. Returns where they end.
 */
static uint32_t compact(struct fb_recent *t, uint32_t base)
{
    uint32_t kept = base, place = base, limit = base + t->chunk_bytes;
    uint32_t kept_limit = limit - t->chunk_bytes / FREED_SHARE;
    while (place + RECORD_BYTES_MIN <= limit && record_at(t, place)->length_bytes != 0) {
        struct record *record = record_at(t, place);
        uint32_t size = record_bytes(record->length_bytes);
        struct fb_recent_name name = record->name;
        uint32_t *slot = slot_leading_to(t, &name, place);
        if (slot != NULL && record->used && kept + size <= kept_limit) {
            record->used = false;
            memmove(t->records + kept, record, size);
            *slot = slot_value(&name, kept);
            kept += size;
        } else if (slot != NULL) {
            drop(t, slot);
        }
        place += size;
    }
    return kept;
}

/* Go on to the next chunk, never used or the oldest. */
static void next_chunk(struct fb_recent *t)
{
    if (t->chunks_begun > 0) {
        uint32_t limit = (t->chunk + 1) * t->chunk_bytes;
        if (t->end + RECORD_BYTES_MIN <= limit)
            record_at(t, t->end)->length_bytes = 0;
        t->chunk = (t->chunk + 1) % t->chunk_count;
    }
    uint32_t base = t->chunk * t->chunk_bytes;
    if (t->chunk < t->chunks_begun) {
        t->end = compact(t, base);
    } else {
        t->end = base;
        t->chunks_begun++;
    }
}

static size_t index_bytes(const struct fb_recent *t)
{
    return t->bucket_count * BUCKET_BYTES;
}

static size_t mapped_bytes(const struct fb_recent *t)
{
    return index_bytes(t) + (size_t)t->chunk_count * t->chunk_bytes;
}

static int map(struct fb_recent *t)
{
    void *memory = mmap(NULL, mapped_bytes(t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    t->index = memory;
    t->records = (uint8_t *)memory + index_bytes(t);
    return 0;
}

/* ---- public ---- */

int fb_recent_open(uint64_t bytes_max, struct fb_recent **out)
{
    if (bytes_max < FB_RECENT_BYTES_MIN || bytes_max > FB_RECENT_BYTES_MAX)
        return -EINVAL;
    struct fb_recent *t = calloc(1, sizeof *t);
    if (t == NULL)
        return -ENOMEM;
    if (getrandom(t->secret, sizeof t->secret, 0) != (ssize_t)sizeof t->secret) {
        int code = -errno;
        free(t);
        return code;
    }
    t->bucket_count = (uint32_t)(bytes_max / INDEX_SHARE / BUCKET_BYTES);
    uint64_t room_bytes = bytes_max - index_bytes(t), chunk_bytes = room_bytes / CHUNKS_MIN;
    if (chunk_bytes > CHUNK_BYTES_MAX)
        chunk_bytes = CHUNK_BYTES_MAX;
    t->chunk_bytes = (uint32_t)chunk_bytes / UNIT_BYTES * UNIT_BYTES;
    t->chunk_count = (uint32_t)(room_bytes / t->chunk_bytes);
    *out = t;
    return 0;
}

void fb_recent_close(struct fb_recent *t)
{
    fb_recent_clear(t);
    free(t);
}

struct fb_recent_name fb_recent_name_of(const struct fb_recent *t, const void *path, size_t length_bytes,
                                        uint32_t width_bytes)
{
    uint64_t words[2];
    fb_siphash13_128(t->secret, path, length_bytes, words);
    return (struct fb_recent_name){.lo = words[0], .hi = words[1] ^ width_bytes};
}

int fb_recent_put(struct fb_recent *t, const struct fb_recent_name *name, uint64_t stamp, const void *bytes,
                  uint32_t length_bytes)
{
    if (t->index == NULL && map(t) != 0)
        return -ENOMEM;
    uint32_t *slot = find(t, name);
    if (slot != NULL && record_of(t, *slot)->length_bytes != length_bytes) {
        drop(t, slot);
        slot = NULL;
    }
    if (slot == NULL) {
        uint32_t size = record_bytes(length_bytes);
        if (t->chunks_begun == 0 || t->end + size > (t->chunk + 1) * t->chunk_bytes)
            next_chunk(t);
        slot = take_slot(t, name);
        *slot = slot_value(name, t->end);
        t->count++;
        struct record *record = record_at(t, t->end);
        record->name = *name;
        record->length_bytes = (uint8_t)length_bytes;
        record->used = false;
        t->end += size;
    }
    struct record *record = record_of(t, *slot);
    record->stamp = stamp;
    memcpy(record->row, bytes, length_bytes);
    return 0;
}

bool fb_recent_get(struct fb_recent *t, const struct fb_recent_name *name, struct fb_recent_row *row)
{
    const uint32_t *slot = find(t, name);
    if (slot == NULL)
        return false;
    struct record *record = record_of(t, *slot);
    if (!record->used) /* written once: after a fork a page that is written is copied */
        record->used = true;
    row->stamp = record->stamp;
    row->length_bytes = record->length_bytes;
    memcpy(row->bytes, record->row, record->length_bytes);
    return true;
}

void fb_recent_forget(struct fb_recent *t, const struct fb_recent_name *name)
{
    uint32_t *slot = find(t, name);
    if (slot != NULL)
        drop(t, slot);
}

void fb_recent_clear(struct fb_recent *t)
{
    if (t->index == NULL)
        return;
    munmap(t->index, mapped_bytes(t));
    t->index = NULL;
    t->records = NULL;
    t->chunks_begun = t->chunk = t->end = t->count = 0;
}

uint32_t fb_recent_count(const struct fb_recent *t)
{
    return t->count;
}

uint64_t fb_recent_bytes(const struct fb_recent *t)
{
    return t->index == NULL ? 0 : index_bytes(t) + (uint64_t)t->chunks_begun * t->chunk_bytes;
}
