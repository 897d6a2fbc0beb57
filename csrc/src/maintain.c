#include "maintain.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "change.h"
#include "clock.h"
#include "evict.h"
#include "health.h"
#include "index.h"
#include "platform.h"
#include "quota.h"
#include "rebuild.h"
#include "retention.h"
#include "rows.h"
#include "segment.h"

#define BEAT_STALE_MS 2000
#define ROUND_S_MAX 2u /* between two rounds while somebody maintains */
#define IDLE_MS 200u
#define SYNC_IDLE_MS 500u
#define EXPIRE_PAGES_A_ROUND 64u
#define PROMOTIONS_A_ROUND 256u

/* ---- what a round does ---- */

static void settle_held(fb_store *s)
{
    uint32_t rows = atomic_load(&s->shared->rows_high);
    uint64_t *held = calloc(rows ? rows : 1, sizeof *held);
    for (uint32_t segment = 0; held != NULL && segment < s->segment_count; segment++) {
        if (fb_segment_state_of(s, segment) != FB_HELD || fb_segment_unhold(s, segment))
            continue;
        uint64_t bytes = fb_geometry_of(s, segment).file_bytes;
        for (uint32_t row = 0; row < rows; row++)
            if (atomic_load(&s->leases[(uint64_t)row * s->segment_count + segment]) != 0)
                held[row] += bytes;
    }
    for (uint32_t row = 0; held != NULL && row < rows; row++)
        if (atomic_load(&s->rows[row].held_bytes) != held[row])
            atomic_store(&s->rows[row].held_bytes, held[row]);
    free(held);
}

bool fb_segment_is_current(fb_store *s, uint32_t segment)
{
    struct fb_dataset *d = &s->datasets[atomic_load(&s->segments[segment].dataset) % FB_DATASETS_MAX];
    uint32_t tier = s->segment_tier[segment];
    return atomic_load(&d->open[tier][0]) == segment + 1 || atomic_load(&d->open[tier][1]) == segment + 1;
}

/* Segments in the hands of a process that died. */
static void adopt_orphan(fb_store *s, uint32_t segment)
{
    uint32_t state = fb_segment_state_of(s, segment);
    uint32_t owner = atomic_load(&s->segments[segment].owner);
    bool between =
        state == FB_CREATING || state == FB_RETIRING ||
        (state == FB_OPEN && (fb_segment_is_whole(s, segment) || !fb_segment_is_current(s, segment)));
    if (!between || owner == 0 || owner == s->me || !fb_owner_is_dead(s, owner) ||
        !fb_segment_own(s, segment))
        return;
    switch (fb_segment_state_of(s, segment)) {
    case FB_CREATING:
        fb_segfile_remove(s, segment);
        fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
        break;
    case FB_RETIRING:
        /* Why it was to go died with its owner: what is left of it stays until its turn comes again. */
        fb_segment_turn(s, segment, FB_RETIRING, FB_SEALED);
        atomic_fetch_add(&s->shared->deletes, 1);
        break;
    case FB_OPEN:
        fb_segment_seal(s, segment);
        break;
    default:
        break;
    }
    fb_segment_disown(s, segment);
}

/* Where there is room again the quota in force grows by a segment a round; where others have filled the
 * file system it shrinks by one. */
static void fit_quota(fb_store *s, uint32_t tier)
{
    struct fb_tier_live *live = &s->shared->tiers[tier];
    struct fb_tier_saved *saved = &s->super->tiers[tier];
    uint64_t effective = atomic_load(&live->effective_bytes);
    struct fb_usage u;
    fb_tier_usage(s, tier, &u);
    if (!fb_tier_has_room(s, tier, 0) && u.file_bytes > 0 && !fb_tier_failed(s, tier)) {
        if (u.file_bytes > effective)
            return; /* the evictor has not yet given back what it was asked to */
        uint64_t less = u.file_bytes < effective ? u.file_bytes : effective;
        fb_tier_shrink(s, tier, less > u.segment_bytes ? less - u.segment_bytes : 0);
    } else if (atomic_load(&live->shrunk) && fb_tier_has_room(s, tier, 2 * u.segment_bytes)) {
        uint64_t more = (effective > u.file_bytes ? effective : u.file_bytes) + u.segment_bytes;
        atomic_store(&live->effective_bytes, more < saved->quota_bytes ? more : saved->quota_bytes);
        atomic_store(&live->shrunk, more < saved->quota_bytes);
    }
}

struct expiry {
    fb_store *store;
    uint32_t now_s;
    uint64_t left;
    bool blocked;
};

static void expire_slot(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct expiry *e = context;
    fb_store *s = e->store;
    (void)place;
    uint32_t expiry = FB_EXTENT_EXPIRY(extent);
    e->left += expiry != 0;
    if (expiry == 0 || e->now_s < expiry)
        return;
    /* A page that a stopped process holds is not waited for again and again. */
    if (e->blocked)
        return;
    struct fb_key key = {.lo = lo, .check = check};
    e->blocked = fb_drop_expired(s, &key) == -ETIMEDOUT;
}

static void expire_some(fb_store *s)
{
    if (!atomic_load(&s->shared->any_expiry))
        return;
    uint32_t pages = atomic_load(&s->shared->page_count);
    uint32_t first = s->expire_page < pages ? s->expire_page : 0;
    uint32_t count = pages - first < EXPIRE_PAGES_A_ROUND ? pages - first : EXPIRE_PAGES_A_ROUND;
    struct expiry e = {.store = s, .now_s = fb_now_s(s), .left = s->expire_left};
    if (first == 0) {
        e.left = 0;
        atomic_store(&s->shared->any_expiry, 2);
    }
    fb_index_visit(s, first, count, expire_slot, &e);
    s->expire_page = first + count;
    s->expire_left = e.left;
    uint32_t unchanged = 2;
    /* A whole pass saw none: stop looking, unless one was set during the pass. */
    if (first + count >= pages && e.left == 0)
        atomic_compare_exchange_strong(&s->shared->any_expiry, &unchanged, 0);
}

static void promote_some(fb_store *s)
{
    struct fb_key key = {0};
    int64_t now = fb_boottime_ms();
    uint64_t rate = s->config.promote_bytes_per_second;
    s->promote_tokens += (uint64_t)(now - s->promote_refill_ms) * rate / 1000;
    if (s->promote_tokens > rate)
        s->promote_tokens = rate;
    s->promote_refill_ms = now;
    for (uint32_t n = 0; n < PROMOTIONS_A_ROUND && s->promote_tokens > 0 && fb_promote_take(s, &key) == 0;
         n++) {
        uint64_t moved = 0;
        int r = fb_promote(s, &key, &moved);
        s->promote_tokens -= moved < s->promote_tokens ? moved : s->promote_tokens;
        if (r == -ETIMEDOUT)
            break;
    }
}

/* Reads are stamped with the time of the last round. While nobody maintained it stood still: a read that
 * bears it may have been a moment ago, and counts as such. */
static void move_clock(fb_store *s)
{
    uint32_t before = atomic_load(&s->shared->now_s), now = fb_now_s(s);
    for (uint32_t i = 0; now > before + ROUND_S_MAX && i < FB_DATASETS_MAX; i++) {
        uint32_t stamp = before;
        atomic_compare_exchange_strong(&s->datasets[i].read_s, &stamp, now);
    }
    atomic_store(&s->shared->now_s, now);
}

static bool maintain_locked(fb_store *s, bool upkeep)
{
    atomic_store(&s->shared->maintainer_beat_ms, fb_boottime_ms());
    move_clock(s);
    bool more = fb_rebuild_some(s);
    for (uint32_t segment = 0; upkeep && segment < s->segment_count; segment++)
        adopt_orphan(s, segment);
    settle_held(s);
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        if (upkeep) {
            fb_tier_probe(s, tier);
            fit_quota(s, tier);
        }
        more |= fb_tier_evict(s, tier);
    }
    promote_some(s);
    if (upkeep) {
        expire_some(s);
        fb_quota_mend(s);
    }
    return more;
}

/* A caller of fb_maintain may meet the thread of its own process. */
bool fb_maintain_round(fb_store *s, bool upkeep)
{
    pthread_mutex_lock(&s->round_lock);
    bool more = maintain_locked(s, upkeep);
    pthread_mutex_unlock(&s->round_lock);
    return more;
}

static bool upkeep_is_due(fb_store *s)
{
    int64_t now = fb_boottime_ms();
    bool due = now - s->upkeep_ms >= (int64_t)IDLE_MS;
    if (due)
        s->upkeep_ms = now;
    return due;
}

/* ---- the threads ---- */

void fb_sync_sealed(fb_store *s)
{
    for (uint32_t segment = 0; segment < s->segment_count; segment++) {
        struct fb_segment *seg = &s->segments[segment];
        if (!(atomic_load(&seg->flags) & FB_SEG_UNSYNCED) || fb_segment_state_of(s, segment) != FB_SEALED)
            continue;
        atomic_fetch_and(&seg->flags, ~(uint32_t)FB_SEG_UNSYNCED);
        int r = fb_segfile_sync(s, segment);
        if (r == 0 || fb_error_is_own(-r))
            continue;
        /* What the disk refused is in memory only, until its pages are dropped: old bytes would come back. */
        fb_tier_fault(s, s->segment_tier[segment], -r);
        fb_segment_retire(s, segment, FB_EVICT_FORCE);
    }
}

static void *maintain(void *argument)
{
    fb_store *s = argument;
    while (!atomic_load(&s->maintainer_stop)) {
        uint32_t seen = atomic_load(&s->shared->maintainer_wake);
        if (!fb_maintain_round(s, upkeep_is_due(s)) && !atomic_load(&s->maintainer_stop))
            fb_futex_wait(&s->shared->maintainer_wake, seen, IDLE_MS);
    }
    return NULL;
}

/* Apart from the maintainer, for a sync may take seconds and eviction must not wait for it. */
static void *sync_in_background(void *argument)
{
    fb_store *s = argument;
    while (!atomic_load(&s->maintainer_stop)) {
        fb_sync_sealed(s);
        fb_futex_wait(&s->syncer_wake, 0, SYNC_IDLE_MS);
    }
    return NULL;
}

static int take_maintainer_lock(fb_store *s)
{
    int fd = fb_open_regular(s->root_fd, "rows.lock", O_RDWR, 0);
    if (fd < 0)
        return fd;
    int r = fb_byte_lock(fd, F_WRLCK, FB_MAINTAINER_BYTE(s));
    if (r != 0) {
        close(fd);
        return r;
    }
    s->maintainer_fd = fd;
    return 0;
}

static void start_threads(fb_store *s)
{
    sigset_t all, before;
    sigfillset(&all);
    /* Signals are for the embedding process's own threads. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_store(&s->maintainer_stop, false);
    atomic_store(&s->syncer_wake, 0);
    if (pthread_create(&s->maintainer, NULL, maintain, s) == 0) {
        s->maintainer_running = true;
        s->syncer_running = pthread_create(&s->syncer, NULL, sync_in_background, s) == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void fb_maintainer_start(fb_store *s)
{
    int64_t beat = atomic_load_explicit(&s->shared->maintainer_beat_ms, memory_order_relaxed);
    if (fb_likely(s->maintainer_running) || s->config.no_maintainer ||
        fb_boottime_ms() - beat < BEAT_STALE_MS || pthread_mutex_trylock(&s->maintainer_lock) != 0)
        return;
    if (!s->maintainer_running && take_maintainer_lock(s) == 0) {
        atomic_store(&s->shared->maintainer_beat_ms, fb_boottime_ms());
        s->promote_refill_ms = fb_boottime_ms();
        start_threads(s);
        if (!s->maintainer_running) {
            close(s->maintainer_fd);
            s->maintainer_fd = -1;
        }
    }
    pthread_mutex_unlock(&s->maintainer_lock);
}

/* The beat of a process that was killed stays fresh for a while; who wants room does not wait for that. */
static void replace_dead_maintainer(fb_store *s)
{
    if (s->maintainer_running || s->config.no_maintainer ||
        fb_byte_is_locked(s->probe_fd, FB_MAINTAINER_BYTE(s)))
        return;
    atomic_store(&s->shared->maintainer_beat_ms, 0);
    fb_maintainer_start(s);
}

void fb_maintainer_wake(fb_store *s)
{
    replace_dead_maintainer(s);
    atomic_fetch_add(&s->shared->maintainer_wake, 1);
    fb_futex_wake(&s->shared->maintainer_wake, 1);
}

void fb_maintainer_stop(fb_store *s)
{
    pthread_mutex_lock(&s->maintainer_lock);
    if (s->maintainer_running) {
        atomic_store(&s->maintainer_stop, true);
        atomic_store(&s->syncer_wake, 1);
        fb_futex_wake(&s->syncer_wake, 1);
        fb_maintainer_wake(s);
        pthread_join(s->maintainer, NULL);
        if (s->syncer_running)
            pthread_join(s->syncer, NULL);
        atomic_store(&s->shared->maintainer_beat_ms, 0);
        close(s->maintainer_fd);
    }
    s->maintainer_fd = -1;
    s->maintainer_running = s->syncer_running = false;
    pthread_mutex_unlock(&s->maintainer_lock);
}

void fb_maintainer_forget(fb_store *s)
{
    if (s->maintainer_fd >= 0)
        close(s->maintainer_fd);
    s->maintainer_fd = -1;
    s->maintainer_running = s->syncer_running = false;
    s->live_count.used_by = UINT32_MAX; /* the parent's thread may have been in the middle of it */
    /* It may have been locked by the parent's thread, which is not here to unlock it. */
    pthread_mutex_init(&s->round_lock, NULL);
}

int fb_maintain(fb_store *s)
{
    if (!s->has_row)
        return -EROFS;
    if (s->maintainer_running) {
        fb_maintain_round(s, true);
        return 0;
    }
    pthread_mutex_lock(&s->maintainer_lock);
    int r = take_maintainer_lock(s);
    if (r == 0) {
        fb_maintain_round(s, true);
        atomic_store(&s->shared->maintainer_beat_ms, 0);
        close(s->maintainer_fd);
        s->maintainer_fd = -1;
    }
    pthread_mutex_unlock(&s->maintainer_lock);
    return r == -EAGAIN ? -EBUSY : r;
}

int fb_clock_advance(fb_store *s, int64_t milliseconds)
{
    if (s->read_only)
        return -EROFS;
    atomic_fetch_add(&s->shared->clock_offset_ms, milliseconds);
    atomic_store(&s->shared->now_s, fb_now_s(s));
    return 0;
}
