/* Single flight: one fetcher of a key, those who wait for it, and fetchers that die, stall or begin again. */
#include <pthread.h>
#include <unistd.h>

#include "index.h"
#include "platform.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define STEP_MS 20u

static struct fixture f;
static fb_store *a, *b;

static void begin(uint32_t stall_timeout_ms)
{
    fixture_begin(&f, QUOTA);
    f.config.stall_timeout_ms = stall_timeout_ms;
    a = fixture_open(&f);
    b = fixture_open(&f);
}

static void end(void)
{
    fb_close(b);
    fixture_end_store(&f, a);
}

static int lead_or_follow(fb_store *s, uint64_t number, struct fb_flight_ticket *ticket)
{
    struct fb_key key = key_of_number(number);
    return fb_flight_begin(s, &key, ticket);
}

TEST(one_leads_and_the_others_follow_until_it_ends)
{
    struct fb_flight_ticket first, second, third, other;
    begin(60000);
    CHECK_EQ(lead_or_follow(a, 1, &first), 0);
    CHECK_EQ(lead_or_follow(b, 1, &second), -EALREADY);
    CHECK_EQ(lead_or_follow(a, 1, &third), -EALREADY); /* another thread of the leader's process */
    CHECK_EQ(lead_or_follow(b, 2, &other), 0);
    CHECK_EQ(fb_flight_wait(b, &second, STEP_MS), -EAGAIN);
    CHECK_EQ(fb_flight_wait(a, &third, STEP_MS), -EAGAIN);
    fb_flight_end(a, &first);
    CHECK_EQ(fb_flight_wait(b, &second, 30000), 0);
    CHECK_EQ(fb_flight_wait(a, &third, 30000), 0);
    CHECK_EQ(lead_or_follow(b, 1, &second), 0);
    fb_flight_end(b, &second);
    fb_flight_end(b, &other);
    fb_flight_end(b, &other); /* again: nothing */
    CHECK_EQ(store_counter(a, FB_C_FLIGHT_WAITS), 2);
    CHECK_EQ(store_counter(a, FB_C_FLIGHT_TAKEOVERS), 0);
    end();
}

TEST(only_the_leader_ends_a_flight)
{
    struct fb_flight_ticket leader, same_process, other_process;
    begin(60000);
    CHECK_EQ(lead_or_follow(a, 1, &leader), 0);
    CHECK_EQ(lead_or_follow(a, 1, &same_process), -EALREADY);
    CHECK_EQ(lead_or_follow(b, 1, &other_process), -EALREADY);
    fb_flight_end(a, &same_process);
    fb_flight_end(b, &other_process);
    CHECK_EQ(lead_or_follow(b, 1, &other_process), -EALREADY);
    fb_flight_end(a, &leader);
    CHECK_EQ(lead_or_follow(b, 1, &other_process), 0);
    fb_flight_end(b, &other_process);
    end();
}

/* Who waited for the first is not made to wait for a second of the same key by the same fetcher. */
TEST(a_flight_that_begins_again_is_another_flight)
{
    struct fb_flight_ticket leader, follower;
    begin(60000);
    CHECK_EQ(lead_or_follow(a, 1, &leader), 0);
    CHECK_EQ(lead_or_follow(b, 1, &follower), -EALREADY);
    fb_flight_end(a, &leader);
    CHECK_EQ(lead_or_follow(a, 1, &leader), 0);
    CHECK_EQ(fb_flight_wait(b, &follower, STEP_MS), 0);
    fb_flight_end(a, &leader);
    end();
}

struct wait {
    fb_store *store;
    struct fb_flight_ticket ticket;
    int result;
};

static void *wait_to_the_end(void *argument)
{
    struct wait *w = argument;
    do
        w->result = fb_flight_wait(w->store, &w->ticket, 30000);
    while (w->result == -EAGAIN);
    return NULL;
}

TEST(an_end_wakes_who_waits)
{
    struct fb_flight_ticket leader;
    struct wait waits[3];
    pthread_t threads[3];
    begin(60000);
    CHECK_EQ(lead_or_follow(a, 1, &leader), 0);
    for (int i = 0; i < 3; i++) {
        waits[i] = (struct wait){.store = i ? b : a};
        CHECK_EQ(lead_or_follow(waits[i].store, 1, &waits[i].ticket), -EALREADY);
        CHECK_EQ(pthread_create(&threads[i], NULL, wait_to_the_end, &waits[i]), 0);
    }
    while (store_counter(a, FB_C_FLIGHT_WAITS) < 3)
        usleep(100);
    int64_t before = fb_boottime_ms();
    fb_flight_end(a, &leader);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(waits[i].result, 0);
    }
    CHECK_LT(fb_boottime_ms() - before, 20000); /* woken, not timed out */
    end();
}

TEST(a_dead_fetcher_is_taken_over)
{
    struct fb_flight_ticket victims, follower, heir;
    begin(60000);
    fb_store *victim = fixture_open(&f);
    CHECK_EQ(lead_or_follow(victim, 1, &victims), 0);
    CHECK_EQ(lead_or_follow(b, 1, &follower), -EALREADY);
    CHECK_EQ(fb_flight_wait(b, &follower, STEP_MS), -EAGAIN);
    fixture_kill(victim);
    CHECK_EQ(fb_flight_wait(b, &follower, 30000), 0);
    CHECK_EQ(lead_or_follow(a, 1, &heir), 0);
    CHECK_EQ(store_counter(a, FB_C_FLIGHT_TAKEOVERS), 1);
    CHECK_EQ(lead_or_follow(b, 1, &follower), -EALREADY);
    fb_flight_end(a, &heir);
    end();
}

TEST(a_fetcher_without_progress_is_passed_by)
{
    struct fb_flight_ticket leader, follower;
    begin(50);
    CHECK_EQ(lead_or_follow(a, 1, &leader), 0);
    CHECK_EQ(lead_or_follow(b, 1, &follower), -EALREADY);
    /* As long as there is progress the waiting goes on, however long it takes. */
    int64_t begun = fb_boottime_ms();
    while (fb_boottime_ms() - begun < 120) {
        fb_flight_progress(a, &leader);
        CHECK_EQ(fb_flight_wait(b, &follower, 5), -EAGAIN);
    }
    fb_flight_progress(b, &follower); /* only the fetcher's own counts */
    int r;
    do
        r = fb_flight_wait(b, &follower, 5);
    while (r == -EAGAIN);
    CHECK_EQ(r, -ESTALE);
    CHECK_EQ(store_counter(a, FB_C_FLIGHT_STALLED), 1);
    fb_flight_end(a, &leader);
    end();
}

/* Keys of one bucket. */
static struct fb_key crowded(uint64_t i)
{
    return (struct fb_key){.lo = 5ull << 20 | i, .check = i};
}

TEST(a_full_bucket_lets_everyone_fetch_alone)
{
    struct fb_flight_ticket tickets[FB_FLIGHT_WAYS + 1];
    begin(60000);
    fb_store *victim = fixture_open(&f);
    for (uint64_t i = 0; i <= FB_FLIGHT_WAYS; i++) {
        struct fb_key key = crowded(i);
        CHECK_EQ(fb_flight_begin(i ? a : victim, &key, &tickets[i]), i < FB_FLIGHT_WAYS ? 0 : -EAGAIN);
    }
    struct fb_flight_ticket *alone = &tickets[FB_FLIGHT_WAYS];
    CHECK_EQ(fb_flight_wait(a, alone, 30000), 0);
    fb_flight_progress(a, alone);
    fb_flight_end(a, alone);
    /* The place of one that died is free. */
    struct fb_key key = crowded(FB_FLIGHT_WAYS);
    fixture_kill(victim);
    CHECK_EQ(fb_flight_begin(a, &key, alone), 0);
    for (uint64_t i = 1; i <= FB_FLIGHT_WAYS; i++)
        fb_flight_end(a, &tickets[i]);
    for (uint64_t i = 0; i < FB_FLIGHT_WAYS; i++) {
        key = crowded(100 + i);
        CHECK_EQ(fb_flight_begin(b, &key, &tickets[i]), 0);
    }
    end();
}

TEST(a_locked_bucket_is_not_waited_for_long)
{
    struct fb_flight_ticket ticket;
    begin(60000);
    fb_store *victim = fixture_open(&f);
    struct fb_key key = crowded(1);
    fb_lockword *lock = &a->flights[5].lock;
    CHECK_EQ(fb_lock(victim, lock, 1000), 0);
    CHECK_EQ(fb_flight_begin_at_once(a, &key, &ticket), -EBUSY);
    CHECK_EQ(fb_flight_begin(a, &key, &ticket), -EAGAIN);
    fixture_kill(victim);
    CHECK_EQ(fb_flight_begin_at_once(a, &key, &ticket), -EBUSY);
    CHECK_EQ(fb_flight_begin(a, &key, &ticket), 0);
    fb_flight_end(a, &ticket);
    CHECK_EQ(fb_flight_begin_at_once(a, &key, &ticket), 0);
    fb_flight_end(a, &ticket);
    end();
}

struct writer {
    uint32_t page;
    struct fb_flight_ticket ticket;
    int begun;
};

/* The writer is in the midst of the page that the key belongs to. */
static void enter_page(fb_store *s, const struct fb_key *key, struct writer *writer)
{
    CHECK_EQ(fb_index_lock(s, key->lo, &writer->page), 0);
    atomic_fetch_add(&s->metas[writer->page].sequence, 1);
    CHECK(!fb_index_is_settled(a, key->lo));
}

static void *begin_beside(void *argument)
{
    struct writer *writer = argument;
    writer->begun = lead_or_follow(a, 1, &writer->ticket);
    return NULL;
}

TEST(a_leader_waits_for_a_writer_in_the_page_of_its_key)
{
    struct writer writer;
    struct fb_key key = key_of_number(1);
    pthread_t thread;
    begin(60000);
    enter_page(b, &key, &writer);
    CHECK_EQ(fb_flight_begin_at_once(a, &key, &writer.ticket), -EBUSY);
    pthread_create(&thread, NULL, begin_beside, &writer);
    /* Until the thread has said that it waits. */
    while (atomic_load(&a->metas[writer.page].lock) == b->me)
        usleep(100);
    atomic_fetch_add(&b->metas[writer.page].sequence, 1);
    fb_index_unlock(b, writer.page);
    pthread_join(thread, NULL);
    CHECK_EQ(writer.begun, 0);
    CHECK(fb_index_is_settled(a, key.lo));
    fb_flight_end(a, &writer.ticket);
    end();
}

TEST(a_leader_mends_the_page_of_a_dead_writer)
{
    struct writer writer;
    struct fb_key key = key_of_number(1);
    begin(60000);
    fb_store *victim = fixture_open(&f);
    enter_page(victim, &key, &writer);
    fixture_kill(victim);
    CHECK_EQ(fb_flight_begin_at_once(a, &key, &writer.ticket), -EBUSY);
    CHECK_EQ(lead_or_follow(a, 1, &writer.ticket), 0);
    CHECK(fb_index_is_settled(a, key.lo));
    CHECK_EQ(store_counter(a, FB_C_PAGE_REPAIRS), 1);
    fb_flight_end(a, &writer.ticket);
    end();
}

TEST(who_has_no_row_fetches_alone)
{
    struct fb_flight_ticket ticket;
    begin(60000);
    f.config.read_only = true;
    fb_store *reader = fixture_open(&f);
    CHECK_EQ(lead_or_follow(reader, 1, &ticket), -EAGAIN);
    CHECK_EQ(fb_flight_wait(reader, &ticket, 30000), 0);
    fb_flight_end(reader, &ticket);
    fb_close(reader);
    end();
}

CHECK_MAIN
