/* The index lost: what comes back from the record tables, what does not, and what happens meanwhile. */
#include <sys/stat.h>
#include <unistd.h>

#include "evict.h"
#include "platform.h"
#include "read.h"
#include "rebuild.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u

static struct fixture f;

static void lose_index(void)
{
    char path[FB_PATH_MAX];
    fixture_path(&f, "index", path);
    CHECK_EQ(truncate(path, 0), 0);
}

static fb_store *reopen_without_index(fb_store *s)
{
    fixture_kill(s);
    lose_index();
    s = fixture_open(&f);
    CHECK(atomic_load(&s->shared->rebuilding));
    return s;
}

static void finish(fb_store *s)
{
    while (atomic_load(&s->shared->rebuilding))
        fb_rebuild_some(s);
    for (uint32_t page = 0; page < atomic_load(&s->shared->page_count); page++)
        for (uint32_t slot = 0; slot < FB_PAGE_SLOTS; slot++)
            CHECK_NE(FB_PLACE_STATE(atomic_load(&fb_page_at(s, page)->slots[slot].place)), FB_SLOT_TOMBSTONE);
}

static void end(fb_store *s)
{
    store_is_sound(s);
    fixture_end_store(&f, s);
}

static struct fb_record record_of(fb_store *s, uint64_t number, uint32_t *record_number)
{
    struct fb_key key = key_of_number(number);
    struct fb_record record = {.state = 0};
    *record_number = fb_record_of_place(s, block_found(s, number).place, key.lo, key.check, &record);
    CHECK_NE(*record_number, FB_NO_SEGMENT);
    return record;
}

TEST(everything_committed_comes_back)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint64_t i = 0; i < 100; i++)
        CHECK(block_put(s, i, 0, LENGTH + i));
    struct fb_key pinned = key_of_number(8), mortal = key_of_number(9), open = key_of_number(500);
    block_delete(s, 7);
    CHECK_EQ(fb_pin(s, &pinned, NULL), 0);
    CHECK_EQ(fb_expire(s, &mortal, 1000), 0);
    struct fb_fill fill = block_reserve(s, 500, 100);
    fb_pool_give(s, fill.owned);
    uint64_t sequence = atomic_load(&s->shared->sequence);

    s = reopen_without_index(s);
    finish(s);
    for (uint64_t i = 0; i < 100; i++)
        CHECK_EQ(block_hit(s, i, 0, LENGTH + i), i != 7 && i != 9); /* the clock of a TTL is gone */
    CHECK(!fb_contains(s, &open));
    CHECK(FB_PLACE_FLAGS(block_found(s, 8).place) & FB_SLOT_PINNED);
    CHECK_GE(atomic_load(&s->shared->sequence), sequence);
    CHECK_GT(store_counter(s, FB_C_REBUILT_SEGMENTS), 0);
    while (block_put(s, 1000, 0, LENGTH) && fb_segment_state_of(s, 14) == FB_ABSENT)
        ;
    end(s);
}

TEST(bytes_are_verified_before_they_are_served_again)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, LENGTH));
    CHECK(block_put(s, 2, 0, LENGTH));
    block_damage(&f, s, 1, 12345);
    s = reopen_without_index(s);
    finish(s);
    CHECK(!block_hit(s, 1, 0, LENGTH));
    CHECK(block_hit(s, 2, 0, LENGTH));
    end(s);
}

/* The older record was not marked dead: its writer died between publishing and burying. */
static void both_versions(bool newer_in_lower_segment)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t older;
    uint64_t next = 1;
    CHECK(block_put(s, 0, 0, LENGTH));
    uint32_t segment = block_segment(s, 0);
    if (newer_in_lower_segment) {
        next = fill_segment(s, 100, LENGTH);
        CHECK(block_put(s, 0, 1, LENGTH)); /* in segment 1 */
        CHECK_EQ(fb_segment_retire(s, segment, FB_EVICT_ALL), 0);
        segment = block_segment(s, 0);
        CHECK_EQ(segment, 1);
    }
    record_of(s, 0, &older);
    fill_segment(s, next + 100, LENGTH);
    CHECK(block_put(s, 0, 2, LENGTH));
    CHECK_EQ(block_segment(s, 0) < segment, newer_in_lower_segment);
    CHECK_EQ(fb_record_flip(s, segment, older, FB_RECORD_COMMITTED), 0);
    s = reopen_without_index(s);
    finish(s);
    CHECK(block_hit(s, 0, 2, LENGTH));
    end(s);
}

TEST(of_two_versions_the_newer_comes_back)
{
    both_versions(false);
    both_versions(true);
}

TEST(what_is_put_or_deleted_meanwhile_is_newer)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint64_t i = 0; i < 10; i++)
        CHECK(block_put(s, i, 0, LENGTH));
    s = reopen_without_index(s);
    struct fb_key key = key_of_number(3);
    CHECK(block_put(s, 2, 1, LENGTH));
    CHECK_EQ(fb_delete(s, &key), -ENOENT); /* not there yet, and not to come back */
    CHECK(!block_hit(s, 4, 0, LENGTH));
    CHECK(block_put(s, 5, 1, LENGTH));
    block_delete(s, 5);
    finish(s);
    for (uint64_t i = 0; i < 10; i++)
        CHECK_EQ(block_hit(s, i, i == 2 ? 1 : 0, LENGTH), i != 3 && i != 5);
    end(s);
}

/* A scanned segment is evicted and taken anew while others still wait to be scanned. */
TEST(a_put_into_a_scanned_segment_is_newer_than_what_is_scanned_later)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_segments(s, 6, 1, LENGTH);
    CHECK(block_put(s, 0, 0, LENGTH));
    CHECK_GT(block_segment(s, 0), 4);
    s = reopen_without_index(s);
    CHECK(fb_rebuild_some(s));
    CHECK_EQ(fb_segment_state_of(s, 0), FB_SEALED);
    CHECK_EQ(fb_segment_state_of(s, 6), FB_UNSCANNED);
    CHECK_EQ(fb_segment_retire(s, 0, FB_EVICT_ALL), 0);
    CHECK(block_put(s, 0, 1, LENGTH));
    CHECK_EQ(block_segment(s, 0), 0);
    finish(s);
    CHECK(block_hit(s, 0, 1, LENGTH));
    end(s);
}

TEST(eviction_meanwhile_brings_nothing_old_back)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t older;
    CHECK(block_put(s, 0, 0, LENGTH));
    record_of(s, 0, &older);
    fill_segments(s, 6, 1, LENGTH);
    CHECK(block_put(s, 0, 1, LENGTH)); /* far behind the first */
    CHECK_EQ(fb_record_flip(s, 0, older, FB_RECORD_COMMITTED), 0);
    s = reopen_without_index(s);
    CHECK(fb_rebuild_some(s));
    CHECK(block_hit(s, 0, 0, LENGTH)); /* the older, until the newer is found */
    /* A copy of it would pass for the newest. */
    CHECK_EQ(fb_segment_retire(s, 0, FB_EVICT_COMPACT), -EBUSY);
    CHECK(block_hit(s, 0, 0, LENGTH));
    finish(s);
    CHECK(block_hit(s, 0, 1, LENGTH));
    CHECK_EQ(fb_segment_retire(s, 0, FB_EVICT_COMPACT), 0);
    CHECK(block_hit(s, 0, 1, LENGTH));
    end(s);
}

/* ---- what is no segment of ours ---- */

TEST(files_that_are_no_segments_of_ours_are_removed)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    char path[FB_PATH_MAX], other[FB_PATH_MAX], garbage[4096];
    memset(garbage, 0x77, sizeof garbage);
    uint64_t next = fill_segments(s, 8, 0, LENGTH);
    CHECK(block_put(s, next, 0, LENGTH));
    CHECK_EQ(block_segment(s, next), 8);

    fixture_segment_path(&f, s, 0, path); /* a superblock of garbage */
    fixture_damage(path, 0, garbage, sizeof garbage);
    fixture_segment_path(&f, s, 1, path); /* cut short */
    CHECK_EQ(truncate(path, 4096 * 100), 0);
    fixture_segment_path(&f, s, 2, path); /* empty */
    CHECK_EQ(truncate(path, 0), 0);
    fixture_segment_path(&f, s, 3, path); /* another segment under this number */
    fixture_segment_path(&f, s, 4, other);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(rename(other, path), 0);
    fixture_segment_path(&f, s, 5, path); /* a directory, a link and a FIFO in the place of files */
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(mkdir(path, 0700), 0);
    fixture_segment_path(&f, s, 6, path);
    CHECK_EQ(rename(path, other), 0);
    CHECK_EQ(symlink(other, path), 0);
    fixture_segment_path(&f, s, 7, path);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(mkfifo(path, 0600), 0);

    s = reopen_without_index(s);
    finish(s);
    CHECK_EQ(store_blocks(s), 1);
    CHECK(block_hit(s, next, 0, LENGTH));
    /* Every number but the one that cannot be had is used again. */
    while (block_put(s, next, 0, LENGTH))
        next++;
    for (uint32_t segment = 0; segment < 8; segment++)
        CHECK_EQ(fb_segment_state_of(s, segment) == FB_ABSENT || fb_segment_state_of(s, segment) == FB_BAD,
                 segment == 5);
    end(s);
}

TEST(entries_that_are_garbage_do_not_end_the_table)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    char path[FB_PATH_MAX];
    uint8_t garbage[FB_RECORD_BYTES * 3];
    memset(garbage, 0x77, sizeof garbage);
    for (uint64_t i = 0; i < 50; i++)
        CHECK(block_put(s, i, 0, 1000));
    CHECK_EQ(block_segment(s, 49), 0);
    fixture_segment_path(&f, s, 0, path);
    /* Records 10, 11 and 12. */
    fixture_damage(path, fb_geometry_of(s, 0).file_bytes - 13 * FB_RECORD_BYTES, garbage, sizeof garbage);
    s = reopen_without_index(s);
    finish(s);
    for (uint64_t i = 0; i < 50; i++)
        CHECK_EQ(block_hit(s, i, 0, 1000), i < 10 || i > 12);
    end(s);
}

/* ---- interruptions ---- */

/* Several segments, of which the rebuild has come to one; *next is one past the last block. */
static fb_store *in_mid_rebuild(uint64_t *next)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    *next = fill_segments(s, 8, 0, LENGTH);
    s = reopen_without_index(s);
    CHECK(fb_rebuild_some(s));
    return s;
}

TEST(a_rebuild_goes_on_after_its_process_died)
{
    uint64_t next;
    fb_store *s = in_mid_rebuild(&next);
    fb_store *other = fixture_open(&f);
    fixture_kill(s);
    CHECK(atomic_load(&other->shared->rebuilding));
    finish(other);
    blocks_hit(other, 0, next, LENGTH);
    end(other);
}

TEST(closing_in_mid_rebuild_loses_nothing)
{
    uint64_t next;
    fb_store *s = in_mid_rebuild(&next);
    fb_close(s);
    s = fixture_open(&f);
    finish(s);
    blocks_hit(s, 0, next, LENGTH);
    end(s);
}

TEST(a_dataset_that_is_freed_in_mid_scan_goes_and_its_views_stay)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, LENGTH));
    CHECK(block_put(s, 2, 0, LENGTH));
    s = reopen_without_index(s);
    CHECK(fb_rebuild_some(s));
    struct fb_hit view = block_hold(s, 1);
    /* As a scan leaves it that a stopped writer kept from a page. */
    CHECK(fb_segment_turn(s, view.segment, FB_SEALED, FB_UNSCANNED));
    CHECK_EQ(fb_free_dataset(s, 0), 0);
    CHECK_EQ(store_blocks(s), 0);
    CHECK_EQ(fb_segment_state_of(s, view.segment), FB_HELD);
    CHECK(block_is(1, 0, view.data, LENGTH));
    fb_release(s, &view);
    CHECK(fb_segment_unhold(s, view.segment));
    finish(s);
    CHECK_EQ(store_blocks(s), 0);
    end(s);
}

/* The sweep at the end locks every page: one that a dead writer left is mended, not passed over. */
TEST(the_sweep_mends_what_a_dead_writer_left)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, 1000));
    s = reopen_without_index(s);
    fb_store *victim = fixture_open(&f);
    struct fb_key key = key_of_number(2);
    uint32_t page = atomic_load(&s->directory[fb_index_entry(s, key.lo)]);
    CHECK_EQ(fb_lock(victim, &s->metas[page].lock, 1000), 0);
    atomic_store(&s->metas[page].sequence, atomic_load(&s->metas[page].sequence) | 1u);
    atomic_store(&fb_page_at(s, page)->slots[5].place, FB_SLOT_MOVING);
    fixture_kill(victim);
    finish(s);
    CHECK_EQ(atomic_load(&s->metas[page].sequence) & 1u, 0);
    CHECK_EQ(atomic_load(&s->metas[page].lock), 0);
    CHECK_EQ(FB_PLACE_STATE(atomic_load(&fb_page_at(s, page)->slots[5].place)), FB_SLOT_EMPTY);
    CHECK(block_hit(s, 1, 0, 1000));
    end(s);
}

CHECK_MAIN
