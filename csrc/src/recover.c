/* Recovery and clean close, by whoever holds open.lock alone. */
#include <sys/mman.h>
#include <unistd.h>

#include "account.h"
#include "clock.h"
#include "failpoint.h"
#include "geometry.h"
#include "index.h"
#include "maintain.h"
#include "open.h"
#include "platform.h"
#include "segment.h"
#include "trust.h"

static void clear_row_leases(fb_store *s)
{
    for (uint32_t row = 0; row < s->super->row_count; row++) {
        if (s->has_row && row == s->row)
            continue;
        _Atomic uint32_t *leases = s->leases + (uint64_t)row * s->segment_count;
        for (uint32_t i = 0; i < s->segment_count; i++)
            if (atomic_load_explicit(&leases[i], memory_order_relaxed) != 0)
                atomic_store(&leases[i], 0);
        atomic_store(&s->rows[row].held_bytes, 0);
    }
}

static void mend_pages(fb_store *s)
{
    uint32_t pages = atomic_load(&s->shared->page_count);
    for (uint32_t page = 0; page < pages; page++) {
        struct fb_page_meta *meta = &s->metas[page];
        bool broken = atomic_load(&meta->lock) != 0 || (atomic_load(&meta->sequence) & 1u) ||
                      atomic_load(&meta->split_to) != 0;
        if (broken)
            fb_page_repair(s, page);
        atomic_store(&meta->lock, 0);
    }
}

static void clear_locks(fb_store *s)
{
    atomic_store(&s->shared->grow_lock, 0);
    for (uint32_t i = 0; i < FB_DATASETS_MAX; i++)
        atomic_store(&s->datasets[i].lock, 0);
    for (uint32_t i = 0; i < FB_FLIGHT_BUCKETS; i++) {
        atomic_store(&s->flights[i].lock, 0);
        for (uint32_t way = 0; way < FB_FLIGHT_WAYS; way++)
            atomic_store(&s->flights[i].entries[way].owner, 0);
    }
}

/* Nobody else lives, so every in-between state is an orphan's. */
static void settle_segments(fb_store *s)
{
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        atomic_store(&s->segments[segment].owner, 0);
        switch (fb_segment_state_of(s, segment)) {
        case FB_CREATING:
            fb_segfile_remove(s, segment);
            fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
            break;
        case FB_RETIRING:
            fb_segment_turn(s, segment, FB_RETIRING, FB_SEALED);
            break;
        case FB_HELD:
            if (fb_segment_is_whole(s, segment))
                fb_segfile_remove(s, segment);
            fb_segment_turn(s, segment, FB_HELD, fb_segment_is_whole(s, segment) ? FB_ABSENT : FB_FREE);
            break;
        case FB_BAD:
            fb_segment_turn(s, segment, FB_BAD, FB_ABSENT);
            break;
        case FB_OPEN:
            /* A whole file that is not complete, or a segment that was not handed to its dataset yet. */
            if (fb_segment_is_whole(s, segment) || !fb_segment_is_current(s, segment))
                fb_segment_seal(s, segment);
            break;
        default:
            break;
        }
    }
}

void fb_recover_in_place(fb_store *s)
{
    clear_row_leases(s);
    clear_locks(s);
    mend_pages(s);
    settle_segments(s);
    atomic_fetch_add(&s->shared->deletes, 1); /* count once what became garbage */
}

static struct fb_segment *saved_segments(fb_store *s)
{
    return (struct fb_segment *)(s->index + FB_INDEX_SUPER_BYTES);
}

static void seal_open(fb_store *s)
{
    for (uint32_t i = 0; i < FB_DATASETS_MAX; i++)
        for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++)
            for (int queue = 0; queue < 2; queue++) {
                uint32_t open = atomic_exchange(&s->datasets[i].open[tier][queue], 0);
                if (open != 0)
                    fb_segment_seal(s, open - 1);
            }
    for (uint32_t segment = 0; segment < s->segment_count; segment++)
        if (fb_segment_state_of(s, segment) == FB_OPEN)
            fb_segment_seal(s, segment);
}

void fb_save_clean(fb_store *s)
{
    struct fb_account_saved accounts[FB_ACCOUNTS];
    if (atomic_load(&s->shared->rebuilding))
        return;
    fb_recover_in_place(s);
    seal_open(s);
    fb_sync_sealed(s);
    struct fb_segment *saved = saved_segments(s);
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        memcpy(&saved[segment], &s->segments[segment], sizeof saved[segment]);
        uint32_t dataset = atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX;
        /* By id: the table of datasets does not survive. */
        atomic_store(&saved[segment].dataset, (uint32_t)(atomic_load(&s->datasets[dataset].id_plus_1) - 1));
    }
    fb_accounts_collect(s, accounts);
    FB_POINT("close.saved");
    /* The superblock changes last and at once: until then whoever comes after a kill goes on with live. */
    if (fsync(s->index_fd) != 0)
        return;
    s->super->page_count = atomic_load(&s->shared->page_count);
    s->super->sequence = atomic_load(&s->shared->sequence);
    s->super->verify_generation = atomic_load(&s->shared->verify_generation);
    memcpy(s->super->accounts, accounts, sizeof accounts);
    s->super->contents_crc = fb_contents_crc(s, s->super->page_count);
    s->super->clock_base_ms =
        atomic_load(&s->shared->clock_base_ms) + atomic_load(&s->shared->clock_offset_ms);
    s->super->closed_boot_ms = fb_boottime_ms();
    s->super->closed_real_ms = fb_realtime_ms();
    s->super->clean = 1;
    s->super->dynamic_crc = fb_super_dynamic_crc(s->super);
    if (msync(s->index, FB_INDEX_SUPER_BYTES, MS_SYNC) == 0)
        fb_unlink_live(s);
}

/* The store's clock goes on by the time that passed, and never backwards. Only another boot has to ask the
 * wall clock how long that was. */
static int64_t resumed_clock(const struct fb_index_super *super)
{
    char boot_id[40];
    int64_t closed_at = super->closed_boot_ms + super->clock_base_ms;
    int64_t away = fb_realtime_ms() - super->closed_real_ms;
    if (fb_boot_id(boot_id) == 0 && strncmp(boot_id, super->boot_id, sizeof super->boot_id) == 0)
        away = fb_boottime_ms() - super->closed_boot_ms;
    return closed_at + (away > 0 ? away : 0) - fb_boottime_ms();
}

void fb_load_clean(fb_store *s)
{
    struct fb_segment *saved = saved_segments(s);
    uint64_t age = 0;
    /* First, for datasets are stamped with the one and given the others. */
    atomic_store(&s->shared->clock_base_ms, resumed_clock(s->super));
    fb_accounts_load(s);
    memcpy(s->segments, saved, (size_t)s->segment_count * sizeof *saved);
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        /* Any number may be an id: that a segment has none, its state tells. */
        bool empty = FB_WORD_STATE(atomic_load(&saved[segment].word)) != FB_SEALED;
        uint32_t id = atomic_load(&saved[segment].dataset);
        atomic_store(&s->segments[segment].dataset, empty ? 0 : fb_dataset_slot(s, id, true));
        /* A copy of the file may have holes where the one that was closed had none. */
        atomic_fetch_and(&s->segments[segment].flags, ~(uint32_t)FB_SEG_RECYCLED);
        if (atomic_load(&saved[segment].age) > age)
            age = atomic_load(&saved[segment].age);
    }
    atomic_store(&s->shared->age, age);
    atomic_store(&s->shared->sequence, s->super->sequence);
    atomic_store(&s->shared->page_count, s->super->page_count);
    atomic_store(&s->shared->verify_generation, s->super->verify_generation);
    atomic_store(&s->shared->any_expiry, 1);
}
