/* Accounts: who gets one, that nothing is lost between processes and threads, and that totals are plain sums.
 */
#include <pthread.h>

#include "account.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define THREADS 4u
#define DATASETS 40u
#define ROUNDS 20000u

static struct fixture f;

static uint64_t counted(fb_store *s, uint32_t dataset, enum fb_counter counter)
{
    uint64_t sums[FB_C_COUNT];
    fb_account_sum(s, fb_account_of_id(s, dataset, false), sums);
    return sums[counter];
}

static void put_in(fb_store *s, uint64_t number, uint32_t dataset)
{
    struct fb_key key = key_of_number(number);
    CHECK_EQ(fb_put(s, &key, TERMS(dataset, -1), "value", 5), 0);
}

struct claimer {
    fb_store *store;
    uint32_t first;
    uint32_t got[FB_ACCOUNTS * 2];
};

/* Each asks for all datasets, beginning at another. */
static void *claim_all(void *argument)
{
    struct claimer *c = argument;
    for (uint32_t i = 0; i < DATASETS; i++) {
        uint32_t dataset = (c->first + i) % DATASETS + 1;
        c->got[dataset] = fb_account_of_id(c->store, dataset, true);
        CHECK_EQ(fb_count_for(c->store, dataset, FB_C_SOURCE_BYTES, 1), 0);
    }
    return NULL;
}

TEST(those_who_claim_at_once_agree_on_whose_each_account_is)
{
    static struct claimer claimers[THREADS];
    fixture_begin(&f, QUOTA);
    pthread_t threads[THREADS];
    for (uint32_t i = 0; i < THREADS; i++)
        claimers[i] = (struct claimer){.store = fixture_open(&f), .first = i * DATASETS / THREADS};
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, claim_all, &claimers[i]), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    uint64_t seen = 0;
    for (uint32_t dataset = 1; dataset <= DATASETS; dataset++) {
        CHECK_NE(claimers[0].got[dataset], 0);
        CHECK_EQ(seen >> claimers[0].got[dataset] & 1, 0);
        seen |= 1ull << claimers[0].got[dataset];
        for (uint32_t i = 1; i < THREADS; i++)
            CHECK_EQ(claimers[i].got[dataset], claimers[0].got[dataset]);
        CHECK_EQ(counted(claimers[0].store, dataset, FB_C_SOURCE_BYTES), THREADS);
    }
    for (uint32_t i = THREADS - 1; i > 0; i--)
        fb_close(claimers[i].store);
    fixture_end_store(&f, claimers[0].store);
}

TEST(a_dataset_that_was_left_without_its_account_finds_it_again)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t account = fb_account_of_id(s, 7, true);
    /* As a process leaves it that is killed before it tells the dataset. */
    uint32_t slot = fb_dataset_slot(s, 7, true);
    atomic_store(&s->datasets[slot].account, 0);
    put_in(s, 1, 7);
    CHECK_EQ(atomic_load(&s->datasets[slot].account), account);
    CHECK_EQ(counted(s, 7, FB_C_PUT), 1);
    CHECK_EQ(counted(s, 0, FB_C_PUT), 0);
    fixture_end_store(&f, s);
}

TEST(a_dataset_without_an_account_counts_with_the_others_and_looks_no_further)
{
    fb_store *s = fixture_begin_store(&f, 64 * MIB);
    for (uint32_t dataset = 1; dataset < FB_ACCOUNTS; dataset++)
        CHECK_EQ(fb_account_of_id(s, dataset, true), dataset);
    CHECK_EQ(fb_account_of_id(s, 1000, true), 0);
    put_in(s, 1, 1000);
    CHECK_EQ(atomic_load(&s->datasets[fb_dataset_slot(s, 1000, false)].account), FB_ACCOUNTS);
    CHECK_EQ(counted(s, 1000, FB_C_PUT), 1);
    CHECK_EQ(counted(s, 0, FB_C_PUT), 1);
    CHECK_EQ(fb_account_of_id(s, 0, true), 0);
    fixture_end_store(&f, s);
}

struct counter {
    fb_store *store;
    uint32_t dataset;
};

static void *count_many(void *argument)
{
    struct counter *c = argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        CHECK_EQ(fb_count_for(c->store, c->dataset, FB_C_SOURCE_BYTES, 3), 0);
        CHECK(block_hit(c->store, c->dataset, 0, 100));
    }
    return NULL;
}

TEST(nothing_is_lost_between_threads_of_one_process_and_of_several)
{
    struct counter counters[THREADS];
    pthread_t threads[THREADS];
    fixture_begin(&f, QUOTA);
    fb_store *a = fixture_open(&f), *b = fixture_open(&f);
    CHECK(block_put(a, 0, 0, 100));
    CHECK(block_put(a, 1, 0, 100));
    for (uint32_t i = 0; i < THREADS; i++) {
        counters[i] = (struct counter){i < 2 ? a : b, i % 2};
        CHECK_EQ(pthread_create(&threads[i], NULL, count_many, &counters[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    for (uint32_t dataset = 0; dataset < 2; dataset++)
        CHECK_EQ(counted(a, dataset, FB_C_SOURCE_BYTES), 2 * ROUNDS * 3);
    CHECK_EQ(counted(a, 0, FB_C_HIT_MEM), THREADS * ROUNDS);
    CHECK_EQ(store_counter(b, FB_C_HIT_MEM), THREADS * ROUNDS);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(quick_and_other_hits_add_up_and_outlive_their_process)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    struct fb_hit hit;
    put_in(a, 1, 9);
    for (int i = 0; i < 10; i++) { /* the first maps the segment, so it is not quick */
        CHECK_EQ(fb_get(b, &key, NOBODY, i % 2 == 1, &hit), 0);
        fb_release(b, &hit);
    }
    uint32_t row = b->row;
    fixture_kill(b);
    CHECK_EQ(counted(a, 9, FB_C_HIT_MEM), 10);
    b = fixture_open(&f);
    CHECK_EQ(b->row, row);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(fb_get(b, &key, NOBODY, i == 1, &hit), 0);
        fb_release(b, &hit);
    }
    CHECK_EQ(counted(a, 9, FB_C_HIT_MEM), 12);
    CHECK_EQ(counted(a, 9, FB_C_HIT_BYTES_MEM), 60);
    fb_close(b);
    fb_close(a);
    a = fixture_open(&f);
    CHECK_EQ(counted(a, 9, FB_C_HIT_MEM), 12);
    CHECK_EQ(store_counter(a, FB_C_HIT_MEM), 12);
    fixture_end_store(&f, a);
}

TEST(a_miss_is_counted_once_by_its_cause_or_not_at_all)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1);
    struct fb_hit hit;
    CHECK_EQ(fb_get(s, &key, (struct fb_asker){.dataset = 3}, true, &hit), -ENOENT);
    CHECK_EQ(fb_get(s, &key, (struct fb_asker){.dataset = 3, .changed = true}, false, &hit), -ENOENT);
    CHECK_EQ(fb_get(s, &key, (struct fb_asker){.dataset = 3, .quiet = true}, false, &hit), -ENOENT);
    CHECK_EQ(fb_put(s, &key, TERMS(3, -1), "", FB_BLOCK_BYTES_MAX + 1ull), -ENOSPC);
    CHECK_EQ(fb_get(s, &key, (struct fb_asker){.dataset = 3}, true, &hit), -ENOENT);
    CHECK_EQ(counted(s, 3, FB_C_MISS_COLD), 1);
    CHECK_EQ(counted(s, 3, FB_C_MISS_CHANGED), 1);
    CHECK_EQ(counted(s, 3, FB_C_MISS_NOT_ADMITTED), 1);
    fixture_end_store(&f, s);
}

CHECK_MAIN
