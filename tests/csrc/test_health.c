/* Tier directories that fail and come back, and errors that are no failures. */
#include "health.h"

#include <fcntl.h>
#include <unistd.h>

#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u

static struct fixture f;

static fb_store *begin(uint32_t tiers)
{
    fixture_begin(&f, QUOTA);
    while (f.config.tier_count < tiers)
        fixture_add_tier(&f, FB_MEM, QUOTA);
    return fixture_open(&f);
}

static void end(fb_store *s)
{
    fixture_end_store(&f, s);
}

/* Every write to this segment fails from now on, as on a bad disk. */
static void break_segment(fb_store *s, uint32_t segment)
{
    int broken = open("/dev/null", O_RDONLY | O_CLOEXEC), fd = fb_descriptor_get(s, segment);
    CHECK(broken >= 0 && fd >= 0);
    CHECK_EQ(dup2(broken, fd), fd);
    fb_descriptor_put(s, segment, fd);
    close(broken);
}

TEST(errors_of_writing_take_a_directory_out)
{
    fb_store *s = begin(1);
    CHECK(block_put(s, 1, 0, LENGTH));
    uint32_t segment = block_segment(s, 1);
    break_segment(s, segment);
    for (int tries = 0; tries < 3; tries++) {
        CHECK(!fb_tier_failed(s, 0));
        CHECK(!block_put(s, 2, 0, LENGTH));
    }
    CHECK(fb_tier_failed(s, 0));
    CHECK_GE(store_counter(s, FB_C_IO_ERRORS), 3);
    CHECK(!block_hit(s, 1, 0, LENGTH));
    CHECK_EQ(store_counter(s, FB_C_MISS_IO), 1);
    end(s);
}

TEST(what_a_process_or_a_full_disk_causes_is_no_failure)
{
    static const int errors[] = {ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM, EFBIG, EINTR, EACCES, EPERM};
    fb_store *s = begin(1);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        for (int times = 0; times < 5; times++)
            fb_tier_fault(s, 0, errors[i]);
    CHECK(!fb_tier_failed(s, 0));
    CHECK_EQ(store_counter(s, FB_C_IO_ERRORS), 0);
    end(s);
}

TEST(a_directory_comes_back_after_three_clean_probes)
{
    fb_store *s = begin(1), *other = fixture_open(&f);
    CHECK(block_put(s, 1, 0, LENGTH));
    fb_tier_fault(s, 0, EROFS);
    CHECK(fb_tier_failed(other, 0)); /* for all processes */
    struct fb_key key = key_of_number(1);
    CHECK(!fb_contains(other, &key));
    CHECK(!block_hit(other, 1, 0, LENGTH));
    CHECK(!block_put(s, 2, 0, LENGTH));
    for (int probes = 0; probes < 3; probes++) {
        CHECK(fb_tier_failed(s, 0));
        fb_tier_probe(other, 0);
    }
    CHECK(!fb_tier_failed(s, 0));
    CHECK(block_hit(s, 1, 0, LENGTH));
    CHECK(block_put(s, 2, 0, LENGTH));
    fb_close(other);
    end(s);
}

TEST(directories_of_a_level_stand_in_for_each_other)
{
    fb_store *s = begin(2);
    for (uint64_t i = 0; i < 40; i++)
        CHECK(block_put(s, i, 0, LENGTH));
    uint64_t in_first = 0;
    for (uint64_t i = 0; i < 40; i++)
        in_first += s->segment_tier[block_segment(s, i)] == 0;
    CHECK(in_first > 0 && in_first < 40);
    fb_tier_fault(s, 0, EROFS);
    uint64_t hits = 0;
    for (uint64_t i = 0; i < 40; i++)
        hits += block_hit(s, i, 0, LENGTH);
    CHECK_EQ(hits, 40 - in_first);
    for (uint64_t i = 100; i < 120; i++) {
        CHECK(block_put(s, i, 0, LENGTH));
        CHECK_EQ(s->segment_tier[block_segment(s, i)], 1);
    }
    end(s);
}

TEST(a_directory_that_is_gone_is_out_at_once)
{
    fixture_begin(&f, QUOTA);
    fixture_add_tier(&f, FB_SSD, QUOTA);
    f.config.tiers[0].medium = FB_SSD;
    fb_store *s = fixture_open(&f), *fresh = fixture_open(&f);
    uint64_t lost = 0;
    for (uint64_t i = 0; i < 40; i++)
        CHECK(block_put(s, i, 0, LENGTH));
    while (s->segment_tier[block_segment(s, lost)] != 0)
        lost++;
    fixture_remove_tier(&f, 0);
    /* Who has a file open reads on; who would open it finds out. */
    CHECK(!block_hit(fresh, lost, 0, LENGTH));
    CHECK(fb_tier_failed(s, 0));
    for (uint64_t i = 100; i < 110; i++) {
        CHECK(block_put(s, i, 0, LENGTH));
        CHECK_EQ(s->segment_tier[block_segment(s, i)], 1);
    }
    fb_close(fresh);
    end(s);
}

CHECK_MAIN
