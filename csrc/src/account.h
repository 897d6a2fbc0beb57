/* Counting, for each dataset apart. At most FB_ACCOUNTS - 1 datasets have an account of their own, for as
 * long as the cache is not made anew; account 0 is that of all others, and of what is of no dataset.
 *
 * The words outlive whoever counted in them and are never folded: a total is their plain sum, exact whenever
 * a process dies. Processes count in shards by their rows, so that they seldom meet in a cache line; the hits
 * of calls with `quick`, which come one at a time, in their row's own words, and without a locked
 * instruction. */
#ifndef FB_ACCOUNT_H
#define FB_ACCOUNT_H

#include "engine.h"

/* Choose the words to count in: by the row, or private ones of a read-only opener. 0 or -ENOMEM. */
int fb_accounts_attach(fb_store *s);

/* A dataset's account, given to it at its first use (`claim`); 0 when it has none. */
uint32_t fb_account_of_id(fb_store *s, uint32_t dataset_id, bool claim);

static inline uint32_t fb_account_of(const struct fb_dataset *dataset)
{
    return atomic_load_explicit(&dataset->account, memory_order_relaxed) % FB_ACCOUNTS;
}

static inline struct fb_dataset *fb_dataset_of(fb_store *s, uint32_t segment)
{
    uint32_t slot = atomic_load_explicit(&s->segments[segment].dataset, memory_order_relaxed);
    return &s->datasets[slot % FB_DATASETS_MAX];
}

static inline void fb_count_in(fb_store *s, uint32_t account, enum fb_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&s->accounts[account].counters[c], n, memory_order_relaxed);
}

/* For the dataset whose segment it is. */
static inline void fb_count_of(fb_store *s, uint32_t segment, enum fb_counter c, uint64_t n)
{
    fb_count_in(s, fb_account_of(fb_dataset_of(s, segment)), c, n);
}

/* Two locked instructions less than by fb_count_in, a tenth of what a hit in the processor's cache costs. */
static inline void fb_count_alone(struct fb_quick *quick, enum fb_counter c, uint64_t n)
{
    _Atomic uint64_t *word = &quick->counters[c];
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n, memory_order_relaxed);
}

/* All that was counted in one account, by all processes. */
void fb_account_sum(fb_store *s, uint32_t account, uint64_t out[FB_C_COUNT]);

/* All accounts, for the index's superblock; and from there into a new live file. */
void fb_accounts_collect(fb_store *s, struct fb_account_saved out[FB_ACCOUNTS]);
void fb_accounts_load(fb_store *s);

#endif
