/* Many keys in one call, and the room for pins that several processes ask for at once. */
#include <pthread.h>
#include <stdio.h>

#include "batch.h"
#include "pin.h"
#include "platform.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u
#define LIMIT (QUOTA / 100 * 80)
#define NAMES 400u
#define SHARE 76u /* of several who pin: two fit below the limit, three do not */

static struct fixture f;

struct list {
    char text[NAMES][16];
    struct fb_name names[NAMES];
};

/* Names of blocks `first` and the following. */
static void list_from(struct list *list, uint32_t first)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        int length = snprintf(list->text[i], sizeof list->text[i], "block-%u", first + i);
        list->names[i] = (struct fb_name){list->text[i], (uint32_t)length};
    }
}

static void put_named(fb_store *s, const struct list *list, uint32_t count, uint64_t length_bytes)
{
    void *data = calloc(1, length_bytes);
    for (uint32_t i = 0; i < count; i++) {
        struct fb_key key;
        fb_key_for(s, list->names[i].bytes, list->names[i].length_bytes, &key);
        CHECK_EQ(fb_put(s, &key, TERMS(0, -1), data, length_bytes), 0);
    }
    free(data);
}

static struct fb_batch batch_of(const struct list *list, uint64_t count)
{
    return (struct fb_batch){.names = list->names, .count = count};
}

static uint64_t pinned_bytes(fb_store *s)
{
    static struct fb_status status;
    CHECK_EQ(fb_status_read(s, &status, NULL), 0);
    return status.tiers[0].pinned_bytes;
}

static uint64_t present(fb_store *s, const struct list *list)
{
    uint8_t there[NAMES];
    struct fb_batch batch = batch_of(list, NAMES);
    batch.there = there;
    CHECK_EQ(fb_contains_many(s, &batch), 0);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < NAMES; i++)
        sum += there[i];
    CHECK_EQ(sum, batch.done);
    return sum;
}

TEST(a_batch_does_what_single_calls_do_and_counts_what_is_there)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct list list;
    list_from(&list, 0);
    CHECK_EQ(present(s, &list), 0);
    put_named(s, &list, 150, 1000);
    CHECK_EQ(present(s, &list), 150);
    struct fb_batch pins = batch_of(&list, NAMES);
    CHECK_EQ(fb_pin_many(s, &pins), 0);
    CHECK_EQ(pins.done, 150);
    CHECK_EQ(pinned_bytes(s), 150 * 1000);
    struct fb_batch some = batch_of(&list, 50);
    CHECK_EQ(fb_unpin_many(s, &some), 0);
    CHECK_EQ(some.done, 50);
    CHECK_EQ(pinned_bytes(s), 100 * 1000);
    struct fb_batch mortal = batch_of(&list, 70);
    mortal.ttl_s = 10;
    CHECK_EQ(fb_expire_many(s, &mortal), 0);
    CHECK_EQ(mortal.done, 70);
    fb_clock_advance(s, 12 * 1000);
    CHECK_EQ(present(s, &list), 80);
    struct fb_batch gone = batch_of(&list, NAMES);
    CHECK_EQ(fb_delete_many(s, &gone), 0);
    CHECK_EQ(gone.done, 80);
    CHECK_EQ(store_blocks(s), 0);
    CHECK_EQ(store_counter(s, FB_C_DELETED), 80);
    CHECK_EQ(store_counter(s, FB_C_EXPIRED), 70);
    store_is_sound(s);
    fixture_end_store(&f, s);
}

TEST(a_stopped_process_ends_a_batch_which_is_repeated_afterwards)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct list list;
    struct fb_key stuck;
    uint32_t page;
    list_from(&list, 0);
    put_named(a, &list, NAMES, 100);
    fb_key_for(a, list.names[100].bytes, list.names[100].length_bytes, &stuck);
    CHECK_EQ(fb_index_lock(b, stuck.lo, &page), 0);
    struct fb_batch batch = batch_of(&list, NAMES);
    int64_t begun = fb_boottime_ms();
    CHECK_EQ(fb_delete_many(a, &batch), -ETIMEDOUT);
    CHECK_LT(fb_boottime_ms() - begun, 5000); /* one time-out, not one for each key of that page */
    uint64_t before = batch.done;
    CHECK_LE(before, 100);
    CHECK_EQ(present(a, &list), NAMES - before);
    fb_index_unlock(b, page);
    batch = batch_of(&list, NAMES);
    CHECK_EQ(fb_delete_many(a, &batch), 0);
    CHECK_EQ(batch.done, NAMES - before);
    CHECK_EQ(store_blocks(a), 0);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(pins_that_do_not_all_fit_are_not_begun)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct list list;
    const uint32_t fit = LIMIT / LENGTH, all = fit + 2;
    list_from(&list, 0);
    put_named(s, &list, all, LENGTH);
    struct fb_batch pins = batch_of(&list, all);
    CHECK_EQ(fb_pin_many(s, &pins), -EDQUOT);
    CHECK_EQ(pins.done, 0);
    CHECK_EQ(pinned_bytes(s), 0);
    CHECK_EQ(pins.refused.wanted_bytes, (uint64_t)all * LENGTH);
    CHECK_EQ(pins.refused.pinned_bytes, 0);
    CHECK_EQ(pins.refused.limit_bytes, LIMIT);
    CHECK_STR_EQ(pins.refused.tier_path, f.config.tiers[0].path);
    pins = batch_of(&list, fit);
    CHECK_EQ(fb_pin_many(s, &pins), 0);
    CHECK_EQ(pins.done, fit);
    /* What is pinned already takes no more room. */
    pins = batch_of(&list, fit);
    CHECK_EQ(fb_pin_many(s, &pins), 0);
    CHECK_EQ(pins.done, fit);
    pins = batch_of(&list, fit + 1);
    CHECK_EQ(fb_pin_many(s, &pins), -EDQUOT);
    CHECK_EQ(pins.refused.wanted_bytes, LENGTH);
    CHECK_EQ(pins.refused.pinned_bytes, (uint64_t)fit * LENGTH);
    CHECK_EQ(pinned_bytes(s), (uint64_t)fit * LENGTH);
    fixture_end_store(&f, s);
}

TEST(room_in_two_tiers_is_claimed_in_both_or_in_none)
{
    fixture_begin(&f, QUOTA);
    fixture_add_tier(&f, FB_SSD, 2 * QUOTA);
    fb_store *s = fixture_open(&f);
    struct list list;
    list_from(&list, 0);
    put_named(s, &list, NAMES, LENGTH); /* the first tier takes some 240, the second the rest */
    struct fb_batch pins = {.names = list.names + 60, .count = NAMES - 60};
    CHECK_EQ(fb_pin_claim(s, 1, 2 * LIMIT, NULL), 0);
    CHECK_EQ(fb_pin_many(s, &pins), -EDQUOT);
    CHECK_STR_EQ(pins.refused.tier_path, f.config.tiers[1].path);
    CHECK_EQ(atomic_load(&s->rows[s->row].pin_claims[0]), 0);
    CHECK_EQ(pinned_bytes(s), 0);
    fb_pin_settle(s, 1, 2 * LIMIT, false);
    CHECK_EQ(fb_pin_many(s, &pins), 0);
    CHECK_EQ(pins.done, NAMES - 60);
    CHECK_EQ(atomic_load(&s->rows[s->row].pin_claims[0]), 0);
    CHECK_EQ(atomic_load(&s->rows[s->row].pin_claims[1]), 0);
    fixture_end_store(&f, s);
}

TEST(what_another_process_is_about_to_pin_counts_while_it_lives)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct list list;
    list_from(&list, 0);
    put_named(a, &list, 1, LENGTH);
    struct fb_batch pin = batch_of(&list, 1);
    CHECK_EQ(fb_pin_claim(b, 0, LIMIT, NULL), 0);
    CHECK_EQ(fb_pin_many(a, &pin), -EDQUOT);
    CHECK_EQ(pin.refused.pinned_bytes, LIMIT);
    fixture_die(b);
    CHECK_EQ(fb_pin_many(a, &pin), 0);
    /* Whoever takes the row of one who died has claimed nothing. */
    fb_store *c = fixture_open(&f);
    CHECK_EQ(c->row, b->row);
    CHECK_EQ(atomic_load(&c->rows[c->row].pin_claims[0]), 0);
    fixture_kill(b);
    fb_close(c);
    fixture_end_store(&f, a);
}

struct pinner {
    fb_store *store;
    struct list list;
    int result;
};

static void *pin_all(void *argument)
{
    struct pinner *p = argument;
    struct fb_batch pins = batch_of(&p->list, SHARE);
    p->result = fb_pin_many(p->store, &pins);
    CHECK(p->result == 0 || p->result == -EDQUOT);
    CHECK_EQ(pins.done, p->result == 0 ? SHARE : 0);
    return NULL;
}

TEST(of_those_who_pin_at_once_all_together_stay_within_the_limit)
{
    enum { PINNERS = 3 };
    static struct pinner pinners[PINNERS];
    fixture_begin(&f, QUOTA);
    for (uint32_t i = 0; i < PINNERS; i++) {
        pinners[i].store = fixture_open(&f);
        list_from(&pinners[i].list, i * NAMES);
        put_named(pinners[i].store, &pinners[i].list, SHARE, LENGTH);
    }
    for (int round = 0; round < 50; round++) {
        pthread_t threads[PINNERS];
        for (int i = 0; i < PINNERS; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, pin_all, &pinners[i]), 0);
        uint64_t done = 0;
        for (int i = 0; i < PINNERS; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
            done += pinners[i].result == 0;
        }
        CHECK_LE(done, 2);
        CHECK_EQ(pinned_bytes(pinners[0].store), done * SHARE * LENGTH);
        for (int i = 0; i < PINNERS; i++) {
            struct fb_batch unpins = batch_of(&pinners[i].list, SHARE);
            CHECK_EQ(fb_unpin_many(pinners[i].store, &unpins), 0);
        }
    }
    /* One after the other there is room for two. */
    for (int i = 0; i < PINNERS; i++) {
        pin_all(&pinners[i]);
        CHECK_EQ(pinners[i].result, i < 2 ? 0 : -EDQUOT);
    }
    for (int i = PINNERS - 1; i > 0; i--)
        fb_close(pinners[i].store);
    fixture_end_store(&f, pinners[0].store);
}

CHECK_MAIN
