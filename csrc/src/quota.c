#include "quota.h"

#include "account.h"
#include "index.h"
#include "platform.h"
#include "segment.h"

#define BYTES_BITS 48u
#define ONE_CHANGE (1ull << BYTES_BITS)
#define COUNT_AGAIN_MS 1000

/* Of all that lies under ids of one dataset there is one sum. */
static struct fb_dataset *keeper_of(fb_store *s, struct fb_dataset *dataset)
{
    uint32_t slot_plus_1 = atomic_load(&dataset->keeper);
    return slot_plus_1 == 0 ? dataset : &s->datasets[(slot_plus_1 - 1) % FB_DATASETS_MAX];
}

uint64_t fb_quota_used(fb_store *s, struct fb_dataset *dataset)
{
    return atomic_load(&keeper_of(s, dataset)->committed) & (ONE_CHANGE - 1);
}

bool fb_quota_allows(fb_store *s, struct fb_dataset *dataset, uint64_t bytes)
{
    uint64_t quota_plus_1 = atomic_load(&keeper_of(s, dataset)->quota_plus_1);
    return quota_plus_1 == 0 || fb_quota_used(s, dataset) + bytes <= quota_plus_1 - 1;
}

/* Where a slot's bytes are counted; NULL: it holds none. */
static struct fb_dataset *charged(fb_store *s, uint64_t place)
{
    uint32_t segment = FB_PLACE_SEGMENT(place);
    if (FB_PLACE_STATE(place) != FB_SLOT_PRESENT || segment >= s->segment_count)
        return NULL;
    return keeper_of(s, fb_dataset_of(s, segment));
}

bool fb_quota_is_same(fb_store *s, uint64_t place, uint64_t extent, uint64_t old_place, uint64_t old_extent)
{
    return FB_EXTENT_LENGTH(extent) == FB_EXTENT_LENGTH(old_extent) &&
           charged(s, place) == charged(s, old_place);
}

void fb_quota_charge(fb_store *s, uint64_t place, uint64_t extent)
{
    struct fb_dataset *dataset = charged(s, place);
    if (dataset != NULL)
        atomic_fetch_add(&dataset->committed, ONE_CHANGE + FB_EXTENT_LENGTH(extent));
}

void fb_quota_release(fb_store *s, uint64_t place, uint64_t extent)
{
    struct fb_dataset *dataset = charged(s, place);
    if (dataset != NULL)
        atomic_fetch_add(&dataset->committed, ONE_CHANGE - FB_EXTENT_LENGTH(extent));
}

/* ---- counting ---- */

struct count {
    fb_store *store;
    uint64_t bytes[FB_DATASETS_MAX], before[FB_DATASETS_MAX];
};

static void add_slot(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct count *count = context;
    struct fb_dataset *dataset = charged(count->store, place);
    (void)lo;
    (void)check;
    if (dataset != NULL)
        count->bytes[dataset - count->store->datasets] += FB_EXTENT_LENGTH(extent);
}

void fb_quota_doubt(fb_store *s)
{
    atomic_store(&s->shared->committed_doubtful, 1);
}

/* A sum is replaced by the count only where it is as it was before the count began: each change of it also
 * changes its upper bits. Whoever had a page locked then, its sum changed and its slot still to write, has
 * left that page before it was counted. */
static bool count_all(fb_store *s)
{
    struct count *count = calloc(1, sizeof *count);
    if (count == NULL)
        return false;
    count->store = s;
    for (uint32_t i = 0; i < FB_DATASETS_MAX; i++)
        count->before[i] = atomic_load(&s->datasets[i].committed);
    bool seen = fb_index_visit_locked(s, add_slot, count) == 0, all = seen;
    for (uint32_t i = 0; seen && i < FB_DATASETS_MAX; i++) {
        uint64_t counted = (count->before[i] & ~(ONE_CHANGE - 1)) | count->bytes[i];
        if (counted != count->before[i] &&
            !atomic_compare_exchange_strong(&s->datasets[i].committed, &count->before[i],
                                            counted + ONE_CHANGE))
            all = false;
    }
    free(count);
    return all;
}

void fb_quota_mend(fb_store *s)
{
    int64_t now = fb_boottime_ms();
    fb_index_mend(s);
    if (!atomic_load(&s->shared->committed_doubtful) || now < s->count_again_ms)
        return;
    atomic_store(&s->shared->committed_doubtful, 0);
    s->count_again_ms = 0;
    if (count_all(s))
        return;
    fb_quota_doubt(s);
    s->count_again_ms = now + COUNT_AGAIN_MS;
}

void fb_quota_count(fb_store *s)
{
    atomic_store(&s->shared->committed_doubtful, !count_all(s));
}

int fb_set_quota(fb_store *s, uint32_t dataset_id, uint64_t quota_bytes)
{
    uint32_t dataset = s->has_row ? fb_dataset_slot(s, FB_DATASET_NUMBER(dataset_id), true) : FB_DATASETS_MAX;
    if (dataset == FB_DATASETS_MAX)
        return s->has_row ? -EINVAL : -EROFS;
    atomic_store(&s->datasets[dataset].quota_plus_1, quota_bytes + 1);
    return 0;
}
