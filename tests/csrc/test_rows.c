/* Process rows and lock words: who is alive, what the dead leave behind, who waits for how long. */
#include <pthread.h>
#include <unistd.h>

#include "platform.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)

static struct fixture f;

/* ---- rows ---- */

TEST(each_handle_has_a_row_and_a_word_of_its_own)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    CHECK_EQ(a->row, 0);
    CHECK_EQ(b->row, 1);
    CHECK_NE(a->me, b->me);
    CHECK(fb_byte_is_locked(a->probe_fd, b->row));
    CHECK(!fb_byte_is_locked(a->probe_fd, 2));
    CHECK(!fb_owner_is_dead(a, b->me));
    CHECK(!fb_owner_is_dead(b, a->me));
    CHECK_EQ(atomic_load(&a->rows[b->row].pid), getpid());
    CHECK(strlen(a->rows[b->row].name) > 0);
    fb_close(b);
    CHECK(!fb_byte_is_locked(a->probe_fd, 1));
    fixture_end_store(&f, a);
}

TEST(a_row_taken_anew_has_another_incarnation)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    uint32_t row = victim->row, word = victim->me;
    fixture_kill(victim);
    CHECK(fb_owner_is_dead(a, word));
    fb_store *heir = fixture_open(&f);
    CHECK_EQ(heir->row, row);
    CHECK_NE(heir->me, word);
    CHECK(fb_owner_is_dead(a, word));
    CHECK(!fb_owner_is_dead(a, heir->me));
    fb_close(heir);
    fixture_end_store(&f, a);
}

TEST(words_that_no_row_ever_wrote)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(!fb_owner_is_dead(s, 0));
    CHECK(!fb_owner_is_dead(s, 0x80000000u));             /* only the mark of waiters */
    CHECK(fb_owner_is_dead(s, s->super->row_count + 1u)); /* beyond the table */
    CHECK(fb_owner_is_dead(s, 0x7fffffffu));
    CHECK(fb_owner_is_dead(s, 0x00010000u)); /* an incarnation without a row */
    fixture_end_store(&f, s);
}

TEST(a_full_table_still_reads_by_copies)
{
    fixture_begin(&f, QUOTA);
    f.config.row_count = 2;
    fb_store *a = fixture_open(&f), *b = fixture_open(&f), *c = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    uint64_t copied = 0;
    uint8_t part[16], whole[5000];

    CHECK(!c->has_row);
    CHECK(block_put(a, 1, 0, sizeof whole));
    struct fb_hit hit = block_hold(c, 1);
    CHECK(hit.owned != NULL);
    CHECK(block_is(1, 0, hit.data, sizeof whole));
    CHECK_EQ(atomic_load(&a->leases[hit.segment]), 0);
    fb_release(c, &hit);
    block_bytes(1, 0, whole, sizeof whole);
    CHECK_EQ(fb_read(c, &key, NOBODY, 100, part, sizeof part, &copied), 0);
    CHECK_EQ(copied, sizeof part);
    CHECK_BYTES_EQ(part, whole + 100, sizeof part);
    CHECK(fb_contains(c, &key));

    CHECK_NE(fb_put(c, &key, TERMS(0, -1), whole, sizeof whole), 0);
    CHECK_EQ(fb_delete(c, &key), -EROFS);
    CHECK_NE(fb_pin(c, &key, NULL), 0);
    CHECK_EQ(fb_expire(c, &key, 10), -EROFS);
    CHECK_EQ(fb_maintain(c), -EROFS);
    CHECK(block_hit(b, 1, 0, sizeof whole));
    fb_close(c);

    fb_close(b);
    fb_store *d = fixture_open(&f);
    CHECK(d->has_row);
    fb_close(d);
    fixture_end_store(&f, a);
}

TEST(leases_of_the_dead_are_cleared_and_those_of_the_living_stay)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    CHECK(block_put(a, 1, 0, 5000));
    struct fb_hit mine = block_hold(a, 1), theirs = block_hold(b, 1);
    uint32_t segment = mine.segment;
    struct fb_holder holders[4];

    CHECK(mine.owned == NULL && theirs.owned == NULL);
    CHECK(fb_segment_is_leased(a, segment));
    CHECK_EQ(fb_holders(a, holders, 4), 2);
    CHECK_EQ(holders[1].row, b->row);
    CHECK_EQ(holders[1].leases, 1);
    CHECK_EQ(fb_holders(a, holders, 1), 1);

    uint32_t row = b->row;
    fixture_kill(b);
    CHECK(fb_segment_is_leased(a, segment)); /* by a itself */
    CHECK_EQ(fb_holders(a, holders, 4), 1);
    fb_release(a, &mine);
    CHECK_EQ(atomic_load(&a->leases[row * a->segment_count + segment]), 1);
    CHECK(!fb_segment_is_leased(a, segment));
    CHECK_EQ(atomic_load(&a->leases[row * a->segment_count + segment]), 0);
    fixture_end_store(&f, a);
}

TEST(an_heir_does_not_inherit_leases)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    CHECK(block_put(a, 1, 0, 5000));
    struct fb_hit hit = block_hold(b, 1);
    atomic_store(&b->rows[b->row].held_bytes, 12345);
    fixture_kill(b);
    fb_store *heir = fixture_open(&f);
    CHECK_EQ(atomic_load(&heir->row_leases[hit.segment]), 0);
    CHECK_EQ(atomic_load(&heir->rows[heir->row].held_bytes), 0);
    fb_close(heir);
    fixture_end_store(&f, a);
}

/* ---- lock words ---- */

TEST(a_lock_of_the_dead_is_taken_over_once)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    fb_lockword lock = 0;
    CHECK_EQ(fb_lock(victim, &lock, 1000), 0);
    CHECK_EQ(fb_lock(a, &lock, 50), -ETIMEDOUT);
    fixture_kill(victim);
    CHECK_EQ(fb_lock(a, &lock, 1000), -EOWNERDEAD);
    CHECK_EQ(store_counter(a, FB_C_LOCK_TAKEOVERS), 1);
    fb_unlock(&lock);
    CHECK_EQ(atomic_load(&lock), 0);
    CHECK_EQ(fb_lock(a, &lock, 1000), 0);
    fb_unlock(&lock);
    fixture_end_store(&f, a);
}

TEST(a_lock_of_the_living_times_out)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    fb_lockword lock = 0;
    CHECK_EQ(fb_lock(b, &lock, 1000), 0);
    int64_t before = fb_boottime_ms();
    CHECK_EQ(fb_lock(a, &lock, 150), -ETIMEDOUT);
    CHECK_GE(fb_boottime_ms() - before, 150);
    CHECK_EQ(atomic_load(&lock) & 0x7fffffffu, b->me);
    fb_unlock(&lock);
    CHECK_EQ(atomic_load(&lock), 0);
    fb_close(b);
    fixture_end_store(&f, a);
}

struct waiter {
    fb_store *store;
    fb_lockword *lock;
    int result;
    pthread_t thread;
};

static void *wait_for_lock(void *argument)
{
    struct waiter *waiter = argument;
    waiter->result = fb_lock(waiter->store, waiter->lock, 30000);
    return NULL;
}

/* Returns once it waits. */
static void begin_to_wait(struct waiter *waiter)
{
    CHECK_EQ(pthread_create(&waiter->thread, NULL, wait_for_lock, waiter), 0);
    while (!(atomic_load(waiter->lock) & 0x80000000u))
        usleep(100);
}

static int waited(struct waiter *waiter)
{
    CHECK_EQ(pthread_join(waiter->thread, NULL), 0);
    return waiter->result;
}

TEST(an_unlock_wakes_who_waits)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    fb_lockword lock = 0;
    struct waiter waiter = {.store = b, .lock = &lock, .result = 1};
    CHECK_EQ(fb_lock(a, &lock, 1000), 0);
    begin_to_wait(&waiter);
    fb_unlock(&lock);
    CHECK_EQ(waited(&waiter), 0);
    CHECK_EQ(atomic_load(&lock) & 0x7fffffffu, b->me);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(death_is_noticed_while_waiting)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    fb_lockword lock = 0;
    struct waiter waiter = {.store = a, .lock = &lock, .result = 1};
    CHECK_EQ(fb_lock(victim, &lock, 1000), 0);
    begin_to_wait(&waiter);
    fixture_die(victim);
    CHECK_EQ(waited(&waiter), -EOWNERDEAD);
    fixture_kill(victim);
    fixture_end_store(&f, a);
}

struct contender {
    fb_store *store;
    fb_lockword *lock;
    uint64_t *total; /* not atomic: the lock is what guards it */
};

static void *add_under_lock(void *argument)
{
    struct contender *c = argument;
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(fb_lock(c->store, c->lock, 30000), 0);
        ++*c->total;
        fb_unlock(c->lock);
    }
    return NULL;
}

TEST(one_at_a_time_within_a_process_and_between_processes)
{
    enum { THREADS = 4 };
    fixture_begin(&f, QUOTA);
    fb_store *stores[2] = {fixture_open(&f), fixture_open(&f)};
    fb_lockword lock = 0;
    uint64_t total = 0;
    pthread_t threads[THREADS];
    struct contender contenders[THREADS];
    for (int i = 0; i < THREADS; i++) {
        contenders[i] = (struct contender){stores[i % 2], &lock, &total};
        CHECK_EQ(pthread_create(&threads[i], NULL, add_under_lock, &contenders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(total, THREADS * 2000);
    CHECK_EQ(atomic_load(&lock), 0);
    fb_close(stores[1]);
    fb_close(stores[0]);
    fixture_end(&f);
}

/* A page whose lock a live but stopped process holds: writers give up in time, readers go on. */
TEST(a_stopped_writer_stops_nobody_for_long)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *stopped = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    CHECK(block_put(a, 1, 0, 5000));
    struct fb_page_meta *meta = &a->metas[block_found(a, 1).page];
    CHECK_EQ(fb_lock(stopped, &meta->lock, 1000), 0);
    CHECK(block_hit(a, 1, 0, 5000));
    CHECK_EQ(fb_delete(a, &key), -ETIMEDOUT);
    CHECK(!block_put(a, 1, 1, 5000)); /* not admitted */
    CHECK(block_hit(a, 1, 0, 5000));
    /* In the middle of a write the reader misses, and the cause is told. */
    atomic_fetch_add(&meta->sequence, 1);
    CHECK(!block_hit(a, 1, 0, 5000));
    CHECK_EQ(store_counter(a, FB_C_MISS_BUSY), 1);
    atomic_fetch_add(&meta->sequence, 1);
    fb_unlock(&meta->lock);
    CHECK_EQ(fb_delete(a, &key), 0);
    fb_close(stopped);
    fixture_end_store(&f, a);
}

CHECK_MAIN
