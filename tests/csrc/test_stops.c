/* A reader and a writer stopped at whatever instruction they happen to be in, while the world moves on.
 *
 * A signal stops the thread in its handler; meanwhile its block's segment is retired and written anew. What
 * the thread does next must be right at every instruction, and over the rounds it is stopped at very many.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#include "evict.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define ROUNDS 300u
#define VERSIONS 50u
#define BASE_LENGTH 64u /* short, so that the thread is in the look-up most of the time */

static struct fixture f;
static fb_store *own, *other; /* the thread's, and the one that moves the world on */
static _Atomic bool stop_asked, stopped, ended;
static _Atomic uint64_t turns, hits;

static uint64_t length_of(uint32_t version)
{
    return BASE_LENGTH + version;
}

static void stop_here(int signal)
{
    const struct timespec moment = {.tv_nsec = 20000};
    (void)signal;
    atomic_store(&stopped, true);
    while (atomic_load(&stop_asked))
        nanosleep(&moment, NULL);
    atomic_store(&stopped, false);
}

static void *read_on(void *argument)
{
    struct fb_key key = key_of_number(0);
    (void)argument;
    while (!atomic_load(&ended)) {
        struct fb_hit hit;
        if (fb_get(own, &key, NOBODY, false, &hit) == 0) {
            CHECK_LT(hit.length_bytes - BASE_LENGTH, VERSIONS);
            CHECK(block_is(0, (uint32_t)(hit.length_bytes - BASE_LENGTH), hit.data, hit.length_bytes));
            fb_release(own, &hit);
            atomic_fetch_add(&hits, 1);
        }
        atomic_fetch_add(&turns, 1);
    }
    return NULL;
}

static void *write_on(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; !atomic_load(&ended); i++) {
        block_put(own, 1 + i % 5, i % VERSIONS, length_of(i % VERSIONS));
        atomic_fetch_add(&turns, 1);
    }
    return NULL;
}

/* Block 0 lies behind a filler, so that its next version comes to lie where the last one lay. */
static void put_anew(uint32_t version)
{
    CHECK(block_put(other, 1000 + version % 2, version, 200));
    CHECK(block_put(other, 0, version, length_of(version)));
}

static void retire_all(void)
{
    for (uint32_t segment = 0; segment < other->super->tiers[0].segment_count; segment++) {
        fb_segment_seal(other, segment);
        int r = fb_segment_retire(other, segment, FB_EVICT_FORCE);
        CHECK(r == 0 || r == -EBUSY || r == -ETIMEDOUT);
    }
    for (uint32_t segment = 0; segment < other->super->tiers[0].segment_count; segment++)
        fb_segment_unhold(other, segment);
}

static void stop_somewhere(pthread_t thread, uint32_t round)
{
    uint64_t seen = atomic_load(&turns);
    while (atomic_load(&turns) == seen)
        sched_yield();
    for (volatile uint32_t spin = round * 2654435761u >> 22; spin > 0; spin--)
        ;
    atomic_store(&stop_asked, true);
    CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
    while (!atomic_load(&stopped))
        sched_yield();
}

static void let_go(void)
{
    atomic_store(&stop_asked, false);
    while (atomic_load(&stopped))
        sched_yield();
}

static pthread_t begin(void *(*body)(void *))
{
    const struct sigaction action = {.sa_handler = stop_here};
    pthread_t thread;
    fixture_begin(&f, QUOTA);
    own = fixture_open(&f);
    other = fixture_open(&f);
    put_anew(0);
    atomic_store(&ended, false);
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ(pthread_create(&thread, NULL, body, NULL), 0);
    return thread;
}

static void end(pthread_t thread)
{
    atomic_store(&ended, true);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (uint32_t segment = 0; segment < own->segment_count; segment++)
        CHECK_EQ(atomic_load(&own->row_leases[segment]), 0);
    store_is_sound(other);
    fb_close(other);
    fixture_end_store(&f, own);
}

TEST(a_reader_stopped_anywhere_uses_no_bytes_of_another_use)
{
    pthread_t thread = begin(read_on);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        stop_somewhere(thread, round);
        retire_all();
        put_anew(round % VERSIONS);
        let_go();
    }
    CHECK_GT(atomic_load(&hits), ROUNDS);
    end(thread);
}

TEST(a_writer_stopped_anywhere_publishes_nothing_that_is_not_there)
{
    pthread_t thread = begin(write_on);
    for (uint32_t round = 1; round <= ROUNDS / 6; round++) {
        stop_somewhere(thread, round);
        retire_all();
        let_go();
        for (uint64_t number = 1; number <= 5; number++) {
            struct fb_key key = key_of_number(number);
            struct fb_hit hit;
            if (fb_get(other, &key, NOBODY, false, &hit) != 0)
                continue;
            CHECK(block_is(number, (uint32_t)(hit.length_bytes - BASE_LENGTH), hit.data, hit.length_bytes));
            fb_release(other, &hit);
        }
    }
    end(thread);
}

CHECK_MAIN
