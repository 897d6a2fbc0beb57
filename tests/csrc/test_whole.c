/* Whole-file segments: filled block by block, read meanwhile, complete or given up, evicted as a whole. */
#include <pthread.h>
#include <unistd.h>

#include "evict.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (64 * MIB)
#define BLOCK ((uint64_t)256 << 10)
#define FILE_KEY 1000000u

static struct fixture f;
static fb_store *a, *b;

static void begin(void)
{
    fixture_begin(&f, QUOTA);
    f.config.block_bytes = BLOCK; /* segments of 1 MiB rather than of 4 */
    a = fixture_open(&f);
    b = fixture_open(&f);
}

static void end(void)
{
    fb_close(b);
    fixture_end_store(&f, a);
}

/* A little more than a segment, its last block short; at most 1/16 of the quota. */
static uint64_t file_bytes(void)
{
    return a->super->tiers[0].segment_bytes + BLOCK + 777;
}

static uint64_t block_count(void)
{
    return (file_bytes() + BLOCK - 1) / BLOCK;
}

static uint64_t length_of(uint64_t block)
{
    uint64_t left = file_bytes() - block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

static struct fb_whole start(fb_store *s)
{
    struct fb_key key = key_of_number(FILE_KEY);
    struct fb_whole whole = {.segment = FB_NO_SEGMENT};
    CHECK_EQ(fb_whole_begin(s, &key, TERMS(0, -1), file_bytes(), BLOCK, &whole), 0);
    return whole;
}

static int write_block(fb_store *s, struct fb_whole *whole, uint64_t block)
{
    struct fb_key key = key_of_number(block);
    uint8_t data[BLOCK];
    block_bytes(block, 0, data, length_of(block));
    return fb_whole_write(s, whole, block, &key, data, length_of(block));
}

static struct fb_whole write_all(fb_store *s)
{
    struct fb_whole whole = start(s);
    for (uint64_t block = block_count(); block-- > 0;)
        CHECK_EQ(write_block(s, &whole, block), 0);
    return whole;
}

static bool whole_hit(fb_store *s)
{
    struct fb_key key = key_of_number(FILE_KEY);
    struct fb_hit hit;
    int r = fb_whole_get(s, &key, &hit);
    if (r != 0)
        return false;
    CHECK_EQ(hit.length_bytes, file_bytes());
    for (uint64_t block = 0; block < block_count(); block++)
        CHECK(block_is(block, 0, hit.data + block * BLOCK, length_of(block)));
    fb_release(s, &hit);
    return true;
}

TEST(a_file_written_in_any_order_is_one_view)
{
    begin();
    struct fb_whole whole = write_all(a);
    CHECK(!whole_hit(b));
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    CHECK(whole_hit(a));
    CHECK(whole_hit(b));
    for (uint64_t block = 0; block < block_count(); block++)
        CHECK(block_hit(b, block, 0, length_of(block)));
    struct fb_key key = key_of_number(FILE_KEY);
    CHECK(!fb_contains(a, &key)); /* no block has this name */
    CHECK_EQ(store_blocks(a), block_count());
    store_is_sound(a);
    end();
}

TEST(a_block_that_comes_in_pieces_is_that_block)
{
    begin();
    struct fb_whole whole = start(a);
    uint8_t data[BLOCK];
    for (uint64_t block = 0; block < block_count(); block++) {
        struct fb_key key = key_of_number(block);
        struct fb_whole_block filling;
        block_bytes(block, 0, data, length_of(block));
        CHECK_EQ(fb_whole_block_begin(a, &whole, block, &key, &filling), 0);
        CHECK_EQ(filling.length_bytes, length_of(block));
        for (uint64_t done = 0, piece = block * 30000 + 1; done < length_of(block); done += piece) {
            piece = piece < length_of(block) - done ? piece : length_of(block) - done;
            CHECK_EQ(fb_whole_block_commit(a, &whole, &filling), -EINVAL);
            CHECK_EQ(fb_whole_block_append(a, &whole, &filling, data + done, piece), 0);
            CHECK(!fb_contains(b, &key));
        }
        CHECK_EQ(fb_whole_block_append(a, &whole, &filling, data, 1), -EINVAL);
        CHECK_EQ(fb_whole_block_commit(a, &whole, &filling), 0);
        CHECK(block_hit(b, block, 0, length_of(block)));
        CHECK_EQ(fb_whole_block_begin(a, &whole, block, &key, &filling), -EALREADY);
    }
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    CHECK(whole_hit(b));
    store_is_sound(a);
    end();
}

TEST(a_file_that_was_given_up_takes_no_piece)
{
    begin();
    struct fb_whole whole = start(a);
    struct fb_key key = key_of_number(0);
    struct fb_whole_block filling;
    uint8_t data[BLOCK];
    block_bytes(0, 0, data, BLOCK);
    CHECK_EQ(fb_whole_block_begin(a, &whole, 0, &key, &filling), 0);
    CHECK_EQ(fb_whole_block_append(a, &whole, &filling, data, BLOCK), 0);
    fb_whole_abandon(a, &whole);
    CHECK_EQ(fb_whole_block_append(a, &whole, &filling, data, 0), -ENOSPC);
    CHECK_EQ(fb_whole_block_commit(a, &whole, &filling), -ENOSPC);
    CHECK_EQ(fb_whole_block_begin(a, &whole, 1, &key, &filling), -ENOSPC);
    CHECK_EQ(store_blocks(a), 0);
    store_is_sound(a);
    end();
}

TEST(blocks_are_read_while_the_file_fills)
{
    begin();
    struct fb_whole whole = start(a);
    CHECK_EQ(write_block(a, &whole, 2), 0);
    struct fb_hit hit = block_hold(b, 2);
    CHECK(hit.owned == NULL);
    CHECK(!block_hit(b, 0, 0, BLOCK));
    CHECK(!whole_hit(b));
    for (uint64_t block = 0; block < block_count(); block++)
        CHECK_EQ(write_block(a, &whole, block), 0);
    CHECK(block_is(2, 0, hit.data, BLOCK));
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    CHECK(whole_hit(b));
    CHECK(block_is(2, 0, hit.data, BLOCK));
    fb_release(b, &hit);
    end();
}

/* A fetcher that tries again writes what is there already. */
TEST(a_block_written_twice_is_there_once)
{
    begin();
    struct fb_whole whole = start(a);
    uint8_t other[BLOCK] = {0};
    struct fb_key first = key_of_number(0);
    for (uint64_t block = 0; block < block_count(); block++)
        CHECK_EQ(write_block(a, &whole, block), 0);
    struct fb_hit hit = block_hold(b, 0);
    CHECK_EQ(write_block(a, &whole, 1), 0);
    CHECK_EQ(fb_whole_write(a, &whole, 0, &first, other, BLOCK), 0);
    CHECK(block_is(0, 0, hit.data, BLOCK)); /* never changed under a view */
    fb_release(b, &hit);
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    CHECK(whole_hit(b));
    CHECK_EQ(store_counter(a, FB_C_PUT), block_count());
    store_is_sound(a);
    end();
}

TEST(a_file_with_a_block_missing_is_given_up)
{
    begin();
    struct fb_whole whole = start(a);
    for (uint64_t block = 0; block < block_count(); block++)
        if (block != 1)
            CHECK_EQ(write_block(a, &whole, block), 0);
    CHECK_EQ(fb_whole_complete(a, &whole), -ENODATA);
    CHECK(!whole_hit(a));
    for (uint64_t block = 0; block < block_count(); block++)
        CHECK(!block_hit(b, block, 0, length_of(block)));
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_ABSENT);
    CHECK_EQ(write_block(a, &whole, 1), -ENOSPC);
    CHECK_EQ(fb_whole_complete(a, &whole), -ENOSPC);
    struct fb_whole next = write_all(b);
    CHECK_EQ(fb_whole_complete(b, &next), 0);
    CHECK(whole_hit(a));
    store_is_sound(a);
    end();
}

TEST(an_abandoned_file_is_held_while_a_block_of_it_is_read)
{
    begin();
    struct fb_whole whole = start(a);
    CHECK_EQ(write_block(a, &whole, 0), 0);
    CHECK_EQ(write_block(a, &whole, 3), 0);
    struct fb_hit hit = block_hold(b, 3);
    fb_whole_abandon(a, &whole);
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_HELD);
    CHECK(!block_hit(b, 3, 0, length_of(3)));
    CHECK(block_is(3, 0, hit.data, length_of(3)));
    fb_release(b, &hit);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_ABSENT);
    fb_whole_abandon(a, &whole); /* again: nothing */
    end();
}

TEST(what_cannot_be_a_whole_file_is_refused)
{
    begin();
    struct fb_key key = key_of_number(FILE_KEY);
    struct fb_whole whole;
    uint64_t segment_bytes = a->super->tiers[0].segment_bytes;
    uint8_t data[BLOCK] = {0};
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), file_bytes(), BLOCK + 1, &whole), -EINVAL);
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), file_bytes(), 4096, &whole), -EINVAL);
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), file_bytes(), 2 * FB_BLOCK_BYTES_MAX, &whole), -EINVAL);
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), 0, BLOCK, &whole), -EINVAL);
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), segment_bytes - 1, BLOCK, &whole), -ENOSPC);
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), QUOTA / 16, BLOCK, &whole), -ENOSPC);
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), UINT64_MAX, BLOCK, &whole), -ENOSPC);
    whole = start(a);
    CHECK_EQ(fb_whole_write(a, &whole, block_count(), &key, data, 1), -EINVAL);
    CHECK_EQ(fb_whole_write(a, &whole, UINT64_MAX / BLOCK + 1, &key, data, BLOCK), -EINVAL);
    CHECK_EQ(fb_whole_write(a, &whole, 0, &key, data, BLOCK - 1), -EINVAL);
    CHECK_EQ(fb_whole_write(a, &whole, block_count() - 1, &key, data, BLOCK), -EINVAL);
    CHECK_EQ(fb_whole_write(b, &whole, 0, &key, data, BLOCK), -ENOSPC); /* another process's */
    fb_whole_abandon(b, &whole);
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_OPEN);
    fb_whole_abandon(a, &whole);
    end();
}

TEST(a_file_is_evicted_as_a_whole)
{
    begin();
    struct fb_whole whole = write_all(a);
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    struct fb_key key = key_of_number(FILE_KEY);
    struct fb_hit hit;
    CHECK_EQ(fb_whole_get(b, &key, &hit), 0);
    CHECK_EQ(fb_segment_retire(a, whole.segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_HELD);
    CHECK(!whole_hit(b));
    CHECK(!block_hit(b, 0, 0, BLOCK));
    CHECK(block_is(0, 0, hit.data, BLOCK));
    fb_release(b, &hit);
    CHECK(fb_segment_unhold(a, whole.segment));
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_ABSENT);
    CHECK_EQ(store_blocks(a), 0);
    /* The number in another use is another file. */
    struct fb_whole next = write_all(b);
    CHECK_EQ(next.segment, whole.segment);
    CHECK_EQ(fb_whole_complete(b, &next), 0);
    CHECK(whole_hit(a));
    CHECK(whole_hit(b));
    end();
}

TEST(a_file_whose_writer_died_is_given_up)
{
    begin();
    fb_store *victim = fixture_open(&f);
    struct fb_whole whole = start(victim);
    CHECK_EQ(write_block(victim, &whole, 0), 0);
    CHECK(block_hit(a, 0, 0, BLOCK));
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(fb_segment_state_of(a, whole.segment), FB_OPEN); /* it lives */
    fixture_kill(victim);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_NE(fb_segment_state_of(a, whole.segment), FB_OPEN);
    CHECK(!whole_hit(a));
    block_hit(a, 0, 0, BLOCK); /* its block may stay: the right bytes, or a miss */
    store_is_sound(a);
    end();
}

TEST(recycled_segments_make_room_for_a_file)
{
    begin();
    uint64_t count = 0;
    while (block_put(a, count, 0, BLOCK))
        count++;
    struct fb_key key = key_of_number(FILE_KEY);
    struct fb_whole whole;
    CHECK_EQ(fb_whole_begin(a, &key, TERMS(0, -1), file_bytes(), BLOCK, &whole), -ENOSPC);
    for (uint32_t segment = 0; segment < 3; segment++)
        CHECK_EQ(fb_segment_retire(a, segment, FB_EVICT_ALL), 0);
    struct fb_usage u;
    fb_tier_usage(a, 0, &u);
    CHECK_EQ(u.free_count, 3);
    whole = write_all(a);
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    CHECK(whole_hit(b));
    fb_tier_usage(a, 0, &u);
    CHECK_LE(u.file_bytes, QUOTA);
    end();
}

static void damage_whole(uint64_t offset)
{
    char path[FB_PATH_MAX];
    uint8_t wrong = 0xa5;
    fixture_tier_path(&f, 0, "whole-000000", path);
    fixture_damage(path, offset, &wrong, 1);
}

static void reopen(void)
{
    fb_close(b);
    fb_close(a);
    a = fixture_open(&f);
    b = fixture_open(&f);
}

TEST(a_whole_file_outlives_a_restart_and_is_verified_then)
{
    begin();
    struct fb_whole whole = write_all(a);
    CHECK_EQ(fb_whole_complete(a, &whole), 0);
    reopen();
    CHECK(whole_hit(a));
    CHECK(whole_hit(b));
    CHECK(block_hit(b, 0, 0, BLOCK));
    reopen();
    damage_whole(2 * BLOCK + 5);
    CHECK(!whole_hit(a));
    CHECK(!whole_hit(b));
    CHECK(block_hit(a, 1, 0, BLOCK));
    CHECK(!block_hit(a, 2, 0, BLOCK));
    end();
}

TEST(a_second_file_of_the_name_replaces_the_first)
{
    begin();
    struct fb_whole first = write_all(a);
    CHECK_EQ(fb_whole_complete(a, &first), 0);
    struct fb_whole second = write_all(b);
    CHECK_NE(first.segment, second.segment);
    CHECK(whole_hit(a));
    CHECK_EQ(fb_whole_complete(b, &second), 0);
    struct fb_key key = key_of_number(FILE_KEY);
    struct fb_found found;
    CHECK_EQ(fb_index_find(a, &key, &found), 0);
    CHECK_EQ(FB_PLACE_SEGMENT(found.place), second.segment);
    CHECK_EQ(fb_maintain(a), 0); /* the first has nothing that anybody names */
    CHECK_EQ(fb_segment_state_of(a, first.segment), FB_ABSENT);
    CHECK(whole_hit(a));
    store_is_sound(a);
    end();
}

/* ---- threads ---- */

static _Atomic bool files_end;

static void *read_files(void *argument)
{
    fb_store *s = argument;
    for (uint64_t block = 0; !atomic_load(&files_end); block = (block + 1) % block_count()) {
        block_hit(s, block, 0, length_of(block)); /* the right bytes, or a miss */
        whole_hit(s);
    }
    return NULL;
}

TEST(readers_while_files_come_and_go)
{
    begin();
    pthread_t readers[3];
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&readers[i], NULL, read_files, i ? b : a), 0);
    for (int round = 0; round < 8; round++) {
        struct fb_whole whole = write_all(a);
        if (round % 3 == 0) {
            fb_whole_abandon(a, &whole);
            continue;
        }
        CHECK_EQ(fb_whole_complete(a, &whole), 0);
        CHECK(whole_hit(a));
        CHECK_EQ(fb_segment_retire(a, whole.segment, FB_EVICT_ALL), 0);
        CHECK(!whole_hit(a));
    }
    struct fb_whole whole = write_all(b);
    CHECK_EQ(fb_whole_complete(b, &whole), 0);
    CHECK(whole_hit(b));
    atomic_store(&files_end, true);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(readers[i], NULL), 0);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK(whole_hit(a));
    store_is_sound(a);
    end();
}

CHECK_MAIN
