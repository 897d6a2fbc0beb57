/* Many threads, on one handle and on several: every hit has the right bytes, views stay put, nothing is left.
 *
 * A block's version is told by its length, so that a reader knows which bytes it must find.
 */
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evict.h"
#include "health.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define KEYS 500u
#define VERSIONS 8u
#define BASE_LENGTH 40000u
#define VIEWS 3u
#define THREADS 4u
#define HANDLES 3u
/* A look-up misses while a writer that lost its processor is in the midst of its page: so often at most. */
#define MISSES_MAX 10000

static struct fixture f;

static uint64_t length_of(uint32_t version)
{
    return BASE_LENGTH + version;
}

/* ---- what a thread does ---- */

struct worker {
    fb_store *store;
    uint64_t random;
    uint32_t operations;
    uint64_t hits;
    struct fb_hit views[VIEWS];
    uint64_t numbers[VIEWS];
};

static uint32_t draw(struct worker *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((w->random >> 33) % below);
}

static void check_view(uint64_t number, const struct fb_hit *hit)
{
    CHECK_GE(hit->length_bytes, BASE_LENGTH);
    CHECK_LT(hit->length_bytes, BASE_LENGTH + VERSIONS);
    CHECK(block_is(number, (uint32_t)(hit->length_bytes - BASE_LENGTH), hit->data, hit->length_bytes));
}

/* The view taken some operations ago makes room for a new one, and has not changed. */
static void look(struct worker *w, uint64_t number)
{
    uint32_t i = draw(w, VIEWS);
    struct fb_key key = key_of_number(number);
    struct fb_hit hit;
    if (w->views[i].data != NULL) {
        check_view(w->numbers[i], &w->views[i]);
        fb_release(w->store, &w->views[i]);
        w->views[i].data = NULL;
    }
    int r = fb_get(w->store, &key, NOBODY, false, &hit);
    CHECK(r == 0 || r == -ENOENT);
    if (r != 0)
        return;
    check_view(number, &hit);
    w->hits++;
    w->views[i] = hit;
    w->numbers[i] = number;
}

static void fill_in_place(struct worker *w, uint64_t number, uint32_t version)
{
    struct fb_key key = key_of_number(number);
    struct fb_fill fill;
    CHECK_EQ(fb_reserve(w->store, &key, TERMS(0, -1), length_of(version), &fill), 0);
    block_bytes(number, version, fill.data, length_of(version));
    if (version % 4 == 0)
        fb_fill_abandon(w->store, &fill);
    else
        CHECK_GE(fb_fill_commit(w->store, &fill), -ENOSPC); /* 0 or not admitted */
}

static void read_part(struct worker *w, uint64_t number)
{
    uint8_t part[64];
    uint64_t copied;
    struct fb_key key = key_of_number(number);
    int r = fb_read(w->store, &key, NOBODY, 1000, part, sizeof part, &copied);
    CHECK(r == 0 || r == -ENOENT);
    CHECK(r != 0 || copied == sizeof part);
}

static void change(struct worker *w, uint64_t number)
{
    struct fb_key key = key_of_number(number);
    uint32_t what = draw(w, 5);
    int r = what == 0   ? fb_delete(w->store, &key)
            : what == 1 ? fb_pin(w->store, &key, NULL)
            : what == 2 ? fb_expire(w->store, &key, 3600)
            : what == 3 ? fb_expire(w->store, &key, -1)
                        : fb_unpin(w->store, &key);
    CHECK(r == 0 || r == -ENOENT || r == -ETIMEDOUT || r == -EDQUOT);
}

static void observe(struct worker *w)
{
    struct fb_status *status = malloc(sizeof *status);
    struct fb_holder holders[8];
    CHECK(status != NULL);
    CHECK_EQ(fb_status_read(w->store, status, NULL), 0);
    CHECK_LE(fb_holders(w->store, holders, 8), 8);
    int r = fb_maintain(w->store);
    CHECK_EQ(r == -EBUSY ? 0 : r, 0); /* another code is shown, such as that of files that are gone */
    free(status);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    for (uint32_t i = 0; i < w->operations; i++) {
        uint64_t number = draw(w, KEYS);
        uint32_t what = draw(w, 100), version = draw(w, VERSIONS);
        if (what < 60)
            look(w, number);
        else if (what < 80)
            block_put(w->store, number, version, length_of(version));
        else if (what < 85)
            fill_in_place(w, number, version);
        else if (what < 90)
            read_part(w, number);
        else if (what < 98)
            change(w, number);
        else
            observe(w);
    }
    for (uint32_t i = 0; i < VIEWS; i++)
        if (w->views[i].data != NULL) {
            check_view(w->numbers[i], &w->views[i]);
            fb_release(w->store, &w->views[i]);
        }
    return NULL;
}

/* ---- running them ---- */

static uint64_t run(fb_store **stores, uint32_t store_count, uint32_t operations)
{
    static uint64_t seed;
    struct worker *workers = calloc(THREADS, sizeof *workers);
    pthread_t threads[THREADS];
    uint64_t hits = 0;
    CHECK(workers != NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i].store = stores[i % store_count];
        workers[i].random = seed++;
        workers[i].operations = operations;
        CHECK_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        hits += workers[i].hits;
    }
    free(workers);
    return hits;
}

static void expect_nothing_left(fb_store *s)
{
    for (uint64_t i = 0; i < (uint64_t)s->super->row_count * s->segment_count; i++)
        CHECK_EQ(atomic_load(&s->leases[i]), 0);
    for (uint32_t segment = 0; segment < s->segment_count; segment++)
        CHECK_EQ(atomic_load(&s->segments[segment].owner), 0);
    for (uint32_t page = 0; page < atomic_load(&s->shared->page_count); page++)
        CHECK_EQ(atomic_load(&s->metas[page].lock), 0);
    store_is_sound(s);
}

/* Who opens the store after the last of them finds nothing of theirs in the way. */
static void end(fb_store *last)
{
    fb_close(last);
    f.config.no_maintainer = true;
    fb_store *s = fixture_open(&f);
    expect_nothing_left(s);
    fixture_end_store(&f, s);
}

static void everything_at_once(uint32_t store_count, enum fb_retention retention, bool background)
{
    fb_store *stores[HANDLES];
    f.config.no_maintainer = !background;
    for (uint32_t i = 0; i < store_count; i++) {
        stores[i] = fixture_open(&f);
        stores[i]->maps_max = 3;
        stores[i]->descriptors_max = 2;
    }
    CHECK_EQ(fb_set_retention(stores[0], 0, retention), 0);
    CHECK_GT(run(stores, store_count, 1500), 0);
    /* Whoever maintained in the background ends first. */
    for (uint32_t i = store_count - 1; i > 0; i--)
        fb_close(stores[i]);
    CHECK_GT(store_counter(stores[0], FB_C_EVICTED), 0);
    end(stores[0]);
}

TEST(threads_of_one_process)
{
    fixture_begin(&f, QUOTA);
    everything_at_once(1, FB_S3FIFO, true);
}

TEST(threads_of_several_processes)
{
    fixture_begin(&f, QUOTA);
    everything_at_once(HANDLES, FB_LRU, true);
}

TEST(threads_that_maintain_in_turns)
{
    fixture_begin(&f, QUOTA);
    everything_at_once(2, FB_LRU, false);
}

TEST(threads_over_disk_tiers)
{
    fixture_begin(&f, QUOTA);
    f.config.tiers[0].medium = FB_SSD;
    everything_at_once(2, FB_S3FIFO, true);
}

TEST(threads_over_two_levels)
{
    fixture_begin(&f, QUOTA / 2);
    fixture_add_tier(&f, FB_SSD, QUOTA);
    everything_at_once(2, FB_LRU, true);
}

/* ---- a directory that goes ---- */

/* As an operator who changes a disk. */
static void *take_away(void *argument)
{
    char away[FB_PATH_MAX + 8];
    const char *path = argument;
    snprintf(away, sizeof away, "%s-away", path);
    CHECK_EQ(rename(path, away), 0);
    while (fixture_remove_tree(away) != 0) {
        CHECK_EQ(access(away, F_OK), 0); /* whatever else removes it is no part of this test */
        usleep(100);                     /* somebody made another file in it */
    }
    CHECK_EQ(mkdir(path, 0700), 0);
    return NULL;
}

TEST(a_directory_goes_and_is_made_anew_under_threads)
{
    fixture_begin(&f, QUOTA);
    fixture_add_tier(&f, FB_SSD, QUOTA);
    f.config.tiers[0].medium = FB_SSD;
    f.config.no_maintainer = false;
    fb_store *stores[2] = {fixture_open(&f), fixture_open(&f)};
    pthread_t thief;
    stores[0]->descriptors_max = stores[1]->descriptors_max = 2;
    run(stores, 2, 300);
    CHECK_EQ(pthread_create(&thief, NULL, take_away, f.config.tiers[0].path), 0);
    run(stores, 2, 600);
    CHECK_EQ(pthread_join(thief, NULL), 0);
    /* It is found out by who needs a file of it; the maintainer takes the new one. */
    while (atomic_load(&stores[0]->shared->tiers[0].directory_changes) < 2 || fb_tier_failed(stores[0], 0)) {
        CHECK_EQ(access(f.config.tiers[0].path, F_OK), 0);
        run(stores, 2, 50);
    }
    CHECK_GT(run(stores, 2, 300), 0);
    fb_close(stores[1]);
    end(stores[0]);
}

/* ---- growth ---- */

/* All of the first page's range, so that few keys split it again and again. */
static struct fb_key crowded(uint32_t i)
{
    return key_at(i * 2654435761u % 0x0aaaaaaau, i * 2246822519u, i + 1);
}

struct grower {
    fb_store *store;
    uint32_t first, step;
};

static void *grow(void *argument)
{
    struct grower *g = argument;
    for (uint32_t i = g->first; i < 6000; i += g->step) {
        struct fb_key key = crowded(i), back = crowded(i > 400 ? i - 400 : i);
        CHECK_EQ(fb_put(g->store, &key, TERMS(0, -1), &i, sizeof i), 0);
        for (int misses = 0; !fb_contains(g->store, &key); misses++)
            CHECK_LT(misses, MISSES_MAX);
        if (i > 400 && i % 7 == 0)
            CHECK_EQ(fb_delete(g->store, &back), 0);
    }
    return NULL;
}

TEST(pages_split_under_readers_and_writers)
{
    fixture_begin(&f, QUOTA);
    fb_store *stores[2] = {fixture_open(&f), fixture_open(&f)};
    uint32_t pages = atomic_load(&stores[0]->shared->page_count);
    pthread_t threads[THREADS];
    struct grower growers[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        growers[i] = (struct grower){stores[i % 2], i, THREADS};
        CHECK_EQ(pthread_create(&threads[i], NULL, grow, &growers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_GE(atomic_load(&stores[0]->shared->page_count), pages + 3);
    for (uint32_t i = 0; i < 6000; i++) {
        uint32_t value;
        uint64_t copied = 0;
        struct fb_key key = crowded(i);
        bool deleted = i + 400 < 6000 && i > 0 && (i + 400) % 7 == 0;
        CHECK_EQ(fb_read(stores[i % 2], &key, NOBODY, 0, &value, sizeof value, &copied),
                 deleted ? -ENOENT : 0);
        CHECK(deleted || (copied == sizeof value && value == i));
    }
    expect_nothing_left(stores[0]);
    fb_close(stores[1]);
    fb_close(stores[0]);
    fixture_end(&f);
}

/* ---- openers ---- */

static void *come_and_go(void *argument)
{
    uint64_t number = *(uint64_t *)argument;
    for (int i = 0; i < 15; i++) {
        fb_store *s = fixture_open(&f);
        CHECK(block_put(s, number, 0, 1000));
        for (int misses = 0; !block_hit(s, number, 0, 1000); misses++)
            CHECK_LT(misses, MISSES_MAX);
        fb_close(s);
    }
    return NULL;
}

TEST(openers_and_closers_of_one_cache)
{
    fixture_begin(&f, 8 * QUOTA);
    f.config.block_bytes = 1u << 20; /* many segments: a clean close seals what is open */
    pthread_t threads[THREADS];
    uint64_t numbers[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, &numbers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    fb_store *s = fixture_open(&f);
    for (uint64_t i = 0; i < THREADS; i++)
        CHECK(block_hit(s, i, 0, 1000));
    CHECK_EQ(store_counter(s, FB_C_PUT), THREADS * 15);
    expect_nothing_left(s);
    fixture_end_store(&f, s);
}

CHECK_MAIN
