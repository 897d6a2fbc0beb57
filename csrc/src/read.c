#include "read.h"

#include <time.h>

#include "account.h"
#include "clock.h"
#include "failpoint.h"
#include "ghost.h"
#include "health.h"
#include "retention.h"
#include "rows.h"
#include "write.h"

#define READ_TRIES 16
#define PAGE_BYTES 4096u
#define BUSY_TRIES 20
#define BUSY_STEP_NS 100000 /* 2 ms in all */

/* The reader and the cleaner, numbered; they meet at the page's sequence word and the row's lease:
 *
 *   reader                                     cleaner (fb_segment_retire)
 *   R1 read sequence, slot                     C1 state = RETIRING
 *   R2 lease += 1   (sequentially consistent)  C2 per slot, under the page's lock: sequence odd, slot
 *   R3 sequence as in R1?  no: undo, again        empty, sequence even
 *   R4 use the bytes                           C3 full fence
 *   R5 lease -= 1                              C4 all leases of live rows zero?  no: HELD, look again later
 *                                              C5 generation + 1, bytes are written anew
 *
 * R2 before R3 and C2 before C4 in one total order: either R3 sees C2 and the reader goes back, or C4
 * sees R2 and the cleaner waits. tests/csrc/model_lease.c walks through every interleaving.
 */

/* One look-up, one cause: where the object has changed, that is it, whatever became of its new key. */
static int miss(fb_store *s, struct fb_asker asker, enum fb_counter cause)
{
    if (!asker.quiet)
        fb_count_in(s, fb_account_of_id(s, asker.dataset, true), asker.changed ? FB_C_MISS_CHANGED : cause,
                    1);
    return -ENOENT;
}

static bool out_of_bounds(fb_store *s, const struct fb_found *found)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    if (segment >= s->segment_count)
        return true;
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint64_t offset = (uint64_t)FB_PLACE_UNIT(found->place) << g.unit_shift;
    return offset < g.data_begin || offset + FB_EXTENT_LENGTH(found->extent) > g.file_bytes;
}

void fb_block_drop(fb_store *s, const struct fb_key *key, uint64_t place)
{
    if (!s->has_row)
        return;
    fb_unpublish(s, key, place);
}

static bool sums_agree(fb_store *s, uint32_t segment, const struct fb_record *record, const uint8_t *data)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint32_t chunks = fb_chunk_count(record->length);
    if (chunks <= 1)
        return fb_crc32c(0, data, record->length) == record->crc;
    uint64_t offset = (uint64_t)record->unit << g.unit_shift;
    uint32_t *sums = fb_pool_take(s, chunks * 8ull);
    if (sums == NULL)
        return false;
    bool good = fb_segment_pread(s, segment, sums, chunks * 4,
                                 fb_chunk_sums_offset(&g, offset, record->length)) == 0 &&
                fb_crc32c(0, sums, chunks * 4) == record->crc;
    if (good) {
        fb_crc32c_chunks(data, record->length, FB_CHUNK_BYTES, sums + chunks);
        good = memcmp(sums, sums + chunks, chunks * 4) == 0;
    }
    fb_pool_give(s, sums);
    return good;
}

static bool is_what_was_put(fb_store *s, const struct fb_found *found, const struct fb_key *key,
                            const uint8_t *data)
{
    struct fb_record record;
    if (fb_record_of_place(s, found->place, key->lo, key->check, &record) == FB_NO_SEGMENT)
        return false;
    return record.hi == key->hi && record.length == FB_EXTENT_LENGTH(found->extent) &&
           (record.state == FB_RECORD_COMMITTED || record.state == FB_RECORD_PINNED) &&
           sums_agree(s, FB_PLACE_SEGMENT(found->place), &record, data);
}

int fb_block_verify(fb_store *s, const struct fb_found *found, const struct fb_key *key, const uint8_t *data)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    /* Held meanwhile, so that what fails from here on says something of the file. */
    int fd = fb_descriptor_get(s, segment);
    if (fd < 0)
        return fb_error_is_own(-fd) ? fd : -EBADMSG;
    bool good = is_what_was_put(s, found, key, data);
    fb_descriptor_put(s, segment, fd);
    return good ? 0 : -EBADMSG;
}

/* A file cut short or a bad sector: this block is gone, the next source has it. A process out of
 * descriptors or memory misses, and the block stays for others. */
static int unreadable(fb_store *s, const struct fb_key *key, struct fb_asker asker,
                      const struct fb_found *found, int error)
{
    if (!fb_error_is_own(-error))
        fb_block_drop(s, key, found->place);
    return miss(s, asker, FB_C_MISS_IO);
}

void fb_block_mark_verified(fb_store *s, const struct fb_key *key, const struct fb_found *found)
{
    uint32_t verified = atomic_load(&s->shared->verify_generation);
    uint64_t place = (found->place & ~((uint64_t)0xff << 4)) | (uint64_t)verified << 4;
    if (s->has_row)
        fb_index_mark(s, key->lo, key->check, found->place, place);
}

static bool needs_verifying(fb_store *s, uint64_t place)
{
    if (s->config.checksum == FB_CHECKSUM_LOAD)
        return FB_PLACE_VERIFIED(place) !=
               atomic_load_explicit(&s->shared->verify_generation, memory_order_relaxed);
    return s->config.checksum == FB_CHECKSUM_READ;
}

/* A hole in the file reads as zeros. What has zeros at the start of a page is looked at once more, even
 * if it was seen good before. */
static bool may_be_punched(fb_store *s, const struct fb_found *found, const uint8_t *data, uint64_t from,
                           uint64_t length_bytes)
{
    struct fb_geometry g = fb_geometry_of(s, FB_PLACE_SEGMENT(found->place));
    uint64_t begin = ((uint64_t)FB_PLACE_UNIT(found->place) << g.unit_shift) + from, next;
    if (s->config.checksum == FB_CHECKSUM_NONE)
        return false;
    for (uint64_t at = 0; at < length_bytes; at += next) {
        next = PAGE_BYTES - (begin + at) % PAGE_BYTES;
        uint64_t looked_at = length_bytes - at < sizeof(uint64_t) ? length_bytes - at : sizeof(uint64_t),
                 word = 0;
        memcpy(&word, data + at, looked_at < next ? looked_at : next);
        if (word == 0)
            return true;
    }
    return false;
}

static void count_hit(fb_store *s, uint32_t segment, uint64_t length_bytes)
{
    uint32_t account = fb_account_of(fb_dataset_of(s, segment)), medium = fb_tier_of(s, segment)->medium;
    fb_count_in(s, account, FB_C_HIT_MEM + medium, 1);
    fb_count_in(s, account, FB_C_HIT_BYTES_MEM + medium, length_bytes);
}

static void count_quick_hit(fb_store *s, uint32_t segment, uint64_t length_bytes)
{
    struct fb_quick *quick = &s->quick[fb_account_of(fb_dataset_of(s, segment))];
    uint32_t medium = fb_tier_of(s, segment)->medium;
    fb_count_alone(quick, FB_C_HIT_MEM + medium, 1);
    fb_count_alone(quick, FB_C_HIT_BYTES_MEM + medium, length_bytes);
}

/* What the hit tells retention. Words are written only when they change. */
static void touch(fb_store *s, const struct fb_key *key, const struct fb_found *found)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    if (fb_unlikely(s->read_only))
        return;
    struct fb_dataset *d = fb_dataset_is_read(s, segment);
    if (fb_likely(atomic_load_explicit(&d->retention, memory_order_relaxed) == FB_EPOCH))
        return;
    fb_retention_touch(s, key, found, atomic_load_explicit(&d->retention, memory_order_relaxed));
}

static int missing(fb_store *s, const struct fb_key *key, struct fb_asker asker)
{
    if (fb_ghost_has(s, s->evicted_ghosts, key->check))
        return miss(s, asker, FB_C_MISS_EVICTED);
    bool refused = fb_ghost_has(s, s->refused_ghosts, key->check);
    return miss(s, asker, refused ? FB_C_MISS_NOT_ADMITTED : FB_C_MISS_COLD);
}

/* A writer is in the page and does not leave it. If it died, mend the page; if it lost its processor for
 * a moment, sleep a little; if it is stopped, it is not waited for. */
static int find_in_busy_page(fb_store *s, const struct fb_key *key, struct fb_found *found)
{
    const struct timespec step = {.tv_nsec = BUSY_STEP_NS};
    int r = -EBUSY;
    for (int tries = 0; r == -EBUSY && tries < BUSY_TRIES; tries++) {
        uint32_t page = atomic_load(&s->directory[fb_index_entry(s, key->lo)]);
        if (!fb_page_exists(s, page))
            return -ENOENT;
        if (!s->has_row || !fb_owner_is_dead(s, atomic_load(&s->metas[page].lock)))
            nanosleep(&step, NULL);
        else if (fb_index_try_lock(s, key->lo, &page) == 0)
            fb_index_unlock(s, page);
        r = fb_index_find(s, key, found);
    }
    return r;
}

int fb_block_find(fb_store *s, const struct fb_key *key, struct fb_found *found)
{
    int r = fb_index_find(s, key, found);
    return fb_likely(r != -EBUSY) ? r : find_in_busy_page(s, key, found);
}

/* Find a live slot. 0, -ENOENT (counted), and with `quick` -EAGAIN where it would have to wait. */
static inline __attribute__((always_inline)) int
find(fb_store *s, const struct fb_key *key, struct fb_asker asker, bool quick, struct fb_found *found)
{
    int r = fb_index_find(s, key, found);
    if (fb_unlikely(r == -EBUSY) && quick)
        return -EAGAIN;
    if (fb_unlikely(r == -EBUSY))
        r = find_in_busy_page(s, key, found);
    if (fb_unlikely(r == -EBUSY))
        return miss(s, asker, FB_C_MISS_BUSY);
    if (r != 0)
        return missing(s, key, asker);
    if (fb_unlikely(FB_PLACE_FLAGS(found->place) & FB_SLOT_WHOLE))
        return missing(s, key, asker);
    if (fb_unlikely(out_of_bounds(s, found))) {
        fb_block_drop(s, key, found->place);
        return miss(s, asker, FB_C_MISS_CHECKSUM);
    }
    uint32_t expiry = FB_EXTENT_EXPIRY(found->extent);
    if (fb_unlikely(expiry != 0) && fb_now_s(s) >= expiry)
        return miss(s, asker, FB_C_MISS_EXPIRED);
    if (fb_unlikely(fb_tier_failed(s, s->segment_tier[FB_PLACE_SEGMENT(found->place)])))
        return miss(s, asker, FB_C_MISS_IO);
    return 0;
}

/* R2 and R3. */
static bool lease(fb_store *s, const struct fb_found *found)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    atomic_fetch_add_explicit(&s->row_leases[segment], 1, memory_order_seq_cst);
    if (fb_likely(atomic_load_explicit(&s->metas[found->page].sequence, memory_order_seq_cst) ==
                  found->sequence))
        return true;
    atomic_fetch_sub_explicit(&s->row_leases[segment], 1, memory_order_seq_cst);
    return false;
}

static void unlease(fb_store *s, uint32_t segment)
{
    atomic_fetch_sub_explicit(&s->row_leases[segment], 1, memory_order_seq_cst);
}

/* Bytes through the descriptor. Without a lease they are good only if, after the copy, the slot still
 * names them and the segment is of the same generation. */
static int copy_out(fb_store *s, const struct fb_key *key, const struct fb_found *found, uint32_t generation,
                    bool leased, void *destination, uint64_t from, uint64_t length_bytes)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint64_t offset = ((uint64_t)FB_PLACE_UNIT(found->place) << g.unit_shift) + from;
    int r = fb_segment_pread(s, segment, destination, length_bytes, offset);
    if (r != 0)
        fb_tier_fault(s, s->segment_tier[segment], -r);
    if (leased)
        return r;
    fb_fence(); /* the look comes after the copy */
    struct fb_found again;
    if (fb_index_find(s, key, &again) != 0 ||
        FB_PLACE_LOCATION(again.place) != FB_PLACE_LOCATION(found->place) ||
        atomic_load(&s->segments[segment].generation) != generation)
        return -EAGAIN;
    return r;
}

/* A private copy of the whole block. 0, -EAGAIN (look again), -ENOENT (counted). */
static int get_copy(fb_store *s, const struct fb_key *key, struct fb_asker asker,
                    const struct fb_found *found, uint32_t generation, bool leased, struct fb_hit *hit)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    uint32_t length = FB_EXTENT_LENGTH(found->extent);
    void *buffer = fb_pool_take(s, length ? length : 1);
    if (buffer == NULL)
        return miss(s, asker, FB_C_MISS_BUSY);
    int r = copy_out(s, key, found, generation, leased, buffer, 0, length);
    bool verify = r == 0 && (needs_verifying(s, found->place) || may_be_punched(s, found, buffer, 0, length));
    int verdict = verify ? fb_block_verify(s, found, key, buffer) : 0;
    if (verdict == -EBADMSG) {
        struct fb_found again;
        bool same = fb_index_find(s, key, &again) == 0 &&
                    FB_PLACE_LOCATION(again.place) == FB_PLACE_LOCATION(found->place);
        if (same && (leased || atomic_load(&s->segments[segment].generation) == generation)) {
            fb_block_drop(s, key, found->place);
            r = miss(s, asker, FB_C_MISS_CHECKSUM);
        } else {
            r = -EAGAIN;
        }
    } else if (verdict != 0) {
        r = unreadable(s, key, asker, found, verdict);
    } else if (verify) {
        fb_block_mark_verified(s, key, found);
    } else if (r != 0 && r != -EAGAIN) {
        r = unreadable(s, key, asker, found, r);
    }
    if (r != 0) {
        fb_pool_give(s, buffer);
        return r;
    }
    *hit = (struct fb_hit){.data = buffer, .length_bytes = length, .owned = buffer, .segment = segment};
    return 0;
}

/* Everything that is not the plain hit: verification, private copies, files that are not there. */
static int get_slowly(fb_store *s, const struct fb_key *key, struct fb_asker asker,
                      const struct fb_found *found, struct fb_hit *hit)
{
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    uint32_t generation = atomic_load(&s->segments[segment].generation);
    if (!s->has_row)
        return get_copy(s, key, asker, found, generation, false, hit);
    if (!lease(s, found))
        return -EAGAIN;
    bool copy = !fb_segment_maps(s, segment) || fb_holds_too_much(s);
    const uint8_t *base = copy ? NULL : fb_map_base(s, segment);
    if (base == NULL) {
        if (fb_segment_maps(s, segment))
            fb_count_of(s, segment, FB_C_PRIVATE_COPIES, 1);
        int r = get_copy(s, key, asker, found, generation, true, hit);
        unlease(s, segment);
        return r;
    }
    struct fb_geometry g = fb_geometry_of(s, segment);
    const uint8_t *data = base + ((uint64_t)FB_PLACE_UNIT(found->place) << g.unit_shift);
    if (needs_verifying(s, found->place)) {
        int verdict = fb_block_verify(s, found, key, data);
        if (verdict == -EBADMSG) {
            struct fb_found again;
            bool same = fb_index_find(s, key, &again) == 0 &&
                        FB_PLACE_LOCATION(again.place) == FB_PLACE_LOCATION(found->place);
            if (same)
                fb_block_drop(s, key, found->place);
            unlease(s, segment);
            /* What was moved, replaced or deleted meanwhile is not bad. */
            return same ? miss(s, asker, FB_C_MISS_CHECKSUM) : -EAGAIN;
        }
        if (verdict != 0) {
            unlease(s, segment);
            return unreadable(s, key, asker, found, verdict);
        }
        fb_block_mark_verified(s, key, found);
    }
    *hit = (struct fb_hit){.data = data, .length_bytes = FB_EXTENT_LENGTH(found->extent), .segment = segment};
    return 0;
}

int fb_get(fb_store *s, const struct fb_key *key, struct fb_asker asker, bool quick, struct fb_hit *hit)
{
    for (int tries = 0; tries < READ_TRIES; tries++) {
        struct fb_found found;
        int r = find(s, key, asker, quick, &found);
        if (r != 0)
            return r;
        uint32_t segment = FB_PLACE_SEGMENT(found.place);
        if (fb_likely(s->has_row && fb_segment_maps(s, segment) && !needs_verifying(s, found.place) &&
                      !fb_holds_too_much(s))) {
            if (!lease(s, &found))
                continue;
            FB_POINT("get.leased");
            const uint8_t *base = fb_map_current(s, segment);
            if (fb_likely(base != NULL)) {
                uint32_t shift = fb_segment_is_whole(s, segment) ? FB_WHOLE_UNIT_SHIFT : FB_UNIT_SHIFT;
                hit->data = base + ((uint64_t)FB_PLACE_UNIT(found.place) << shift);
                hit->length_bytes = FB_EXTENT_LENGTH(found.extent);
                hit->owned = NULL;
                hit->segment = segment;
                if (quick)
                    count_quick_hit(s, segment, hit->length_bytes);
                else
                    count_hit(s, segment, hit->length_bytes);
                touch(s, key, &found);
                return 0;
            }
            unlease(s, segment);
        }
        if (quick)
            return -EAGAIN;
        r = get_slowly(s, key, asker, &found, hit);
        if (r == -EAGAIN)
            continue;
        if (r == 0) {
            count_hit(s, segment, hit->length_bytes);
            touch(s, key, &found);
        }
        return r;
    }
    return miss(s, asker, FB_C_MISS_BUSY);
}

/* A part of a disk block, without reading the rest of it. -EAGAIN: do it the general way. */
static int read_part(fb_store *s, const struct fb_key *key, struct fb_asker asker, uint64_t offset,
                     void *destination, uint64_t length_bytes, uint64_t *copied)
{
    struct fb_found found;
    int r = find(s, key, asker, false, &found);
    if (r != 0)
        return r;
    uint32_t segment = FB_PLACE_SEGMENT(found.place);
    uint64_t length = FB_EXTENT_LENGTH(found.extent);
    if (!s->has_row || fb_segment_maps(s, segment) || needs_verifying(s, found.place) || !lease(s, &found))
        return -EAGAIN;
    uint64_t n = offset >= length ? 0 : length - offset < length_bytes ? length - offset : length_bytes;
    r = copy_out(s, key, &found, 0, true, destination, offset, n);
    unlease(s, segment);
    if (r != 0)
        return unreadable(s, key, asker, &found, r);
    if (may_be_punched(s, &found, destination, offset, n))
        return -EAGAIN;
    count_hit(s, segment, n);
    touch(s, key, &found);
    *copied = n;
    return 0;
}

int fb_read(fb_store *s, const struct fb_key *key, struct fb_asker asker, uint64_t offset, void *destination,
            uint64_t length_bytes, uint64_t *copied)
{
    struct fb_hit hit;
    int r = read_part(s, key, asker, offset, destination, length_bytes, copied);
    if (r != -EAGAIN)
        return r;
    r = fb_get(s, key, asker, false, &hit);
    if (r != 0)
        return r;
    uint64_t length = hit.length_bytes;
    uint64_t n = offset >= length ? 0 : length - offset < length_bytes ? length - offset : length_bytes;
    memcpy(destination, hit.data + (n ? offset : 0), n);
    fb_release(s, &hit);
    *copied = n;
    return 0;
}

static bool would_hit(fb_store *s, const struct fb_found *found)
{
    uint32_t expiry = FB_EXTENT_EXPIRY(found->extent);
    return !out_of_bounds(s, found) && !(expiry != 0 && fb_now_s(s) >= expiry) &&
           !(FB_PLACE_FLAGS(found->place) & FB_SLOT_WHOLE) &&
           !fb_tier_failed(s, s->segment_tier[FB_PLACE_SEGMENT(found->place)]);
}

bool fb_contains(fb_store *s, const struct fb_key *key)
{
    struct fb_found found;
    return fb_block_find(s, key, &found) == 0 && would_hit(s, &found);
}

int fb_contains_at_once(fb_store *s, const struct fb_key *key)
{
    struct fb_found found;
    int r = fb_index_find(s, key, &found);
    return r == -EBUSY ? -EAGAIN : r == 0 && would_hit(s, &found);
}

void fb_release(fb_store *s, struct fb_hit *hit)
{
    if (hit->owned != NULL)
        fb_pool_give(s, hit->owned);
    else if (s->row_leases != NULL) /* without a row of our own: lent at the fork */
        unlease(s, hit->segment);
}

void fb_hold(fb_store *s, uint32_t segment)
{
    s->held[segment]++;
}

void fb_unhold(fb_store *s, uint32_t segment)
{
    s->held[segment]--;
}
