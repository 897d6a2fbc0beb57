#include "account.h"

int fb_accounts_attach(fb_store *s)
{
    if (s->read_only && s->private_accounts == NULL) {
        s->private_accounts = calloc(FB_ACCOUNTS, sizeof *s->private_accounts);
        if (s->private_accounts == NULL)
            return -ENOMEM;
    }
    uint32_t row = s->has_row ? s->row : 0;
    s->accounts =
        s->read_only ? s->private_accounts : s->account_shards + row % FB_ACCOUNT_SHARDS * FB_ACCOUNTS;
    s->quick = s->has_row ? s->quick_rows + row * FB_ACCOUNTS : NULL;
    return 0;
}

/* Killed right after the exchange, a process leaves an account that whoever comes next finds by its id. */
uint32_t fb_account_of_id(fb_store *s, uint32_t dataset_id, bool claim)
{
    const uint32_t number = FB_DATASET_NUMBER(dataset_id);
    const uint64_t wanted = (uint64_t)number + 1;
    for (uint32_t account = 1; number != 0 && account < FB_ACCOUNTS; account++) {
        _Atomic uint64_t *id = &s->shared->account_ids[account];
        uint64_t seen = atomic_load_explicit(id, memory_order_relaxed);
        if (seen == 0 && (s->read_only || !claim))
            return 0;
        if (seen == wanted ||
            (seen == 0 && (atomic_compare_exchange_strong(id, &seen, wanted) || seen == wanted)))
            return account;
    }
    return 0;
}

void fb_account_sum(fb_store *s, uint32_t account, uint64_t out[FB_C_COUNT])
{
    uint32_t rows = atomic_load(&s->shared->rows_high);
    for (int c = 0; c < FB_C_COUNT; c++) {
        out[c] = s->read_only
                     ? atomic_load_explicit(&s->private_accounts[account].counters[c], memory_order_relaxed)
                     : 0;
        for (uint32_t shard = 0; shard < FB_ACCOUNT_SHARDS; shard++)
            out[c] += atomic_load_explicit(&s->account_shards[shard * FB_ACCOUNTS + account].counters[c],
                                           memory_order_relaxed);
    }
    for (uint32_t row = 0; row < rows; row++)
        for (int c = 0; c < FB_C_QUICK; c++)
            out[c] += atomic_load_explicit(&s->quick_rows[row * FB_ACCOUNTS + account].counters[c],
                                           memory_order_relaxed);
}

void fb_accounts_collect(fb_store *s, struct fb_account_saved out[FB_ACCOUNTS])
{
    for (uint32_t account = 0; account < FB_ACCOUNTS; account++) {
        out[account].id_plus_1 = atomic_load(&s->shared->account_ids[account]);
        fb_account_sum(s, account, out[account].counters);
    }
}

void fb_accounts_load(fb_store *s)
{
    for (uint32_t account = 0; account < FB_ACCOUNTS; account++) {
        const struct fb_account_saved *saved = &s->super->accounts[account];
        atomic_store(&s->shared->account_ids[account], saved->id_plus_1);
        for (int c = 0; c < FB_C_COUNT; c++)
            atomic_store(&s->account_shards[account].counters[c], saved->counters[c]);
    }
}

int fb_count_for(fb_store *s, uint32_t dataset_id, uint32_t counter, uint64_t n)
{
    if (counter < FB_C_PEER_DOWN || counter >= FB_C_COUNT)
        return -EINVAL;
    fb_count_in(s, fb_account_of_id(s, dataset_id, true), counter, n);
    return 0;
}
