/* Sources: J. Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), section 4, for
 * s3fifo. lru is approximated on a log of segments: the oldest segment goes, and what was read in the
 * later half of the tier's turnover is written anew. */
#include "retention.h"

#include "segment.h"

#define FREQUENCY_MAX 3u
#define PROMOTE_AT 2u
#define SMALL_QUEUE_SHARE 10u /* percent of a tier's s3fifo bytes */
#define TICKS_A_TURNOVER 32u
#define TICKS_KEPT (TICKS_A_TURNOVER / 2)

/* 1 to 255; one tick is 1/32 of the tier's segments sealed. */
static uint8_t tick(fb_store *s, uint32_t segment)
{
    uint32_t count = fb_tier_of(s, segment)->segment_count;
    uint64_t age = atomic_load_explicit(&s->shared->age, memory_order_relaxed);
    return (uint8_t)(age * TICKS_A_TURNOVER / (count ? count : 1) % 255 + 1);
}

void fb_retention_touch(fb_store *s, const struct fb_key *key, const struct fb_found *found,
                        uint32_t retention)
{
    if (retention == FB_SPARE)
        return;
    uint32_t segment = FB_PLACE_SEGMENT(found->place);
    _Atomic uint8_t *byte = fb_touch_at(s, found->page, found->slot);
    uint8_t seen = atomic_load_explicit(byte, memory_order_relaxed);
    uint8_t next = retention == FB_LRU ? tick(s, segment) : seen < FREQUENCY_MAX ? (uint8_t)(seen + 1) : seen;
    if (next != seen)
        atomic_store_explicit(byte, next, memory_order_relaxed);
    bool again = retention == FB_LRU ? seen != 0 : seen + 1u == PROMOTE_AT;
    if (again && fb_tier_of(s, segment)->level > 0)
        fb_promote_later(s, key);
}

enum fb_fate fb_retention_fate(fb_store *s, uint32_t segment, uint32_t retention, uint8_t *touch)
{
    uint8_t seen = *touch;
    if (retention == FB_EPOCH || retention == FB_SPARE)
        return FB_DROP;
    if (retention == FB_LRU) {
        uint32_t since = (uint32_t)(tick(s, segment) + 255u - seen) % 255u;
        return seen != 0 && since < TICKS_KEPT ? FB_KEEP : FB_DEMOTE;
    }
    if (atomic_load(&s->segments[segment].flags) & FB_SEG_MAIN_QUEUE) {
        *touch = seen > 0 ? (uint8_t)(seen - 1) : 0;
        return seen > 0 ? FB_KEEP : FB_DEMOTE;
    }
    *touch = 0;
    return seen > 1 ? FB_KEEP : FB_DROP;
}

struct queue_end {
    uint64_t bytes, age;
    uint32_t oldest;
};

uint32_t fb_retention_spare(fb_store *s, uint32_t tier)
{
    uint32_t spare = FB_NO_SEGMENT;
    uint64_t oldest = UINT64_MAX;
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        struct fb_segment *seg = &s->segments[segment];
        uint32_t dataset = atomic_load(&seg->dataset) % FB_DATASETS_MAX;
        if (s->segment_tier[segment] != tier || fb_segment_state_of(s, segment) != FB_SEALED ||
            atomic_load(&s->datasets[dataset].retention) != FB_SPARE)
            continue;
        uint64_t age = atomic_load(&seg->age);
        if (age < oldest) {
            oldest = age;
            spare = segment;
        }
    }
    return spare;
}

uint32_t fb_retention_victim(fb_store *s, uint32_t tier)
{
    struct fb_tier_saved *t = &s->super->tiers[tier];
    struct queue_end ends[3] = {
        {0, UINT64_MAX, FB_NO_SEGMENT}, {0, UINT64_MAX, FB_NO_SEGMENT}, {0, UINT64_MAX, FB_NO_SEGMENT}};
    uint32_t spare = fb_retention_spare(s, tier);
    if (spare != FB_NO_SEGMENT)
        return spare;
    uint32_t last = t->whole_base + t->whole_count;
    for (uint32_t segment = t->segment_base; segment < last; segment++) {
        if (segment == t->segment_base + t->segment_count)
            segment = t->whole_base;
        struct fb_segment *seg = &s->segments[segment];
        uint32_t state = fb_segment_state_of(s, segment);
        uint32_t retention =
            atomic_load(&s->datasets[atomic_load(&seg->dataset) % FB_DATASETS_MAX].retention);
        if (segment >= last || retention == FB_EPOCH || retention == FB_SPARE ||
            (state != FB_SEALED && state != FB_OPEN))
            continue;
        bool main_queue = retention == FB_S3FIFO && (atomic_load(&seg->flags) & FB_SEG_MAIN_QUEUE);
        struct queue_end *end = &ends[retention == FB_LRU ? 2 : main_queue];
        end->bytes += fb_geometry_of(s, segment).file_bytes;
        if (state == FB_SEALED && atomic_load(&seg->age) < end->age) {
            end->age = atomic_load(&seg->age);
            end->oldest = segment;
        }
    }
    uint64_t s3fifo = ends[0].bytes + ends[1].bytes;
    struct queue_end *choice = ends[0].bytes * 100 > s3fifo * SMALL_QUEUE_SHARE ? &ends[0] : &ends[1];
    if (choice->oldest == FB_NO_SEGMENT)
        choice = choice == &ends[0] ? &ends[1] : &ends[0];
    /* Both policies in one tier: the one that holds more gives. */
    return ends[2].oldest != FB_NO_SEGMENT && (ends[2].bytes > s3fifo || choice->oldest == FB_NO_SEGMENT)
               ? ends[2].oldest
               : choice->oldest;
}

void fb_promote_later(fb_store *s, const struct fb_key *key)
{
    uint64_t at =
        atomic_fetch_add_explicit(&s->shared->promotion_head, 1, memory_order_relaxed) % FB_PROMOTIONS;
    atomic_store_explicit(&s->promotions[at].lo, key->lo, memory_order_relaxed);
    atomic_store_explicit(&s->promotions[at].check, key->check, memory_order_release);
}

int fb_promote_take(fb_store *s, struct fb_key *key)
{
    uint64_t head = atomic_load(&s->shared->promotion_head), tail = atomic_load(&s->shared->promotion_tail);
    if (tail + FB_PROMOTIONS < head)
        tail = head - FB_PROMOTIONS;
    if (tail >= head)
        return -ENOENT;
    key->check = atomic_load_explicit(&s->promotions[tail % FB_PROMOTIONS].check, memory_order_acquire);
    key->lo = atomic_load_explicit(&s->promotions[tail % FB_PROMOTIONS].lo, memory_order_relaxed);
    atomic_store(&s->shared->promotion_tail, tail + 1);
    return 0;
}
