/* Whole-file segments: data from offset 0 at the file's own offsets, checksums and record table behind. */
#include "account.h"
#include "evict.h"
#include "failpoint.h"
#include "health.h"
#include "index.h"
#include "maintain.h"
#include "pin.h"
#include "quota.h"
#include "read.h"
#include "retention.h"
#include "rows.h"
#include "segment.h"
#include "write.h"

#define WHOLE_QUOTA_SHARE 16u /* of the tier's quota at most */

/* Whether the tier, with so much more, stays below its high watermark. */
static bool is_within(fb_store *s, uint32_t tier, uint64_t more_bytes)
{
    struct fb_usage u;
    fb_tier_usage(s, tier, &u);
    return u.used_bytes + more_bytes <=
           fb_tier_effective(s, tier) / 1000 * s->super->tiers[tier].high_permille;
}

static bool fits(fb_store *s, uint32_t tier, uint64_t size_bytes, uint64_t file_bytes)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    if (size_bytes < t->segment_bytes || file_bytes > t->quota_bytes / WHOLE_QUOTA_SHARE ||
        fb_tier_failed(s, tier))
        return false;
    return is_within(s, tier, file_bytes) && fb_tier_has_room(s, tier, file_bytes);
}

/* Recycled files make way: their space is in the same quota. */
static void trade_free_files(fb_store *s, uint32_t tier, uint64_t file_bytes)
{
    struct fb_usage u;
    fb_tier_usage(s, tier, &u);
    while (u.file_bytes + file_bytes > fb_tier_effective(s, tier) && u.free_first != FB_NO_SEGMENT) {
        if (!fb_segment_take(s, u.free_first, FB_FREE))
            return;
        fb_segfile_remove(s, u.free_first);
        fb_segment_turn(s, u.free_first, FB_CREATING, FB_ABSENT);
        fb_segment_disown(s, u.free_first);
        fb_tier_usage(s, tier, &u);
    }
}

static int write_super(fb_store *s, uint32_t segment, uint32_t whole_sum)
{
    uint32_t dataset = atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX;
    return fb_segfile_write_super(s, segment, (uint32_t)(atomic_load(&s->datasets[dataset].id_plus_1) - 1),
                                  whole_sum);
}

/* Its size is known before it is taken, for from then on it counts. */
static uint32_t take_number(fb_store *s, uint32_t tier, uint64_t size_bytes, uint32_t block_bytes)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    for (uint32_t i = 0; i < t->whole_count; i++) {
        uint32_t segment = t->whole_base + i;
        if (fb_segment_state_of(s, segment) != FB_ABSENT || !fb_segment_own(s, segment))
            continue;
        if (fb_segment_state_of(s, segment) == FB_ABSENT) {
            atomic_store(&s->segments[segment].whole_bytes, size_bytes);
            atomic_store(&s->segments[segment].whole_block_bytes, block_bytes);
        }
        if (fb_segment_turn(s, segment, FB_ABSENT, FB_CREATING))
            return segment;
        fb_segment_disown(s, segment);
    }
    return FB_NO_SEGMENT;
}

static int begin_in(fb_store *s, uint32_t tier, const struct fb_key *key, uint32_t dataset,
                    uint64_t size_bytes, uint32_t block_bytes, uint32_t *out)
{
    uint64_t file_bytes = fb_whole_file_bytes(size_bytes, block_bytes);
    if (!fits(s, tier, size_bytes, file_bytes))
        return -ENOSPC;
    trade_free_files(s, tier, file_bytes);
    uint32_t segment = take_number(s, tier, size_bytes, block_bytes);
    if (segment == FB_NO_SEGMENT)
        return -ENOSPC;
    /* Once more: others may have taken room at the same moment. */
    if (!is_within(s, tier, 0)) {
        fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
        fb_segment_disown(s, segment);
        return -ENOSPC;
    }
    struct fb_segment *seg = &s->segments[segment];
    atomic_store(&seg->whole_lo, key->lo);
    atomic_store(&seg->whole_check, key->check);
    atomic_store(&seg->dataset, dataset);
    atomic_store(&seg->flags, 0);
    int r = fb_segfile_create(s, segment);
    fb_segment_renew(s, segment, FB_CREATING);
    if (r == 0)
        r = write_super(s, segment, 0);
    if (r != 0) {
        fb_tier_fault(s, tier, -r);
        fb_segfile_remove(s, segment);
        fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
        fb_segment_disown(s, segment);
        return -ENOSPC;
    }
    FB_POINT("whole.created");
    fb_segment_turn(s, segment, FB_CREATING, FB_OPEN);
    *out = segment;
    return 0;
}

/* In the tiers of a medium, or in all others. */
static int begin_in_tiers(fb_store *s, uint32_t medium, bool preferred, const struct fb_key *key,
                          uint32_t dataset, uint64_t size_bytes, uint32_t block_bytes, uint32_t *out)
{
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++)
        if ((s->super->tiers[tier].medium == medium) == preferred &&
            begin_in(s, tier, key, dataset, size_bytes, block_bytes, out) == 0)
            return 0;
    return -ENOSPC;
}

int fb_whole_begin(fb_store *s, const struct fb_key *key, const struct fb_terms *terms, uint64_t size_bytes,
                   uint32_t block_bytes, struct fb_whole *out)
{
    bool power_of_two = (block_bytes & (block_bytes - 1)) == 0;
    if (block_bytes < FB_CHUNK_BYTES || block_bytes > FB_BLOCK_BYTES_MAX || !power_of_two || size_bytes == 0)
        return -EINVAL;
    uint32_t segment, dataset = s->has_row ? fb_dataset_slot(s, terms->dataset, true) : FB_DATASETS_MAX;
    if (dataset == FB_DATASETS_MAX || size_bytes >> FB_WHOLE_UNIT_SHIFT >= 1u << 22 ||
        !fb_quota_allows(s, &s->datasets[dataset], size_bytes))
        return -ENOSPC;
    fb_maintainer_start(s);
    if (begin_in_tiers(s, terms->medium, true, key, dataset, size_bytes, block_bytes, &segment) != 0 &&
        begin_in_tiers(s, terms->medium, false, key, dataset, size_bytes, block_bytes, &segment) != 0)
        return -ENOSPC;
    bool pinned = terms->pinned && fb_pin_try(s, s->segment_tier[segment], size_bytes);
    *out = (struct fb_whole){.segment = segment,
                             .generation = atomic_load(&s->segments[segment].generation),
                             .owner = s->me,
                             .block_bytes = block_bytes,
                             .size_bytes = size_bytes,
                             .key = *key,
                             .pinned = pinned,
                             .claimed_bytes = pinned ? size_bytes : 0};
    return 0;
}

static bool is_filling(fb_store *s, const struct fb_whole *whole)
{
    struct fb_segment *seg = &s->segments[whole->segment];
    return whole->owner == s->me && atomic_load(&seg->owner) == s->me &&
           atomic_load(&seg->generation) == whole->generation &&
           fb_segment_state_of(s, whole->segment) == FB_OPEN;
}

/* Record numbers are block numbers; the word's count is the highest written + 1. */
static void raise_records(fb_store *s, uint32_t segment, uint32_t records)
{
    _Atomic uint64_t *word = &s->segments[segment].word;
    uint64_t seen = atomic_load(word);
    while (FB_WORD_RECORDS(seen) < records &&
           !atomic_compare_exchange_weak(word, &seen,
                                         FB_WORD(FB_WORD_STATE(seen), FB_WORD_GENERATION(seen), records, 0)))
        ;
}

struct filling {
    const struct fb_whole *whole;
    uint64_t place, length_bytes;
    bool there; /* written already: nothing is published, and nothing buried */
};

static bool still_filling(fb_store *s, void *context, uint64_t old_place)
{
    struct filling *filling = context;
    filling->there = FB_PLACE_LOCATION(old_place) == FB_PLACE_LOCATION(filling->place);
    if (filling->there || !is_filling(s, filling->whole) ||
        !fb_quota_allows(s, fb_dataset_of(s, filling->whole->segment), filling->length_bytes))
        return false;
    fb_hold_old(s, old_place);
    return true;
}

/* A block's key names its content: one that is there, perhaps under somebody's view, is not written again. */
static bool is_written(fb_store *s, const struct fb_key *key, uint64_t place)
{
    struct fb_found found;
    return fb_index_find(s, key, &found) == 0 && FB_PLACE_LOCATION(found.place) == FB_PLACE_LOCATION(place);
}

/* A block that was written under another key: its slot leads here, and the table can name only one. */
static bool is_anothers(fb_store *s, const struct fb_whole *whole, uint32_t block, const struct fb_key *key)
{
    struct fb_record record;
    return block < FB_WORD_RECORDS(atomic_load(&s->segments[whole->segment].word)) &&
           fb_record_read(s, whole->segment, block, &record) == 0 && record.state != FB_RECORD_DEAD &&
           (record.lo != key->lo || record.check != key->check);
}

/* A block that was deleted and is written again finds its part of the claim used. */
static void use_claim(fb_store *s, struct fb_whole *whole, uint64_t length_bytes)
{
    uint32_t tier = s->segment_tier[whole->segment];
    uint64_t left = atomic_load(&whole->claimed_bytes);
    while (left >= length_bytes &&
           !atomic_compare_exchange_weak(&whole->claimed_bytes, &left, left - length_bytes))
        ;
    if (left >= length_bytes)
        fb_pin_settle(s, tier, length_bytes, true);
    else
        fb_pin_add(s, tier, length_bytes);
}

/* Of blocks that will not be written any more; and the parent's is not the child's to give back. */
static void give_claim_back(fb_store *s, struct fb_whole *whole)
{
    uint64_t left = atomic_exchange(&whole->claimed_bytes, 0);
    if (left != 0 && whole->owner == s->me)
        fb_pin_settle(s, s->segment_tier[whole->segment], left, false);
}

static struct fb_space space_of(const struct fb_whole *whole, const struct fb_whole_block *block)
{
    uint64_t offset = block->number * whole->block_bytes;
    return (struct fb_space){.segment = whole->segment,
                             .record = (uint32_t)block->number,
                             .unit = (uint32_t)(offset >> FB_WHOLE_UNIT_SHIFT),
                             .generation = whole->generation,
                             .offset = offset,
                             .length_bytes = block->length_bytes};
}

int fb_whole_block_begin(fb_store *s, const struct fb_whole *whole, uint64_t number, const struct fb_key *key,
                         struct fb_whole_block *out)
{
    if (number > whole->size_bytes / whole->block_bytes || number * whole->block_bytes >= whole->size_bytes)
        return -EINVAL;
    if (!is_filling(s, whole))
        return -ENOSPC;
    uint64_t left = whole->size_bytes - number * whole->block_bytes;
    out->number = number;
    out->length_bytes = left < whole->block_bytes ? left : whole->block_bytes;
    out->done_bytes = 0;
    out->key = *key;
    struct fb_space space = space_of(whole, out);
    if (is_written(s, key, fb_space_place(&space, 0, 0)))
        return -EALREADY;
    return is_anothers(s, whole, (uint32_t)number, key) ? -EINVAL : 0;
}

static int count_block(fb_store *s, const struct fb_whole *whole, const struct fb_whole_block *block, int r)
{
    uint32_t account = fb_account_of(fb_dataset_of(s, whole->segment));
    return fb_count_put(s, account, &block->key, r, block->length_bytes);
}

int fb_whole_block_append(fb_store *s, const struct fb_whole *whole, struct fb_whole_block *block,
                          const void *data, uint64_t length_bytes)
{
    if (length_bytes > block->length_bytes - block->done_bytes)
        return -EINVAL;
    if (!is_filling(s, whole))
        return -ENOSPC;
    struct fb_space space = space_of(whole, block);
    if (fb_space_append(s, &space, block->done_bytes, data, length_bytes, block->sums) != 0)
        return count_block(s, whole, block, -ENOSPC);
    block->done_bytes += length_bytes;
    return 0;
}

static int publish_block(fb_store *s, struct fb_whole *whole, const struct fb_whole_block *block)
{
    struct fb_space space = space_of(whole, block);
    uint32_t crc;
    uint64_t old;
    uint32_t flags = whole->pinned ? FB_SLOT_PINNED : 0,
             verified = atomic_load(&s->shared->verify_generation);
    struct filling filling = {whole, fb_space_place(&space, flags, verified), block->length_bytes, false};
    int r = fb_space_end_append(s, &space, block->sums, &crc);
    FB_POINT("whole.written");
    if (r == 0)
        r = fb_space_commit(s, &space, &block->key, crc, 0,
                            whole->pinned ? FB_RECORD_PINNED : FB_RECORD_COMMITTED);
    raise_records(s, whole->segment, (uint32_t)block->number + 1);
    if (r == 0)
        r = fb_index_put(s, &block->key, filling.place, FB_EXTENT(block->length_bytes, 0), still_filling,
                         &filling, &old);
    if (r == 0) {
        fb_bury(s, &block->key, old);
        if (whole->pinned)
            use_claim(s, whole, block->length_bytes);
        else
            fb_keep_pin(s, &block->key, old);
    }
    return filling.there ? 0 : r;
}

int fb_whole_block_commit(fb_store *s, struct fb_whole *whole, const struct fb_whole_block *block)
{
    if (block->done_bytes != block->length_bytes)
        return -EINVAL;
    if (!is_filling(s, whole))
        return -ENOSPC;
    return count_block(s, whole, block, publish_block(s, whole, block));
}

int fb_whole_write(fb_store *s, struct fb_whole *whole, uint64_t number, const struct fb_key *key,
                   const void *data, uint64_t length_bytes)
{
    struct fb_whole_block block;
    int r = fb_whole_block_begin(s, whole, number, key, &block);
    if (r == -EALREADY)
        return 0;
    if (r == 0)
        r = fb_whole_block_append(s, whole, &block, data, length_bytes);
    return r == 0 ? fb_whole_block_commit(s, whole, &block) : r;
}

struct tally {
    uint64_t committed;
    uint32_t sum;
};

static bool tally_record(fb_store *s, void *context, uint32_t segment, uint32_t number,
                         const struct fb_record *record, bool valid)
{
    struct tally *tally = context;
    (void)s;
    (void)segment;
    (void)number;
    tally->committed += valid && (record->state == FB_RECORD_COMMITTED || record->state == FB_RECORD_PINNED);
    tally->sum = fb_crc32c(tally->sum, &record->crc, sizeof record->crc);
    return true;
}

int fb_whole_complete(fb_store *s, struct fb_whole *whole)
{
    uint64_t blocks = (whole->size_bytes + whole->block_bytes - 1) / whole->block_bytes, old;
    struct tally tally = {0};
    give_claim_back(s, whole);
    if (!is_filling(s, whole))
        return -ENOSPC;
    int r = fb_records_visit(s, whole->segment, 0, (uint32_t)blocks, tally_record, &tally);
    if (r == 0 && tally.committed != blocks)
        r = -ENODATA;
    if (r == 0)
        r = write_super(s, whole->segment, tally.sum);
    if (r != 0) {
        fb_whole_abandon(s, whole);
        return r;
    }
    struct filling filling = {whole, 0, 0, false};
    filling.place = FB_PLACE(FB_SLOT_PRESENT, FB_SLOT_WHOLE, atomic_load(&s->shared->verify_generation), 0, 0,
                             whole->segment);
    r = fb_index_put(s, &whole->key, filling.place, FB_EXTENT(0, 0), still_filling, &filling, &old);
    if (r == 0)
        fb_bury(s, &whole->key, old);
    FB_POINT("whole.published");
    fb_segment_seal(s, whole->segment);
    fb_segment_disown(s, whole->segment);
    return r == 0 ? 0 : -ENOSPC;
}

void fb_whole_abandon(fb_store *s, struct fb_whole *whole)
{
    give_claim_back(s, whole);
    if (!is_filling(s, whole))
        return;
    fb_segment_seal(s, whole->segment);
    fb_segment_disown(s, whole->segment);
    fb_segment_retire(s, whole->segment, FB_EVICT_FORCE);
}

/* All blocks of a reopened store are verified once before the whole is handed out as one view; the
 * superblock says that they are the blocks of this file, in this order. 0, -EBADMSG, or an errno of this
 * process's own limits. */
static int verify_whole(fb_store *s, uint32_t segment, const struct fb_key *file_key, const uint8_t *base)
{
    struct fb_segment *seg = &s->segments[segment];
    struct fb_segment_super super;
    uint64_t size = atomic_load(&seg->whole_bytes);
    uint32_t block_bytes = atomic_load(&seg->whole_block_bytes), sum = 0;
    int r = fb_segfile_read_super(s, segment, &super);
    if (r == 0 && (super.whole_key.lo != file_key->lo || super.whole_key.check != file_key->check))
        r = -EBADMSG;
    for (uint64_t offset = 0, block = 0; r == 0 && offset < size; offset += block_bytes, block++) {
        struct fb_record record;
        r = fb_record_read(s, segment, (uint32_t)block, &record);
        if (r == 0 && (uint64_t)record.unit << FB_WHOLE_UNIT_SHIFT != offset)
            r = -EBADMSG;
        if (r != 0)
            break;
        struct fb_key key = {.hi = record.hi, .lo = record.lo, .check = record.check};
        struct fb_found found = {.place = FB_PLACE(FB_SLOT_PRESENT, 0, 0, block, record.unit, segment),
                                 .extent = FB_EXTENT(record.length, 0)};
        r = fb_block_verify(s, &found, &key, base + offset);
        sum = fb_crc32c(sum, &record.crc, sizeof record.crc);
    }
    if (r == 0 && sum != super.whole_sum)
        r = -EBADMSG;
    return r == 0 || fb_error_is_own(-r) ? r : -EBADMSG;
}

int fb_whole_get(fb_store *s, const struct fb_key *key, struct fb_hit *hit)
{
    for (int tries = 0; tries < 16; tries++) {
        struct fb_found found;
        int r = fb_block_find(s, key, &found);
        if (r != 0 || !(FB_PLACE_FLAGS(found.place) & FB_SLOT_WHOLE) ||
            FB_PLACE_SEGMENT(found.place) >= s->segment_count)
            return -ENOENT;
        uint32_t segment = FB_PLACE_SEGMENT(found.place);
        if (!fb_segment_is_whole(s, segment) || atomic_load(&s->segments[segment].whole_lo) != key->lo ||
            atomic_load(&s->segments[segment].whole_check) != key->check)
            return -ENOENT;
        if (!s->has_row || !fb_segment_maps(s, segment) || fb_holds_too_much(s) ||
            fb_tier_failed(s, s->segment_tier[segment]))
            return -EOPNOTSUPP;
        atomic_fetch_add(&s->row_leases[segment], 1);
        bool same = atomic_load(&s->metas[found.page].sequence) == found.sequence;
        const uint8_t *base = same ? fb_map_base(s, segment) : NULL;
        bool stale = FB_PLACE_VERIFIED(found.place) != atomic_load(&s->shared->verify_generation);
        bool verify =
            s->config.checksum == FB_CHECKSUM_READ || (s->config.checksum == FB_CHECKSUM_LOAD && stale);
        int verdict = base != NULL && verify ? verify_whole(s, segment, key, base) : 0;
        if (verdict != 0) {
            if (verdict == -EBADMSG)
                fb_index_swap(s, key->lo, key->check, found.place, 0);
            fb_count_of(s, segment, verdict == -EBADMSG ? FB_C_MISS_CHECKSUM : FB_C_MISS_IO, 1);
            base = NULL;
        } else if (base != NULL && verify && stale) {
            fb_block_mark_verified(s, key, &found);
        }
        if (base != NULL) {
            *hit = (struct fb_hit){.data = base,
                                   .length_bytes = atomic_load(&s->segments[segment].whole_bytes),
                                   .segment = segment};
            fb_count_of(s, segment, FB_C_HIT_MEM + fb_tier_of(s, segment)->medium, 1);
            fb_count_of(s, segment, FB_C_HIT_BYTES_MEM + fb_tier_of(s, segment)->medium, hit->length_bytes);
            fb_dataset_is_read(s, segment);
            return 0;
        }
        atomic_fetch_sub(&s->row_leases[segment], 1);
        if (same)
            return -ENOENT;
    }
    return -ENOENT;
}
