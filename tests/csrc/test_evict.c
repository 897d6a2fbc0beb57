/* Retiring segments: leases, writers, survivors, pins, and what a dead evictor leaves. */
#include <pthread.h>
#include <unistd.h>

#include "evict.h"
#include "index.h"
#include "read.h"
#include "rows.h"
#include "store_fixture.h"
#include "write.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u

static struct fixture f;

static bool file_exists(fb_store *s, uint32_t segment)
{
    char path[FB_PATH_MAX];
    fixture_segment_path(&f, s, segment, path);
    return access(path, F_OK) == 0;
}

/* So that the segment is free at once: nobody holds it. */
static void retire(fb_store *s, uint32_t segment, enum fb_evict_mode mode)
{
    CHECK_EQ(fb_segment_retire(s, segment, mode), 0);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_FREE);
}

/* ---- leases ---- */

TEST(a_leased_segment_is_held_and_goes_when_it_is_released)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    uint64_t count = fill_segment(a, 0, LENGTH);
    struct fb_hit hit = block_hold(b, 3);
    uint32_t segment = hit.segment;

    CHECK(hit.owned == NULL);
    CHECK_EQ(fb_segment_retire(a, segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(a, segment), FB_HELD);
    for (uint64_t i = 0; i < count; i++)
        CHECK(!block_hit(b, i, 0, LENGTH));
    CHECK(!fb_segment_unhold(a, segment));
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(atomic_load(&a->rows[b->row].held_bytes), a->super->tiers[0].segment_bytes);
    CHECK_EQ(atomic_load(&a->rows[a->row].held_bytes), 0);
    CHECK(block_is(3, 0, hit.data, LENGTH));

    fb_release(b, &hit);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(fb_segment_state_of(a, segment), FB_FREE);
    CHECK_EQ(atomic_load(&a->rows[b->row].held_bytes), 0);
    CHECK_EQ(store_counter(a, FB_C_EVICTED), count);
    CHECK_EQ(store_counter(a, FB_C_MISS_EVICTED), count);
    store_is_sound(a);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(a_view_survives_the_number_of_its_segment_in_another_use)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    uint64_t next = fill_segment(a, 0, LENGTH);
    struct fb_hit hit = block_hold(b, 0);
    CHECK_EQ(fb_segment_retire(a, hit.segment, FB_EVICT_ALL), 0);
    while (block_put(a, next, 0, LENGTH))
        CHECK_NE(block_segment(a, next++), hit.segment);
    CHECK(block_is(0, 0, hit.data, LENGTH));
    fb_release(b, &hit);
    CHECK(fb_segment_unhold(a, hit.segment));
    CHECK(block_put(a, next, 0, LENGTH));
    CHECK_EQ(block_segment(a, next), hit.segment);
    CHECK(block_hit(b, next, 0, LENGTH));
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(who_holds_too_much_gets_copies)
{
    fixture_begin(&f, QUOTA);
    f.config.max_held_bytes = 1;
    fb_store *a = fixture_open(&f), *b = fixture_open(&f);
    fill_segment(a, 0, LENGTH);
    struct fb_hit held = block_hold(b, 0);
    CHECK(block_put(a, 1000, 0, LENGTH));
    CHECK_EQ(fb_segment_retire(a, held.segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_maintain(a), 0);
    struct fb_hit copy = block_hold(b, 1000), view = block_hold(a, 1000);
    CHECK(copy.owned != NULL && view.owned == NULL);
    CHECK(block_is(1000, 0, copy.data, LENGTH));
    CHECK_EQ(store_counter(a, FB_C_PRIVATE_COPIES), 1);
    fb_release(b, &copy);
    fb_release(a, &view);
    fb_release(b, &held);
    CHECK_EQ(fb_maintain(a), 0);
    view = block_hold(b, 1000);
    CHECK(view.owned == NULL);
    fb_release(b, &view);
    fb_close(b);
    fixture_end_store(&f, a);
}

/* ---- writers ---- */

TEST(a_live_writer_inside_keeps_a_segment_from_being_retired)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct fb_fill fill = block_reserve(b, 500, LENGTH);
    uint64_t count = fill_segment(a, 0, LENGTH);
    CHECK_EQ(fill.segment, block_segment(a, 0));
    CHECK_EQ(fb_segment_retire(a, fill.segment, FB_EVICT_ALL), -EBUSY);
    CHECK_EQ(fb_segment_state_of(a, fill.segment), FB_SEALED);
    blocks_hit(a, 0, count, LENGTH);
    uint32_t segment = fill.segment;
    block_bytes(500, 0, fill.data, LENGTH);
    CHECK_EQ(fb_fill_commit(b, &fill), 0);
    CHECK(block_hit(a, 500, 0, LENGTH));
    retire(a, segment, FB_EVICT_ALL);
    CHECK(!block_hit(a, 500, 0, LENGTH));
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(what_a_dead_writer_reserved_is_garbage)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    struct fb_fill fill = block_reserve(victim, 500, LENGTH);
    uint64_t count = fill_segment(a, 0, LENGTH);
    uint32_t segment = fill.segment;
    fb_pool_give(victim, fill.owned);
    fixture_kill(victim);
    retire(a, segment, FB_EVICT_COMPACT);
    blocks_hit(a, 0, count, LENGTH);
    CHECK(!block_hit(a, 500, 0, LENGTH));
    fixture_end_store(&f, a);
}

/* The compare-and-swap is done, the table entry is not: only the lease tells of this writer. */
TEST(a_writer_without_an_entry_yet_holds_the_segment_and_does_not_publish)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct fb_key key = key_of_number(500);
    struct fb_record none = {.state = 0};
    struct fb_space space;
    uint32_t crc;
    uint8_t *data = malloc(LENGTH);
    CHECK_EQ(
        fb_place_in_level(b, fb_dataset_slot(b, 0, true), 0, FB_QUEUE_SMALL, &key, LENGTH, false, &space), 0);
    CHECK_EQ(fb_record_write(b, space.segment, space.record, &none), 0);
    fill_segment(a, 0, LENGTH);
    CHECK_EQ(block_segment(a, 0), space.segment);
    CHECK_EQ(fb_segment_retire(a, space.segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(a, space.segment), FB_HELD);

    block_bytes(500, 0, data, LENGTH);
    CHECK_EQ(fb_space_write(b, &space, data, &crc), 0);
    CHECK_EQ(fb_space_commit(b, &space, &key, crc, 0, FB_RECORD_COMMITTED), 0);
    CHECK_EQ(fb_publish(b, &key, &space, 0, 0), -ENOSPC);
    CHECK(!fb_segment_unhold(a, space.segment));
    fb_space_end(b, &space);
    CHECK(!block_hit(a, 500, 0, LENGTH));
    CHECK(fb_segment_unhold(a, space.segment));
    free(data);
    fb_close(b);
    fixture_end_store(&f, a);
}

/* ---- survivors ---- */

TEST(compaction_moves_what_is_live_with_its_bytes_and_marks)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key pinned = key_of_number(4), mortal = key_of_number(8);
    uint64_t count = fill_segment(s, 0, LENGTH);
    uint32_t segment = block_segment(s, 0);
    CHECK_EQ(fb_pin(s, &pinned, NULL), 0);
    CHECK_EQ(fb_expire(s, &mortal, 1000), 0);
    for (uint64_t i = 0; i < count; i++)
        if (i % 4 != 0)
            block_delete(s, i);

    retire(s, segment, FB_EVICT_COMPACT);
    for (uint64_t i = 0; i < count; i++)
        CHECK_EQ(block_hit(s, i, 0, LENGTH), i % 4 == 0);
    CHECK(FB_PLACE_FLAGS(block_found(s, 4).place) & FB_SLOT_PINNED);
    CHECK_EQ(FB_PLACE_FLAGS(block_found(s, 0).place), 0);
    CHECK_EQ(store_counter(s, FB_C_MOVED), (count + 3) / 4);
    CHECK_EQ(store_counter(s, FB_C_EVICTED), 0);
    store_is_sound(s);
    fb_clock_advance(s, 999000);
    CHECK(block_hit(s, 8, 0, LENGTH));
    fb_clock_advance(s, 3000);
    CHECK(!block_hit(s, 8, 0, LENGTH));
    fixture_end_store(&f, s);
}

TEST(a_corrupted_survivor_is_dropped_not_laundered)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    const uint32_t longer = 200000; /* several checksums */
    uint64_t count = fill_segment(s, 0, longer);
    uint32_t segment = block_segment(s, 0);
    block_damage(&f, s, 1, 0);
    block_damage(&f, s, 2, longer - 1);
    retire(s, segment, FB_EVICT_COMPACT);
    for (uint64_t i = 0; i < count; i++)
        CHECK_EQ(block_hit(s, i, 0, longer), i != 1 && i != 2);
    store_is_sound(s);
    fixture_end_store(&f, s);
}

/* The table entry is what retiring goes by: a slot whose entry is damaged must not outlive its segment. */
TEST(a_slot_whose_table_entry_is_damaged_goes_with_its_segment)
{
    static const uint64_t offsets[] = {offsetof(struct fb_record, lo), offsetof(struct fb_record, state)};
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint64_t next = fill_segment(s, 0, LENGTH);
    uint32_t segment = block_segment(s, 0);
    char path[FB_PATH_MAX];
    uint8_t wrong = 0xa5;
    fixture_segment_path(&f, s, segment, path);
    for (uint64_t i = 0; i < 2; i++)
        fixture_damage(path, fb_geometry_of(s, segment).file_bytes - (i + 1) * FB_RECORD_BYTES + offsets[i],
                       &wrong, 1);

    retire(s, segment, FB_EVICT_ALL);
    while (block_put(s, next, 0, LENGTH))
        next++;
    for (uint64_t i = 0; i < next; i++)
        block_hit(s, i, 0, LENGTH); /* the right bytes or a miss */
    CHECK(!block_hit(s, 0, 0, LENGTH));
    CHECK(!block_hit(s, 1, 0, LENGTH));
    store_is_sound(s);
    fixture_end_store(&f, s);
}

TEST(pins_stay_until_they_are_forced)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key pinned = key_of_number(5);
    fill_segment(s, 0, LENGTH);
    CHECK_EQ(fb_pin(s, &pinned, NULL), 0);
    uint32_t segment = block_segment(s, 5);
    CHECK_EQ(fb_segment_retire(s, segment, FB_EVICT_ALL), 0);
    CHECK(block_hit(s, 5, 0, LENGTH));
    CHECK(!block_hit(s, 6, 0, LENGTH));
    uint32_t refuge = block_segment(s, 5);
    CHECK_NE(refuge, segment);
    fb_segment_seal(s, refuge);
    CHECK_EQ(fb_segment_retire(s, refuge, FB_EVICT_FORCE), 0);
    CHECK(!block_hit(s, 5, 0, LENGTH));
    fixture_end_store(&f, s);
}

TEST(without_room_for_its_survivors_a_segment_stays)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint64_t count = 0;
    while (block_put(s, count, 0, LENGTH))
        count++;
    uint32_t segment = block_segment(s, 0),
             records = FB_WORD_RECORDS(atomic_load(&s->segments[segment].word));
    fb_tier_shrink(s, 0, 0); /* nothing may be added, not even by the evictor */
    CHECK_EQ(fb_segment_retire(s, segment, FB_EVICT_COMPACT), -ENOSPC);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_SEALED);
    CHECK_EQ(FB_WORD_RECORDS(atomic_load(&s->segments[segment].word)), records);
    blocks_hit(s, 0, count, LENGTH);
    /* What is evicted meanwhile goes back to the file system. */
    CHECK_EQ(fb_segment_retire(s, segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_ABSENT);
    CHECK(!file_exists(s, segment));
    fixture_end_store(&f, s);
}

/* However large the index, a round looks at so many of its pages; in the end all of them count. */
TEST(dead_space_is_looked_for_some_pages_a_round)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t pages = atomic_load(&s->shared->page_count);
    uint64_t next = fill_segments(s, 3, 0, LENGTH);
    CHECK_EQ(fb_maintain(s), 0);
    uint32_t dead = block_segment(s, 0), living = block_segment(s, next - 1);
    CHECK_NE(dead, living);
    s->live_count.pages_a_round = 4;
    for (uint64_t i = 0; i < next; i++)
        if (block_segment(s, i) == dead)
            block_delete(s, i);
    for (uint32_t seen = 4; seen < pages; seen += 4) {
        CHECK_EQ(fb_maintain(s), 0);
        CHECK_EQ(s->live_count.page, seen);
        CHECK_EQ(fb_segment_state_of(s, dead), FB_SEALED);
    }
    CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(fb_segment_state_of(s, dead), FB_FREE);
    CHECK_EQ(fb_segment_state_of(s, living), FB_SEALED);
    CHECK(block_hit(s, next - 1, 0, LENGTH));
    /* Nothing was deleted since: the index is not looked at again. */
    s->live_count.page = 0;
    CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(s->live_count.page, 0);
    fixture_end_store(&f, s);
}

struct freeing {
    fb_store *store;
    int result;
};

static void *free_dataset(void *argument)
{
    struct freeing *freeing = argument;
    freeing->result = fb_free_dataset(freeing->store, 7);
    return NULL;
}

TEST(a_free_waits_for_who_is_at_a_segment_of_the_dataset)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fb_store *other = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    uint8_t data[1000];
    pthread_t thread;
    struct fb_found found;
    block_bytes(1, 0, data, sizeof data);
    CHECK_EQ(fb_put(s, &key, TERMS(7, -1), data, sizeof data), 0);
    CHECK_EQ(fb_index_find(s, &key, &found), 0);
    uint32_t segment = FB_PLACE_SEGMENT(found.place);
    CHECK(fb_segment_own(other, segment));
    CHECK_EQ(fb_free_dataset(s, 7), -EBUSY);
    CHECK(block_hit(s, 1, 0, sizeof data));
    struct freeing freeing = {.store = s};
    pthread_create(&thread, NULL, free_dataset, &freeing);
    usleep(20000);
    fb_segment_disown(other, segment);
    pthread_join(thread, NULL);
    CHECK_EQ(freeing.result, 0);
    CHECK(!block_hit(s, 1, 0, sizeof data));
    fb_close(other);
    fixture_end_store(&f, s);
}

TEST(a_dataset_is_freed_whole)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint8_t data[1000];
    for (uint64_t i = 0; i < 20; i++) {
        struct fb_key key = key_of_number(i);
        block_bytes(i, 0, data, sizeof data);
        CHECK_EQ(fb_put(s, &key, TERMS(i % 2 ? 7 : 9, -1), data, sizeof data), 0);
    }
    CHECK_EQ(fb_free_dataset(s, 8), 0);
    CHECK_EQ(fb_free_dataset(s, 7), 0);
    for (uint64_t i = 0; i < 20; i++)
        CHECK_EQ(block_hit(s, i, 0, sizeof data), i % 2 == 0);
    CHECK_EQ(store_counter(s, FB_C_EVICTED), 0);
    struct fb_key key = key_of_number(1);
    CHECK_EQ(fb_put(s, &key, TERMS(7, -1), data, sizeof data), 0);
    fixture_end_store(&f, s);
}

/* ---- what the dead leave ---- */

TEST(the_maintainer_goes_on_where_a_dead_one_stopped)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    uint64_t count = fill_segment(a, 0, LENGTH);
    uint32_t retiring = block_segment(a, 0), open = block_segment(a, 0) + 1, creating = 9;

    CHECK(fb_segment_own(victim, retiring));
    CHECK(fb_segment_turn(victim, retiring, FB_SEALED, FB_RETIRING));
    CHECK(fb_segment_own(victim, creating));
    CHECK(fb_segment_turn(victim, creating, FB_ABSENT, FB_CREATING));
    CHECK_EQ(fb_segfile_create(victim, creating), 0);
    /* Opened, and killed before the dataset was told. */
    CHECK_EQ(fb_segment_state_of(a, open), FB_OPEN);
    CHECK(fb_segment_own(victim, open));
    atomic_store(&a->datasets[fb_dataset_slot(a, 0, false)].open[0][FB_QUEUE_SMALL], 0);

    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(fb_segment_state_of(a, retiring), FB_RETIRING); /* its owner lives */
    CHECK_EQ(fb_segment_retire(a, retiring, FB_EVICT_ALL), -EBUSY);
    CHECK_EQ(fb_segment_state_of(a, creating), FB_CREATING);
    CHECK_EQ(fb_segment_state_of(a, open), FB_OPEN);

    fixture_kill(victim);
    CHECK_EQ(fb_maintain(a), 0);
    /* Nobody knows why it was to go: what is left of it stays until its turn comes again. */
    CHECK_EQ(fb_segment_state_of(a, retiring), FB_SEALED);
    CHECK_EQ(fb_segment_state_of(a, creating), FB_ABSENT);
    CHECK(!file_exists(a, creating));
    CHECK_EQ(fb_segment_state_of(a, open), FB_FREE); /* nothing in it was alive */
    blocks_hit(a, 0, count, LENGTH);
    store_is_sound(a);
    retire(a, retiring, FB_EVICT_ALL);
    fixture_end_store(&f, a);
}

TEST(a_dead_holder_does_not_hold)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *victim = fixture_open(&f);
    fill_segment(a, 0, LENGTH);
    struct fb_hit hit = block_hold(victim, 0);
    CHECK_EQ(fb_segment_retire(a, hit.segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(a, hit.segment), FB_HELD);
    fixture_kill(victim);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(fb_segment_state_of(a, hit.segment), FB_FREE);
    fixture_end_store(&f, a);
}

CHECK_MAIN
