/* Single flight: a small shared table of keys being fetched, so that a host fetches a block once. */
#include "clock.h"
#include "failpoint.h"
#include "index.h"
#include "rows.h"

/* Whoever holds the lock for so long is taken for stopped. On a crowded machine a process may get no
 * processor for hundreds of milliseconds, and who passes it by asks the storage once more. */
#define BUCKET_TIMEOUT_MS 1000u

static struct fb_flight_bucket *bucket_of(fb_store *s, uint64_t lo)
{
    return &s->flights[(lo >> 20) % FB_FLIGHT_BUCKETS];
}

static struct fb_flight *entry_of(fb_store *s, const struct fb_flight_ticket *ticket)
{
    return &bucket_of(s, ticket->lo)->entries[ticket->entry];
}

static void lead(fb_store *s, struct fb_flight *flight, const struct fb_key *key)
{
    atomic_store(&flight->lo, key->lo);
    atomic_store(&flight->check, key->check);
    atomic_fetch_add(&flight->progress, 1);
    atomic_store(&flight->owner, s->me);
}

/* Under the bucket's lock. */
static int begin_locked(fb_store *s, struct fb_flight_bucket *bucket, const struct fb_key *key,
                        struct fb_flight_ticket *ticket)
{
    uint32_t vacant = FB_NO_SEGMENT;
    for (uint32_t i = 0; i < FB_FLIGHT_WAYS; i++) {
        struct fb_flight *flight = &bucket->entries[i];
        uint32_t owner = atomic_load(&flight->owner);
        bool same =
            owner != 0 && atomic_load(&flight->lo) == key->lo && atomic_load(&flight->check) == key->check;
        if (owner != 0 && fb_owner_is_dead(s, owner)) {
            if (same)
                fb_count(s, FB_C_FLIGHT_TAKEOVERS, 1);
            atomic_store(&flight->owner, 0);
            atomic_fetch_add(&flight->done, 1);
            fb_futex_wake(&flight->done, INT32_MAX);
            owner = 0;
        } else if (same) {
            ticket->entry = i;
            ticket->owner = owner;
            ticket->progress_seen = atomic_load(&flight->progress);
            ticket->done_seen = atomic_load(&flight->done);
            return -EALREADY;
        }
        if (owner == 0 && vacant == FB_NO_SEGMENT)
            vacant = i;
    }
    if (vacant == FB_NO_SEGMENT)
        return -EAGAIN;
    lead(s, &bucket->entries[vacant], key);
    ticket->entry = vacant;
    ticket->owner = s->me;
    ticket->leads = true;
    return 0;
}

static int begin(fb_store *s, const struct fb_key *key, uint32_t timeout_ms, struct fb_flight_ticket *ticket)
{
    struct fb_flight_bucket *bucket = bucket_of(s, key->lo);
    *ticket = (struct fb_flight_ticket){
        .lo = key->lo, .check = key->check, .entry = FB_NO_SEGMENT, .since_ms = fb_boottime_ms()};
    if (!s->has_row)
        return -EAGAIN;
    if (timeout_ms == 0 ? !fb_try_lock(s, &bucket->lock)
                        : fb_lock(s, &bucket->lock, timeout_ms) == -ETIMEDOUT)
        return -EBUSY;
    FB_POINT("flight.locked");
    int r = begin_locked(s, bucket, key, ticket);
    fb_unlock(&bucket->lock);
    FB_POINT("flight.begun");
    return r;
}

/* A leader looks once more before it fetches. A writer who lost its processor in the midst of a page would
 * hide from it what is there, so it is waited for; what a dead one left behind is mended. */
static void settle(fb_store *s, const struct fb_key *key)
{
    uint32_t page;
    if (!fb_index_is_settled(s, key->lo) && fb_index_lock(s, key->lo, &page) == 0)
        fb_index_unlock(s, page);
}

int fb_flight_begin(fb_store *s, const struct fb_key *key, struct fb_flight_ticket *ticket)
{
    if (s->has_row)
        settle(s, key);
    int r = begin(s, key, BUCKET_TIMEOUT_MS, ticket);
    return r == -EBUSY ? -EAGAIN : r;
}

int fb_flight_begin_at_once(fb_store *s, const struct fb_key *key, struct fb_flight_ticket *ticket)
{
    return fb_index_is_settled(s, key->lo) ? begin(s, key, 0, ticket) : -EBUSY;
}

static bool is_mine(fb_store *s, const struct fb_flight_ticket *ticket)
{
    return ticket->leads && ticket->entry != FB_NO_SEGMENT && ticket->owner == s->me &&
           atomic_load(&entry_of(s, ticket)->owner) == s->me;
}

void fb_flight_progress(fb_store *s, struct fb_flight_ticket *ticket)
{
    if (is_mine(s, ticket))
        atomic_fetch_add(&entry_of(s, ticket)->progress, 1);
}

void fb_flight_end(fb_store *s, struct fb_flight_ticket *ticket)
{
    if (is_mine(s, ticket)) {
        struct fb_flight *flight = entry_of(s, ticket);
        atomic_store(&flight->owner, 0);
        atomic_fetch_add(&flight->done, 1);
        fb_futex_wake(&flight->done, INT32_MAX);
    }
    ticket->entry = FB_NO_SEGMENT;
}

int fb_flight_wait(fb_store *s, struct fb_flight_ticket *ticket, uint32_t step_ms)
{
    if (ticket->entry == FB_NO_SEGMENT)
        return 0;
    struct fb_flight *flight = entry_of(s, ticket);
    uint32_t done = atomic_load(&flight->done);
    uint32_t owner = atomic_load(&flight->owner);
    if (done != ticket->done_seen || owner != ticket->owner || atomic_load(&flight->lo) != ticket->lo ||
        atomic_load(&flight->check) != ticket->check || fb_owner_is_dead(s, owner))
        return 0;
    uint32_t progress = atomic_load(&flight->progress);
    int64_t now = fb_boottime_ms();
    if (progress != ticket->progress_seen) {
        ticket->progress_seen = progress;
        ticket->since_ms = now;
    } else if (now - ticket->since_ms >= (int64_t)s->config.stall_timeout_ms) {
        fb_count(s, FB_C_FLIGHT_STALLED, 1);
        return -ESTALE;
    }
    fb_count(s, FB_C_FLIGHT_WAITS, 1);
    fb_futex_wait(&flight->done, done, step_ms);
    return atomic_load(&flight->owner) == owner && atomic_load(&flight->done) == done ? -EAGAIN : 0;
}
