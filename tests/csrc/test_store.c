/* Blocks in and out: lengths, versions, expiry, pins, checksums, reservations, slots that lie. */
#include <unistd.h>

#include "change.h"
#include "platform.h"
#include "read.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (32 * MIB)

static struct fixture f;

static const uint64_t lengths[] = {0,       1,     7,     8,      63,     64,     4095,   4096,
                                   65535,   65536, 65537, 131071, 131072, 131073, 200001, (1u << 20) - 1,
                                   1u << 20};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static void come_back(enum fb_checksum checksum)
{
    f.config.checksum = checksum;
    fb_store *a = fixture_open(&f), *b = fixture_open(&f);
    for (uint64_t i = 0; i < LENGTHS; i++)
        CHECK(block_put(a, i, 0, lengths[i]));
    for (uint64_t i = 0; i < LENGTHS; i++) {
        struct fb_key key = key_of_number(i);
        CHECK(fb_contains(b, &key));
        CHECK(block_hit(a, i, 0, lengths[i]));
        CHECK(block_hit(b, i, 0, lengths[i]));
    }
    store_is_sound(a);
    fb_close(a);
    fb_close(b);
    a = fixture_open(&f);
    for (uint64_t i = 0; i < LENGTHS; i++)
        CHECK(block_hit(a, i, 0, lengths[i]));
    CHECK_EQ(store_blocks(a), LENGTHS);
    store_is_sound(a);
    fb_close(a);
}

TEST(every_length_comes_back_from_memory)
{
    for (int checksum = FB_CHECKSUM_NONE; checksum <= FB_CHECKSUM_READ; checksum++) {
        fixture_begin(&f, QUOTA);
        come_back(checksum);
        fixture_end(&f);
    }
}

TEST(every_length_comes_back_from_disk)
{
    for (int map = 0; map < 2; map++) {
        fixture_begin(&f, QUOTA);
        f.config.tiers[0].medium = FB_SSD;
        f.config.map_disk = map;
        come_back(FB_CHECKSUM_LOAD);
        fixture_end(&f);
    }
}

TEST(a_part_is_read_from_any_offset)
{
    for (int medium = FB_MEM; medium <= FB_SSD; medium++) {
        fixture_begin(&f, QUOTA);
        f.config.tiers[0].medium = (uint32_t)medium;
        fb_store *s = fixture_open(&f);
        const uint64_t length = 200001;
        static const uint64_t offsets[] = {0, 1, 65535, 65536, 199999, 200000, 200001, 200002, UINT64_MAX};
        struct fb_key key = key_of_number(1);
        uint8_t *whole = malloc(length), *part = malloc(length);
        block_bytes(1, 0, whole, length);
        CHECK(block_put(s, 1, 0, length));
        for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++)
            for (uint64_t wanted = 0; wanted <= length; wanted += 66667) {
                uint64_t left = offsets[i] < length ? length - offsets[i] : 0, copied = 7;
                CHECK_EQ(fb_read(s, &key, NOBODY, offsets[i], part, wanted, &copied), 0);
                CHECK_EQ(copied, left < wanted ? left : wanted);
                CHECK_BYTES_EQ(part, whole + (copied ? offsets[i] : 0), copied);
            }
        free(whole);
        free(part);
        fixture_end_store(&f, s);
    }
}

TEST(the_newest_version_is_read_by_all)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    for (uint32_t version = 0; version < 5; version++) {
        CHECK(block_put(version % 2 ? a : b, 1, version, 1000 + version));
        CHECK(block_hit(a, 1, version, 1000 + version));
        CHECK(block_hit(b, 1, version, 1000 + version));
    }
    CHECK_EQ(store_blocks(a), 1);
    struct fb_key key = key_of_number(1);
    CHECK_EQ(fb_delete(b, &key), 0);
    CHECK_EQ(fb_delete(a, &key), -ENOENT);
    CHECK(!block_hit(a, 1, 4, 1004));
    CHECK_EQ(store_blocks(a), 0);
    CHECK_EQ(store_counter(a, FB_C_PUT), 5);
    CHECK_EQ(store_counter(a, FB_C_DELETED), 1);
    store_is_sound(a);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(a_ttl_ends_by_the_stores_clock)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct fb_key short_lived = key_of_number(1), long_lived = key_of_number(2), at_once = key_of_number(3);
    CHECK_EQ(fb_put(a, &short_lived, TERMS(0, 10), "a", 1), 0);
    CHECK_EQ(fb_put(a, &long_lived, TERMS(0, 1e12), "b", 1), 0);
    CHECK_EQ(fb_put(a, &at_once, TERMS(0, 0), "c", 1), 0);
    fb_clock_advance(b, 9000);
    CHECK(fb_contains(a, &short_lived));
    CHECK_EQ(fb_contains_at_once(a, &short_lived), 1);
    fb_clock_advance(b, 2000);
    CHECK(!fb_contains(a, &short_lived));
    CHECK_EQ(fb_contains_at_once(a, &short_lived), 0);
    CHECK(!fb_contains(a, &at_once));
    CHECK(fb_contains(a, &long_lived));
    CHECK_EQ(fb_expire(a, &long_lived, 5), 0);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(store_blocks(a), 1);
    CHECK_EQ(store_counter(a, FB_C_EXPIRED), 2);
    fb_clock_advance(a, 7000);
    struct fb_hit hit;
    CHECK_EQ(fb_get(a, &long_lived, NOBODY, false, &hit), -ENOENT);
    CHECK_EQ(store_counter(a, FB_C_MISS_EXPIRED), 1);
    CHECK_EQ(fb_maintain(a), 0);
    CHECK_EQ(store_blocks(a), 0);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(a_block_that_is_given_more_time_is_not_dropped_by_who_saw_it_expired)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1);
    CHECK_EQ(fb_drop_expired(s, &key), -ENOENT);
    CHECK_EQ(fb_put(s, &key, TERMS(0, 10), "a", 1), 0);
    CHECK_EQ(fb_expire(s, &key, 1000), 0);
    fb_clock_advance(s, 100 * 1000);
    CHECK_EQ(fb_drop_expired(s, &key), -EAGAIN);
    CHECK(fb_contains(s, &key));
    fb_clock_advance(s, 1000 * 1000);
    CHECK_EQ(fb_drop_expired(s, &key), 0);
    CHECK_EQ(store_blocks(s), 0);
    CHECK_EQ(store_counter(s, FB_C_EXPIRED), 1);
    fixture_end_store(&f, s);
}

TEST(pins_are_refused_above_their_share)
{
    fb_store *s = fixture_begin_store(&f, 16 * MIB);
    const uint64_t length = 1u << 20;
    uint64_t pinned = 0;
    for (; block_put(s, pinned, 0, length); pinned++) {
        struct fb_key key = key_of_number(pinned);
        int r = fb_pin(s, &key, NULL);
        CHECK(r == 0 || r == -EDQUOT);
        if (r != 0)
            break;
    }
    CHECK_EQ(pinned, 16 * MIB * 8 / 10 / length);
    struct fb_key first = key_of_number(0), refused = key_of_number(pinned);
    CHECK_EQ(fb_pin(s, &first, NULL), 0); /* again: no change */
    CHECK_EQ(fb_unpin(s, &first), 0);
    CHECK_EQ(fb_pin(s, &refused, NULL), 0);
    struct fb_key absent = key_of_number(999);
    CHECK_EQ(fb_pin(s, &absent, NULL), -ENOENT);
    /* A version that replaces a pinned one is pinned. */
    CHECK(block_put(s, 1, 1, 100));
    CHECK(FB_PLACE_FLAGS(block_found(s, 1).place) & FB_SLOT_PINNED);
    fixture_end_store(&f, s);
}

/* ---- reservations ---- */

TEST(a_reservation_is_seen_once_it_is_committed)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    for (uint64_t i = 0; i < LENGTHS; i++) {
        struct fb_key key = key_of_number(i);
        struct fb_fill fill;
        CHECK_EQ(fb_reserve(a, &key, TERMS(0, -1), lengths[i], &fill), 0);
        block_bytes(i, 0, fill.data, lengths[i]);
        CHECK(!block_hit(b, i, 0, lengths[i]));
        CHECK_EQ(fb_fill_commit(a, &fill), 0);
        CHECK(block_hit(b, i, 0, lengths[i]));
    }
    struct fb_key key = key_of_number(100);
    struct fb_fill fill;
    CHECK_EQ(fb_reserve(a, &key, TERMS(0, -1), 1000, &fill), 0);
    uint32_t segment = fill.segment;
    fb_fill_abandon(a, &fill);
    CHECK(!block_hit(a, 100, 0, 1000));
    CHECK(!fb_segment_is_leased(a, segment));
    store_is_sound(a);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(without_room_a_reservation_is_a_buffer_of_its_own)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1);
    struct fb_fill fill;
    CHECK_EQ(fb_reserve(s, &key, TERMS(0, -1), FB_BLOCK_BYTES_MAX + 1ull, &fill), 0);
    CHECK_EQ(fill.segment, FB_NO_SEGMENT);
    memset(fill.data, 1, 1000);
    CHECK_EQ(fb_fill_commit(s, &fill), -ENOSPC);
    CHECK_EQ(store_counter(s, FB_C_NOT_ADMITTED), 1);
    CHECK_EQ(fb_reserve(s, &key, TERMS(0, -1), FB_BLOCK_BYTES_MAX, &fill), 0); /* no segment is that large */
    CHECK_EQ(fill.segment, FB_NO_SEGMENT);
    fb_fill_abandon(s, &fill);
    fixture_end_store(&f, s);
}

/* ---- bytes that are not what they were ---- */

static void expect_dropped(uint64_t length, uint64_t offset)
{
    fb_store *s = fixture_open(&f);
    CHECK(block_put(s, 1, 0, length));
    CHECK(block_put(s, 2, 0, length));
    if (f.config.checksum == FB_CHECKSUM_LOAD) {
        fb_close(s);
        s = fixture_open(&f);
    }
    uint64_t missed = store_counter(s, FB_C_MISS_CHECKSUM);
    block_damage(&f, s, 1, offset);
    CHECK(!block_hit(s, 1, 0, length));
    CHECK_EQ(store_counter(s, FB_C_MISS_CHECKSUM), missed + 1);
    struct fb_key key = key_of_number(1);
    CHECK(!fb_contains(s, &key));
    CHECK(block_hit(s, 2, 0, length));
    CHECK(block_put(s, 1, 1, length));
    CHECK(block_hit(s, 1, 1, length));
    fb_close(s);
}

TEST(damaged_data_is_a_miss_at_the_first_read_of_a_process)
{
    static const uint64_t of[][2] = {{1000, 0}, {1000, 999}, {200001, 0}, {200001, 100000}, {200001, 200000}};
    for (int checksum = FB_CHECKSUM_LOAD; checksum <= FB_CHECKSUM_READ; checksum++)
        for (size_t i = 0; i < sizeof of / sizeof of[0]; i++)
            for (int medium = FB_MEM; medium <= FB_SSD; medium++) {
                fixture_begin(&f, QUOTA);
                f.config.tiers[0].medium = (uint32_t)medium;
                f.config.checksum = (uint32_t)checksum;
                expect_dropped(of[i][0], of[i][1]);
                fixture_end(&f);
            }
}

TEST(a_reader_does_not_wait_for_a_page_to_say_that_it_verified)
{
    fb_store *s = fixture_begin_store(&f, QUOTA), *writer = fixture_open(&f);
    CHECK(block_put(s, 1, 0, 1000));
    atomic_fetch_add(&s->shared->verify_generation, 1);
    struct fb_found found = block_found(s, 1);
    CHECK_EQ(fb_lock(writer, &s->metas[found.page].lock, 1000), 0);
    int64_t begun = fb_boottime_ms();
    CHECK(block_hit(s, 1, 0, 1000));
    struct fb_key key = key_of_number(1);
    fb_block_mark_verified(s, &key, &found); /* the writer came after the look at the lock */
    CHECK_LT(fb_boottime_ms() - begun, 500); /* who waits, waits for a second */
    CHECK_EQ(block_found(s, 1).place, found.place);
    fb_index_unlock(writer, found.page);
    CHECK(block_hit(s, 1, 0, 1000));
    CHECK_EQ(FB_PLACE_VERIFIED(block_found(s, 1).place), atomic_load(&s->shared->verify_generation));
    fb_close(writer);
    fixture_end_store(&f, s);
}

TEST(damaged_checksums_of_chunks_are_as_bad_as_damaged_data)
{
    fixture_begin(&f, QUOTA);
    f.config.checksum = FB_CHECKSUM_READ;
    expect_dropped(200001, 200008); /* behind the data, 8-byte aligned */
    fixture_end(&f);
}

/* ---- slots that lie ---- */

static void expect_hostile_slot_dropped(fb_store *s, uint64_t place, uint64_t extent)
{
    struct fb_key key = key_of_number(77);
    struct fb_found found;
    uint64_t old, copied;
    uint8_t byte;
    struct fb_hit hit;
    CHECK_EQ(fb_index_put(s, &key, place, extent, NULL, NULL, &old), 0);
    CHECK(!fb_contains(s, &key) || FB_PLACE_SEGMENT(place) < s->segment_count);
    CHECK_EQ(fb_get(s, &key, NOBODY, false, &hit), -ENOENT);
    CHECK_EQ(fb_index_find(s, &key, &found), -ENOENT);
    CHECK_EQ(fb_index_put(s, &key, place, extent, NULL, NULL, &old), 0);
    CHECK_EQ(fb_read(s, &key, NOBODY, 0, &byte, 1, &copied), -ENOENT);
    CHECK_EQ(fb_index_find(s, &key, &found), -ENOENT);
}

TEST(slots_that_lead_out_of_their_segment_are_dropped)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, 1000));
    uint64_t file_bytes = s->super->tiers[0].segment_bytes;
    uint32_t verified = atomic_load(&s->shared->verify_generation), length = 1000;
    uint32_t last = (uint32_t)((file_bytes - length) >> FB_UNIT_SHIFT);
    uint64_t good = FB_EXTENT(length, 0), long_one = FB_EXTENT((1u << 27) - 1, 0);

    for (uint32_t mark = 0; mark <= verified; mark += verified) {
        expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, mark, 0, 64, s->segment_count), good);
        expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, mark, 0, 64, 0xffff), good);
        expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, mark, 0, 0, 0), good);
        expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, mark, 0, last + 1, 0), good);
        expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, mark, 0, 0x3fffff, 0), good);
        expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, mark, 0, 64, 0), long_one);
    }
    /* In bounds, but not what the record says: found out where it is verified. */
    expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, 0, 0, 64, 0), FB_EXTENT(999, 0));
    expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, 0, 0x3fff, 64, 0), good);
    expect_hostile_slot_dropped(s, FB_PLACE(FB_SLOT_PRESENT, 0, 0, 0, 64, 20), good); /* no such file */
    CHECK(block_hit(s, 1, 0, 1000));
    store_is_sound(s);
    fixture_end_store(&f, s);
}

/* A slot that says `whole` of a segment that is none must not make a view as long as some other field says.
 */
TEST(a_whole_slot_of_a_slotted_segment_is_no_whole_file)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(77);
    struct fb_hit hit;
    uint64_t old;
    CHECK(block_put(s, 1, 0, 1000));
    uint32_t segment = block_segment(s, 1);
    atomic_store(&s->segments[segment].whole_bytes, 1ull << 40);
    uint64_t place =
        FB_PLACE(FB_SLOT_PRESENT, FB_SLOT_WHOLE, atomic_load(&s->shared->verify_generation), 0, 0, segment);
    CHECK_EQ(fb_index_put(s, &key, place, 0, NULL, NULL, &old), 0);
    CHECK_EQ(fb_whole_get(s, &key, &hit), -ENOENT);
    CHECK_EQ(atomic_load(&s->row_leases[segment]), 0);
    fixture_end_store(&f, s);
}

CHECK_MAIN
