/* Quotas, and the running sum that they go by: exact while nobody dies, never too low, and mended after a
 * death. */
#include <pthread.h>

#include "account.h"
#include "maintain.h"
#include "page.h"
#include "quota.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 10000u
#define OWN 7u /* the dataset with a quota */
#define THREADS 4u

static struct fixture f;

static struct fb_dataset *dataset_of(fb_store *s, uint32_t id)
{
    uint32_t slot = fb_dataset_slot(s, id, true);
    CHECK_LT(slot, FB_DATASETS_MAX);
    return &s->datasets[slot];
}

static uint64_t used(fb_store *s, uint32_t id)
{
    return fb_quota_used(s, dataset_of(s, id));
}

static int put_bytes(fb_store *s, uint64_t number, uint32_t dataset, uint64_t length_bytes)
{
    static uint8_t data[1u << 20];
    struct fb_key key = key_of_number(number);
    return fb_put(s, &key, TERMS(dataset, -1), data, length_bytes);
}

/* What the slots say. */
static uint64_t counted(fb_store *s, uint32_t id)
{
    static struct fb_dataset_status datasets[FB_STATUS_DATASETS_MAX];
    static struct fb_status status;
    CHECK_EQ(fb_status_read(s, &status, datasets), 0);
    for (uint32_t i = 0; i < status.dataset_count; i++)
        if (datasets[i].id == id)
            return datasets[i].committed_bytes;
    return 0;
}

static void sums_are_exact(fb_store *s)
{
    for (uint32_t slot = 0; slot < FB_DATASETS_MAX; slot++) {
        uint64_t id = atomic_load(&s->datasets[slot].id_plus_1);
        if (id != 0)
            CHECK_EQ(fb_quota_used(s, &s->datasets[slot]), counted(s, FB_DATASET_NUMBER((uint32_t)(id - 1))));
    }
}

/* Put until the first is refused; how many were admitted. */
static uint64_t fill_up(fb_store *s, uint64_t first, uint32_t dataset)
{
    uint64_t count = 0;
    while (put_bytes(s, first + count, dataset, LENGTH) == 0)
        count++;
    return count;
}

TEST(nothing_is_admitted_beyond_the_quota_and_the_rest_goes_on)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    CHECK_EQ(fb_set_quota(a, OWN, 10 * LENGTH + 5), 0);
    CHECK_EQ(fill_up(b, 0, OWN), 10);
    CHECK_EQ(put_bytes(a, 100, OWN, 6), -ENOSPC);
    CHECK_EQ(put_bytes(a, 100, OWN, 5), 0);
    CHECK_EQ(put_bytes(a, 101, OWN, 0), 0); /* no byte is no byte too many */
    CHECK_EQ(put_bytes(a, 102, 8, LENGTH), 0);
    CHECK_EQ(used(a, OWN), 10 * LENGTH + 5);
    for (uint64_t i = 0; i < 10; i++) {
        struct fb_hit hit = block_hold(b, i);
        fb_release(b, &hit);
    }
    uint64_t counters[FB_C_COUNT];
    fb_account_sum(a, fb_account_of_id(a, OWN, false), counters);
    CHECK_EQ(counters[FB_C_NOT_ADMITTED], 2);
    block_delete(a, 3);
    CHECK_EQ(put_bytes(b, 3, OWN, LENGTH), 0);
    CHECK_EQ(put_bytes(b, 4, OWN, 1), -ENOSPC); /* also in place of a longer one, which stays */
    CHECK_EQ(fb_set_quota(b, OWN, LENGTH), 0);
    CHECK_EQ(put_bytes(a, 103, OWN, 1), -ENOSPC);
    CHECK_EQ(used(a, OWN), 10 * LENGTH + 5); /* nothing goes for a quota */
    CHECK_EQ(fb_set_quota(b, OWN, UINT64_MAX), 0);
    CHECK_EQ(put_bytes(a, 103, OWN, LENGTH), 0);
    sums_are_exact(a);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(all_that_lies_under_ids_of_one_dataset_is_held_to_one_quota)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    uint32_t space = OWN | 3u << FB_DATASET_BITS;
    CHECK_EQ(put_bytes(b, 0, space, LENGTH), 0);
    CHECK_EQ(fb_set_quota(a, OWN, 4 * LENGTH), 0);
    CHECK_EQ(fill_up(b, 1, OWN), 3);
    CHECK_EQ(put_bytes(a, 100, space, LENGTH), -ENOSPC);
    CHECK_EQ(used(a, OWN), 4 * LENGTH);
    CHECK_EQ(used(a, space), 4 * LENGTH);
    sums_are_exact(a);
    CHECK_EQ(fb_free_dataset(a, OWN), 0);
    sums_are_exact(a);
    CHECK_EQ(fill_up(b, 200, space), 3);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(a_quota_of_nothing_admits_nothing)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK_EQ(fb_set_quota(s, OWN, 0), 0);
    CHECK_EQ(put_bytes(s, 1, OWN, 1), -ENOSPC);
    CHECK_EQ(put_bytes(s, 1, 0, 1), 0);
    fixture_end_store(&f, s);
}

TEST(room_that_was_there_when_a_block_was_begun_is_looked_at_again_when_it_is_published)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_fill fills[3];
    CHECK_EQ(fb_set_quota(s, OWN, 2 * LENGTH), 0);
    for (uint64_t i = 0; i < 3; i++) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(fb_reserve(s, &key, TERMS(OWN, -1), LENGTH, &fills[i]), 0);
        CHECK_NE(fills[i].segment, FB_NO_SEGMENT);
        block_bytes(i, 0, fills[i].data, LENGTH);
    }
    CHECK_EQ(fb_fill_commit(s, &fills[2]), 0);
    CHECK_EQ(fb_fill_commit(s, &fills[0]), 0);
    CHECK_EQ(fb_fill_commit(s, &fills[1]), -ENOSPC);
    CHECK(!block_hit(s, 1, 0, LENGTH));
    CHECK_EQ(used(s, OWN), 2 * LENGTH);
    store_is_sound(s);
    fixture_end_store(&f, s);
}

static int write_whole(fb_store *s, struct fb_whole *whole, uint64_t first)
{
    static uint8_t data[256u << 10];
    for (uint64_t block = 0; block < 8; block++) {
        struct fb_key key = key_of_number(first + block);
        int r = fb_whole_write(s, whole, block, &key, data, sizeof data);
        if (r != 0)
            return r;
    }
    return 0;
}

TEST(whole_files_count_as_well)
{
    fixture_begin(&f, 64 * MIB);
    f.config.block_bytes = 1u << 20; /* segments are shorter than the files */
    fb_store *s = fixture_open(&f);
    struct fb_key first = key_of_number(100), second = key_of_number(200), third = key_of_number(300);
    struct fb_whole whole, other, none;
    CHECK_EQ(fb_set_quota(s, OWN, 3 * MIB), 0);
    CHECK_EQ(fb_whole_begin(s, &first, TERMS(OWN, -1), 2 * MIB, 256u << 10, &whole), 0);
    CHECK_EQ(fb_whole_begin(s, &second, TERMS(OWN, -1), 2 * MIB, 256u << 10, &other), 0);
    CHECK_EQ(write_whole(s, &whole, 0), 0);
    CHECK_EQ(fb_whole_complete(s, &whole), 0);
    CHECK_EQ(used(s, OWN), 2 * MIB);
    CHECK_EQ(write_whole(s, &other, 10), -ENOSPC);
    CHECK_EQ(used(s, OWN), 3 * MIB);
    fb_whole_abandon(s, &other);
    CHECK_EQ(used(s, OWN), 2 * MIB);
    CHECK_EQ(fb_whole_begin(s, &third, TERMS(OWN, -1), 2 * MIB, 256u << 10, &none), -ENOSPC);
    sums_are_exact(s);
    CHECK_EQ(fb_free_dataset(s, OWN), 0);
    CHECK_EQ(used(s, OWN), 0);
    fixture_end_store(&f, s);
}

/* ---- the sum ---- */

TEST(the_sum_follows_whatever_becomes_of_a_block)
{
    fixture_begin(&f, QUOTA);
    fixture_add_tier(&f, FB_SSD, QUOTA);
    fb_store *s = fixture_open(&f);
    for (uint32_t dataset = 0; dataset < 3; dataset++)
        CHECK_EQ(fb_set_retention(s, dataset, dataset), 0);
    uint64_t random = 1;
    for (uint64_t i = 0; i < 6000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t number = (random >> 33) % 1500;
        struct fb_key key = key_of_number(number);
        uint32_t dataset = (uint32_t)(random >> 45) % 3;
        switch ((random >> 50) % 8) {
        case 0:
            fb_delete(s, &key);
            break;
        case 1:
            fb_expire(s, &key, 1 + (double)(number % 3000));
            break;
        case 2:
            fb_pin(s, &key, NULL);
            fb_unpin(s, &key);
            break;
        default:
            put_bytes(s, number, dataset, random % 40000);
        }
        if (i % 20 == 0)
            CHECK_EQ(fb_maintain(s), 0);
        if (i % 700 == 0)
            fb_clock_advance(s, 500 * 1000);
        if (i % 1000 == 0)
            sums_are_exact(s);
    }
    CHECK_EQ(fb_free_dataset(s, 1), 0);
    CHECK_EQ(used(s, 1), 0);
    sums_are_exact(s);
    fb_close(s);
    s = fixture_open(&f);
    sums_are_exact(s);
    fixture_end_store(&f, s);
}

TEST(the_sum_is_counted_by_whoever_opens_after_a_crash)
{
    for (int lost = 0; lost < 2; lost++) {
        fb_store *s = fixture_begin_store(&f, QUOTA);
        fill_up(s, 0, OWN);
        uint64_t before = used(s, OWN);
        atomic_fetch_add(&dataset_of(s, OWN)->committed, 12345);
        fixture_kill(s);
        if (lost) {
            char path[FB_PATH_MAX];
            fixture_path(&f, "index", path);
            CHECK_EQ(remove(path), 0);
        }
        s = fixture_open(&f);
        for (int round = 0; round < 10; round++)
            CHECK_EQ(fb_maintain(s), 0);
        CHECK_EQ(used(s, OWN), before);
        sums_are_exact(s);
        fixture_end_store(&f, s);
    }
}

/* As a process leaves it that is killed with a page locked and the sum changed, its slot still to write. */
static void die_charged(fb_store *victim, uint64_t number, uint32_t dataset)
{
    struct fb_key key = key_of_number(number);
    uint32_t page;
    CHECK_EQ(fb_index_lock(victim, key.lo, &page), 0);
    atomic_fetch_or(&victim->metas[page].sequence, 1);
    atomic_fetch_add(&dataset_of(victim, dataset)->committed, (1ull << 48) + LENGTH);
    fixture_die(victim);
}

TEST(what_a_dead_writer_had_charged_is_room_again_after_one_round_of_maintenance)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    CHECK_EQ(fb_set_quota(a, OWN, 10 * LENGTH), 0);
    CHECK_EQ(fill_up(a, 0, OWN), 10);
    block_delete(a, 0);
    die_charged(victim, 50, OWN);
    CHECK_EQ(put_bytes(a, 0, OWN, LENGTH), -ENOSPC);
    CHECK_EQ(fb_maintain(a), 0);
    sums_are_exact(a);
    CHECK_EQ(put_bytes(a, 0, OWN, LENGTH), 0);
    CHECK_EQ(put_bytes(a, 10, OWN, LENGTH), -ENOSPC);
    fixture_kill(victim);
    fixture_end_store(&f, a);
}

TEST(a_count_that_a_stopped_process_holds_up_is_made_later)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    uint32_t page;
    CHECK_EQ(put_bytes(a, 1, OWN, LENGTH), 0);
    atomic_fetch_add(&dataset_of(a, OWN)->committed, LENGTH);
    fb_quota_doubt(a);
    CHECK_EQ(fb_index_lock(b, key.lo, &page), 0);
    fb_quota_mend(a);
    CHECK_EQ(used(a, OWN), 2 * LENGTH);
    fb_index_unlock(b, page);
    fb_quota_mend(a); /* too early */
    CHECK_EQ(used(a, OWN), 2 * LENGTH);
    a->count_again_ms = 0;
    fb_quota_mend(a);
    CHECK_EQ(used(a, OWN), LENGTH);
    fb_close(b);
    fixture_end_store(&f, a);
}

/* ---- at once ---- */

struct writer {
    fb_store *store;
    uint32_t number;
    uint64_t admitted;
    _Atomic uint32_t *ended;
};

static void *put_until_refused(void *argument)
{
    struct writer *w = argument;
    uint8_t data[LENGTH] = {0};
    for (uint64_t i = 0;; i++) {
        struct fb_key key = key_of_number((uint64_t)w->number << 32 | i);
        if (fb_put(w->store, &key, TERMS(OWN, -1), data, LENGTH) != 0)
            return NULL;
        w->admitted++;
    }
}

TEST(writers_at_once_exceed_the_quota_by_a_block_each_at_most)
{
    fixture_begin(&f, QUOTA);
    struct writer writers[THREADS] = {0};
    for (uint32_t i = 0; i < THREADS; i++)
        writers[i] = (struct writer){.store = fixture_open(&f), .number = i};
    for (uint64_t round = 0; round < 30; round++) {
        pthread_t threads[THREADS];
        uint64_t quota = (50 + round) * LENGTH, admitted = 0;
        CHECK_EQ(fb_set_quota(writers[0].store, OWN, quota), 0);
        for (uint32_t i = 0; i < THREADS; i++) {
            writers[i].admitted = 0;
            CHECK_EQ(pthread_create(&threads[i], NULL, put_until_refused, &writers[i]), 0);
        }
        for (uint32_t i = 0; i < THREADS; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
            admitted += writers[i].admitted;
        }
        CHECK_GE(admitted * LENGTH, quota);
        CHECK_LT(admitted * LENGTH, quota + THREADS * LENGTH);
        sums_are_exact(writers[0].store);
        CHECK_EQ(fb_free_dataset(writers[0].store, OWN), 0);
        CHECK_EQ(used(writers[0].store, OWN), 0);
    }
    for (uint32_t i = THREADS - 1; i > 0; i--)
        fb_close(writers[i].store);
    fixture_end_store(&f, writers[0].store);
}

/* Pages split, slots come, go and change hands while the index is counted over and over. */
static void *put_and_delete(void *argument)
{
    struct writer *w = argument;
    uint8_t data[300] = {0};
    uint64_t random = w->number + 1;
    for (int i = 0; i < 80000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        struct fb_key key = key_of_number((random >> 33) % 200000);
        if ((random >> 60) < 4)
            fb_delete(w->store, &key);
        else
            fb_put(w->store, &key, TERMS((uint32_t)(random >> 40) % 8, -1), data, (random >> 45) % 300);
    }
    atomic_fetch_add(w->ended, 1);
    return NULL;
}

TEST(counting_while_others_write_makes_no_sum_wrong)
{
    fixture_begin(&f, 64 * MIB);
    f.config.block_bytes = 1u << 20; /* segments for all datasets */
    struct writer writers[2];
    pthread_t threads[2];
    _Atomic uint32_t ended = 0;
    fb_store *s = fixture_open(&f);
    /* One dataset rests, and its slots move with the others' when a page is split. */
    for (uint64_t i = 0; i < 3000; i++)
        CHECK_EQ(put_bytes(s, 1000000 + i, 50, 100), 0);
    for (uint32_t i = 0; i < 2; i++) {
        writers[i] = (struct writer){.store = fixture_open(&f), .number = i, .ended = &ended};
        CHECK_EQ(pthread_create(&threads[i], NULL, put_and_delete, &writers[i]), 0);
    }
    bool writing = true;
    while (writing) {
        writing = atomic_load(&ended) < 2;
        fb_quota_doubt(s);
        s->count_again_ms = 0;
        fb_quota_mend(s);
        CHECK_EQ(used(s, 50), 3000 * 100);
    }
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(s->count_again_ms, 0); /* the last time nobody came in between */
    sums_are_exact(s);
    store_is_sound(s);
    fb_close(writers[0].store);
    fb_close(writers[1].store);
    fixture_end_store(&f, s);
}

CHECK_MAIN
