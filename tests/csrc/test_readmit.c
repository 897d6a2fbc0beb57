/* Another directory in the place of a tier's: what is given up, what is kept, and who says so. */
#include <sys/stat.h>

#include "evict.h"
#include "health.h"
#include "store_fixture.h"
#include "tiers.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u

static struct fixture f;

/* Over one tier of mapped files, with the shared file elsewhere. */
static fb_store *begin(void)
{
    fixture_begin(&f, QUOTA);
    f.config.tiers[0].medium = FB_SSD;
    f.config.map_disk = true;
    return fixture_open(&f);
}

/* As an operator who changes a disk; the first to need a file of it finds out. */
static void change_directory(fb_store *s)
{
    fixture_remove_tier(&f, 0);
    CHECK_EQ(mkdir(f.config.tiers[0].path, 0700), 0);
    fb_tier_fault(s, 0, EROFS);
    CHECK(fb_tier_failed(s, 0));
}

static void probe_until_clean(fb_store *s)
{
    for (int probes = 0; probes < 3; probes++) {
        CHECK(fb_tier_failed(s, 0));
        fb_tier_probe(s, 0);
    }
    CHECK(!fb_tier_failed(s, 0));
}

static bool is_named(fb_store *s, uint64_t number)
{
    struct fb_key key = key_of_number(number);
    struct fb_found found;
    return fb_index_find(s, &key, &found) == 0;
}

TEST(what_lay_in_the_directory_of_before_is_given_up)
{
    fb_store *s = begin();
    uint64_t next = fill_segment(s, 0, LENGTH);
    CHECK(block_put(s, next, 0, LENGTH));
    struct fb_hit view = block_hold(s, next);
    uint32_t sealed = block_segment(s, 0);
    change_directory(s);
    probe_until_clean(s);
    for (uint64_t i = 0; i <= next; i++)
        CHECK(!is_named(s, i));
    CHECK_EQ(fb_segment_state_of(s, sealed), FB_ABSENT);
    CHECK_EQ(fb_segment_state_of(s, view.segment), FB_HELD);
    CHECK(block_is(next, 0, view.data, LENGTH));
    fb_release(s, &view);
    CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(fb_segment_state_of(s, view.segment), FB_ABSENT);
    CHECK(block_put(s, 0, 1, LENGTH));
    CHECK(block_hit(s, 0, 1, LENGTH));
    store_is_sound(s);
    fixture_end_store(&f, s);
}

TEST(what_a_scan_that_was_cut_short_found_is_given_up_too)
{
    fb_store *s = begin();
    CHECK(block_put(s, 1, 0, LENGTH));
    struct fb_hit view = block_hold(s, 1);
    struct fb_segment *seg = &s->segments[view.segment];
    fb_segment_seal(s, view.segment);
    CHECK(fb_segment_turn(s, view.segment, FB_SEALED, FB_UNSCANNED));
    CHECK_NE(FB_WORD_RECORDS(atomic_load(&seg->word)), 0);
    change_directory(s);
    probe_until_clean(s);
    CHECK(!is_named(s, 1));
    CHECK_EQ(fb_segment_state_of(s, view.segment), FB_HELD);
    CHECK(block_is(1, 0, view.data, LENGTH));
    fb_release(s, &view);
    CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(fb_segment_state_of(s, view.segment), FB_ABSENT);
    fixture_end_store(&f, s);
}

/* That a segment is owned by this process may be the work of its other thread, which goes on with it. */
TEST(a_segment_that_another_thread_retires_is_left_to_it)
{
    fb_store *s = begin();
    CHECK(block_put(s, 1, 0, LENGTH));
    uint32_t segment = block_segment(s, 1);
    fb_segment_seal(s, segment);
    CHECK(fb_segment_own(s, segment));
    CHECK(fb_segment_turn(s, segment, FB_SEALED, FB_RETIRING));
    change_directory(s);
    probe_until_clean(s);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_RETIRING);
    CHECK_EQ(atomic_load(&s->segments[segment].owner), s->me);
    CHECK(!is_named(s, 1));
    CHECK(fb_segment_turn(s, segment, FB_RETIRING, FB_HELD));
    fb_segment_disown(s, segment);
    CHECK(fb_segment_unhold(s, segment));
    CHECK_EQ(fb_segment_state_of(s, segment), FB_ABSENT);
    fixture_end_store(&f, s);
}

/* While one thread opens the new directory the others of its process still have the one that is gone. */
TEST(a_process_that_is_behind_takes_no_tier_out_and_drops_no_block)
{
    fb_store *s = begin(), *behind = fixture_open(&f);
    change_directory(s);
    probe_until_clean(s);
    CHECK(block_put(s, 1, 0, LENGTH));
    CHECK(fb_tier_is_outdated(behind, 0));
    atomic_store(&behind->tiers_reopening, true);
    CHECK(!block_hit(behind, 1, 0, LENGTH));
    struct fb_key key = key_of_number(2);
    CHECK_EQ(fb_put(behind, &key, TERMS(7, -1), "its file cannot be made", 23), -ENOSPC);
    CHECK(!fb_tier_failed(s, 0));
    CHECK(block_hit(s, 1, 0, LENGTH));
    atomic_store(&behind->tiers_reopening, false);
    CHECK(block_hit(behind, 1, 0, LENGTH));
    CHECK(!fb_tier_is_outdated(behind, 0));
    fb_close(behind);
    fixture_end_store(&f, s);
}

TEST(who_finds_the_directory_that_another_has_taken_keeps_what_is_in_it)
{
    fb_store *s = begin(), *behind = fixture_open(&f);
    change_directory(s);
    probe_until_clean(s);
    CHECK(block_put(s, 1, 0, LENGTH));
    uint32_t changes = atomic_load(&s->shared->tiers[0].directory_changes);
    fb_tier_fault(s, 0, EROFS);
    probe_until_clean(behind);
    CHECK_EQ(atomic_load(&s->shared->tiers[0].directory_changes), changes);
    CHECK(!fb_tier_is_outdated(behind, 0));
    CHECK(block_hit(s, 1, 0, LENGTH));
    CHECK(block_hit(behind, 1, 0, LENGTH));
    fb_close(behind);
    fixture_end_store(&f, s);
}

CHECK_MAIN
