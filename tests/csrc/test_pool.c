/* Private buffers: classes, reuse, the bound on what is kept. */
#include "read.h"
#include "store_fixture.h"

#define KIB ((uint64_t)1 << 10)

static struct fixture f;

TEST(buffers_are_aligned_and_as_long_as_asked_for)
{
    fb_store *s = fixture_begin_store(&f, 16 * MIB);
    static const uint64_t lengths[] = {1,        63,          64,       32 * KIB - 1, 32 * KIB,  64 * KIB,
                                       65 * KIB, 1 * MIB + 1, 64 * MIB, 64 * MIB + 1, 128 * MIB, 129 * MIB};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t *buffer = fb_pool_take(s, lengths[i]);
        CHECK(buffer != NULL);
        CHECK_EQ((uintptr_t)buffer % 64, 0);
        /* First and last byte are ours, as AddressSanitizer sees it. */
        buffer[0] = 1;
        buffer[lengths[i] - 1] = 2;
        fb_pool_give(s, buffer);
        CHECK_LE(s->pool_bytes, FB_POOL_BYTES_MAX);
    }
    fixture_end_store(&f, s);
}

TEST(a_buffer_given_back_is_taken_again_by_its_class_only)
{
    fb_store *s = fixture_begin_store(&f, 16 * MIB);
    void *large = fb_pool_take(s, 1 * MIB), *other = fb_pool_take(s, 1 * MIB);
    CHECK(large != other);
    fb_pool_give(s, large);
    CHECK_EQ(s->pool_bytes, 1 * MIB);
    void *small = fb_pool_take(s, 64 * KIB);
    CHECK_EQ(s->pool_bytes, 1 * MIB);
    CHECK_EQ(fb_pool_take(s, 600 * KIB), large);
    CHECK_EQ(s->pool_bytes, 0);
    fb_pool_give(s, other);
    fb_pool_give(s, small);
    CHECK_EQ(s->pool_bytes, 1 * MIB + 64 * KIB);
    fb_pool_give(s, large);
    fixture_end_store(&f, s);
}

TEST(no_more_is_kept_than_the_bound)
{
    enum { COUNT = 40 };
    fb_store *s = fixture_begin_store(&f, 16 * MIB);
    void *buffers[COUNT];
    for (int i = 0; i < COUNT; i++)
        buffers[i] = fb_pool_take(s, 1 * MIB);
    for (int i = 0; i < COUNT; i++)
        fb_pool_give(s, buffers[i]);
    CHECK_EQ(s->pool_bytes, FB_POOL_BYTES_MAX);
    void *small = fb_pool_take(s, 64 * KIB);
    fb_pool_give(s, small);
    CHECK_EQ(s->pool_bytes, FB_POOL_BYTES_MAX);
    void *huge = fb_pool_take(s, 64 * MIB);
    fb_pool_give(s, huge);
    CHECK_EQ(s->pool_bytes, FB_POOL_BYTES_MAX);
    fixture_end_store(&f, s);
}

/* Small ones come from malloc and go back to it. */
TEST(small_buffers_are_not_kept)
{
    fb_store *s = fixture_begin_store(&f, 16 * MIB);
    void *buffer = fb_pool_take(s, 32 * KIB - 1);
    fb_pool_give(s, buffer);
    CHECK_EQ(s->pool_bytes, 0);
    fixture_end_store(&f, s);
}

TEST(a_copied_hit_holds_its_buffer_until_it_is_released)
{
    fixture_begin(&f, 32 * MIB);
    f.config.tiers[0].medium = FB_SSD;
    fb_store *s = fixture_open(&f);
    CHECK(block_put(s, 1, 0, 300 * KIB));
    CHECK(block_put(s, 2, 0, 300 * KIB));
    struct fb_hit one = block_hold(s, 1), two = block_hold(s, 2);
    CHECK(one.data != two.data);
    CHECK(block_is(1, 0, one.data, 300 * KIB));
    CHECK(block_is(2, 0, two.data, 300 * KIB));
    uint64_t kept = s->pool_bytes;
    fb_release(s, &one);
    CHECK_EQ(s->pool_bytes, kept + 512 * KIB);
    fb_release(s, &two);
    fixture_end_store(&f, s);
}

CHECK_MAIN
