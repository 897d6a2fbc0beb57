/* Figures, counted when asked for: the index is the account, so nothing can drift from it. */
#include <stdio.h>
#include <sys/stat.h>

#include "account.h"
#include "health.h"
#include "index.h"
#include "platform.h"
#include "rows.h"
#include "segment.h"

#define BEAT_STALE_MS 2000

struct figures {
    fb_store *store;
    struct fb_status *status;
    struct fb_dataset_status *datasets;       /* NULL: not asked for */
    uint16_t number_of_slot[FB_DATASETS_MAX]; /* among them, of each slot of the table of datasets */
};

static void add_block(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct figures *figures = context;
    fb_store *s = figures->store;
    uint32_t segment = FB_PLACE_SEGMENT(place), length = FB_EXTENT_LENGTH(extent);
    (void)lo;
    (void)check;
    if (segment >= s->segment_count || (FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE))
        return;
    uint64_t pinned = FB_PLACE_FLAGS(place) & FB_SLOT_PINNED ? length : 0;
    struct fb_tier_status *tier = &figures->status->tiers[s->segment_tier[segment]];
    tier->committed_blocks++;
    tier->committed_bytes += length;
    tier->pinned_bytes += pinned;
    figures->status->blocks++;
    if (figures->datasets == NULL)
        return;
    uint32_t slot = (uint32_t)(fb_dataset_of(s, segment) - s->datasets);
    struct fb_dataset_status *dataset = &figures->datasets[figures->number_of_slot[slot]];
    dataset->blocks++;
    dataset->committed_bytes += length;
    dataset->pinned_bytes += pinned;
}

static uint32_t find_dataset(const struct fb_dataset_status *datasets, uint32_t count, uint32_t number)
{
    uint32_t at = 0;
    while (at < count && datasets[at].id != number)
        at++;
    return at;
}

/* The accounts come first, each under its number; then the datasets that have none. */
static void list_datasets(fb_store *s, struct figures *figures)
{
    struct fb_dataset_status *datasets = figures->datasets;
    uint32_t count = 0;
    for (uint32_t account = 0; account < FB_ACCOUNTS; account++) {
        uint64_t id = account == 0 ? 1 : atomic_load(&s->shared->account_ids[account]);
        if (id == 0)
            break; /* they are given out in order */
        datasets[count++] = (struct fb_dataset_status){
            .id = (uint32_t)(id - 1), .has_account = true, .quota_bytes = UINT64_MAX};
        fb_account_sum(s, account, datasets[count - 1].counters);
    }
    for (uint32_t slot = 0; slot < FB_DATASETS_MAX; slot++) {
        uint64_t id = atomic_load(&s->datasets[slot].id_plus_1);
        if (id == 0)
            continue;
        uint32_t number = FB_DATASET_NUMBER((uint32_t)(id - 1)), at = find_dataset(datasets, count, number);
        if (at == count)
            datasets[count++] = (struct fb_dataset_status){.id = number, .quota_bytes = UINT64_MAX};
        if (number + 1ull == id)
            datasets[at].quota_bytes = atomic_load(&s->datasets[slot].quota_plus_1) - 1;
        figures->number_of_slot[slot] = (uint16_t)at;
    }
    figures->status->dataset_count = count;
}

static void sum_counters(fb_store *s, uint64_t out[FB_C_COUNT])
{
    for (uint32_t account = 0; account < FB_ACCOUNTS; account++) {
        uint64_t counters[FB_C_COUNT];
        if (account != 0 && atomic_load(&s->shared->account_ids[account]) == 0)
            break; /* they are given out in order */
        fb_account_sum(s, account, counters);
        for (int c = 0; c < FB_C_COUNT; c++)
            out[c] += counters[c];
    }
}

static void count_segment(fb_store *s, uint32_t segment, struct fb_tier_status *tier)
{
    uint32_t state = fb_segment_state_of(s, segment);
    bool whole = fb_segment_is_whole(s, segment);
    if (state == FB_ABSENT || state == FB_BAD) {
        tier->segments_absent += !whole;
        return;
    }
    uint64_t bytes = fb_geometry_of(s, segment).file_bytes;
    tier->segments_whole += whole;
    switch (state) {
    case FB_FREE:
        tier->segments_free++;
        tier->free_bytes += bytes;
        return;
    case FB_HELD:
        tier->segments_held++;
        tier->held_bytes += bytes;
        break;
    case FB_OPEN:
    case FB_CREATING:
        tier->segments_open++;
        break;
    case FB_UNSCANNED:
        tier->segments_unscanned++;
        break;
    default:
        tier->segments_sealed++;
        break;
    }
    tier->used_bytes += bytes;
}

static void describe_tier(fb_store *s, uint32_t number, struct fb_tier_status *tier)
{
    struct fb_tier_saved *saved = &s->super->tiers[number];
    struct fb_tier_live *live = &s->shared->tiers[number];
    snprintf(tier->path, sizeof tier->path, "%.*s", FB_PATH_MAX - 1, saved->path);
    tier->medium = saved->medium;
    tier->level = saved->level;
    tier->quota_bytes = saved->quota_bytes;
    tier->effective_bytes = atomic_load(&live->effective_bytes);
    tier->segment_bytes = saved->segment_bytes;
    tier->failed = fb_tier_failed(s, number);
    uint32_t error = atomic_load(&live->error);
    if (error != 0)
        snprintf(tier->cause, sizeof tier->cause, "%s", strerror((int)error));
    else if (atomic_load(&live->shrunk))
        snprintf(tier->cause, sizeof tier->cause,
                 "quota in force shrunk: no room in the file system or memory cgroup");
}

int fb_status_read(fb_store *s, struct fb_status *out, struct fb_dataset_status *datasets)
{
    struct stat st;
    struct figures figures = {.store = s, .status = out, .datasets = datasets};
    memset(out, 0, sizeof *out);
    if (datasets != NULL)
        list_datasets(s, &figures);
    out->tier_count = s->super->tier_count;
    for (uint32_t tier = 0; tier < out->tier_count; tier++)
        describe_tier(s, tier, &out->tiers[tier]);
    for (uint32_t segment = 0; segment < s->segment_count; segment++)
        count_segment(s, segment, &out->tiers[s->segment_tier[segment]]);
    out->index_pages = atomic_load(&s->shared->page_count);
    fb_index_visit(s, 0, (uint32_t)out->index_pages, add_block, &figures);
    sum_counters(s, out->counters);
    if (fstat(s->index_fd, &st) == 0)
        out->index_bytes = (uint64_t)st.st_blocks * 512;
    if (fstat(s->live_fd, &st) == 0)
        out->live_bytes = (uint64_t)st.st_blocks * 512;
    out->index_bytes_max = (uint64_t)s->super->page_count_max * FB_PAGE_BYTES;
    out->row = s->has_row ? s->row : UINT32_MAX;
    out->row_count = s->super->row_count;
    for (uint32_t row = 0; row < atomic_load(&s->shared->rows_high); row++)
        out->rows_used += fb_byte_is_locked(s->probe_fd, row);
    pthread_mutex_lock(&s->maps_lock);
    out->segments_mapped = s->maps_count;
    pthread_mutex_unlock(&s->maps_lock);
    out->segments_mapped_max = s->maps_max;
    out->rebuilding = atomic_load(&s->shared->rebuilding) != 0;
    out->maintainer_alive = fb_boottime_ms() - atomic_load(&s->shared->maintainer_beat_ms) < BEAT_STALE_MS;
    out->read_only = s->read_only;
    out->max_held_bytes = s->config.max_held_bytes;
    snprintf(out->live_path, sizeof out->live_path, "%s", s->super->live_path);
    return 0;
}

uint32_t fb_holders(fb_store *s, struct fb_holder *out, uint32_t capacity)
{
    uint32_t count = 0, rows = atomic_load(&s->shared->rows_high);
    for (uint32_t row = 0; row < rows && count < capacity; row++) {
        uint64_t leases = 0;
        for (uint32_t i = 0; i < s->segment_count; i++)
            leases +=
                atomic_load_explicit(&s->leases[(uint64_t)row * s->segment_count + i], memory_order_relaxed);
        if (leases == 0 || !fb_byte_is_locked(s->probe_fd, row))
            continue;
        out[count] = (struct fb_holder){.row = row,
                                        .pid = atomic_load(&s->rows[row].pid),
                                        .leases = leases,
                                        .held_bytes = atomic_load(&s->rows[row].held_bytes)};
        memcpy(out[count].name, s->rows[row].name, sizeof out[count].name);
        count++;
    }
    return count;
}

void fb_config_read(fb_store *s, struct fb_config *out)
{
    *out = s->config;
}
