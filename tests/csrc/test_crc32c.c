/* CRC-32C: published vectors, every implementation against a bitwise reference, seams between lanes, pieces,
 * chunks. */
#include "forebay/crc32c.h"

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "crc32c_impl.h"
#include "forebay/store.h"

#define SHORT_BYTES 1100
#define OFFSET_COUNT 16
#define GUARD 0xa5

/* The definition, a bit at a time. */
static uint32_t reference_extend(uint32_t state, const uint8_t *data, size_t length_bytes)
{
    for (size_t i = 0; i < length_bytes; i++) {
        state ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? 0x82f63b78u : 0);
    }
    return state;
}

static void fill_random(uint8_t *bytes, size_t length_bytes)
{
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < length_bytes; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes[i] = (uint8_t)(x >> 32);
    }
}

static uint8_t *allocate_random(size_t length_bytes)
{
    uint8_t *bytes = malloc(length_bytes);
    CHECK(bytes != NULL);
    fill_random(bytes, length_bytes);
    return bytes;
}

/* Calls check for each implementation that this CPU runs. */
static void for_each_impl(void (*check)(const struct fb_crc32c_impl *))
{
    for (const struct fb_crc32c_impl *const *impl = fb_crc32c_impls; *impl != NULL; impl++) {
        if ((*impl)->is_supported())
            check(*impl);
    }
}

TEST(vectors_of_rfc_3720)
{
    uint8_t data[32];
    const uint8_t read_command[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
        0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };

    memset(data, 0x00, sizeof data);
    CHECK_EQ(fb_crc32c(0, data, sizeof data), 0x8a9136aau);
    memset(data, 0xff, sizeof data);
    CHECK_EQ(fb_crc32c(0, data, sizeof data), 0x62a8ab43u);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    CHECK_EQ(fb_crc32c(0, data, sizeof data), 0x46dd794eu);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(31 - i);
    CHECK_EQ(fb_crc32c(0, data, sizeof data), 0x113fdb5cu);
    CHECK_EQ(fb_crc32c(0, read_command, sizeof read_command), 0xd9963a56u);
    CHECK_EQ(fb_crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(fb_crc32c(0, NULL, 0), 0);
}

static void check_short_runs(const struct fb_crc32c_impl *impl)
{
    uint8_t source[SHORT_BYTES + OFFSET_COUNT];
    uint8_t copied[SHORT_BYTES + OFFSET_COUNT + 1];
    fill_random(source, sizeof source);

    for (size_t offset = 0; offset < OFFSET_COUNT; offset++) {
        uint32_t expected = FB_CRC32C_START;
        for (size_t length = 0; length <= SHORT_BYTES; length++) {
            CHECK_EQ(impl->extend(FB_CRC32C_START, source + offset, length), expected);

            /* Destinations move against the source, so that every difference of alignment occurs. */
            uint8_t *destination = copied + length % OFFSET_COUNT;
            memset(copied, GUARD, sizeof copied);
            CHECK_EQ(impl->copy(FB_CRC32C_START, destination, source + offset, length, length % 2), expected);
            CHECK_BYTES_EQ(destination, source + offset, length);
            CHECK_EQ(destination[length], GUARD);
            if (destination > copied)
                CHECK_EQ(destination[-1], GUARD);

            if (length < SHORT_BYTES)
                expected = reference_extend(expected, source + offset + length, 1);
        }
    }
}

TEST(every_implementation_agrees_on_short_runs_at_any_offset)
{
    for_each_impl(check_short_runs);
}

static void check_long_runs(const struct fb_crc32c_impl *impl)
{
    const size_t borders[] = {4080, 2 * 4080, 64 * 1024, 1024 * 1024};
    const size_t largest = 1024 * 1024 + 3;
    uint8_t *source = allocate_random(largest);
    uint8_t *copied = malloc(largest + OFFSET_COUNT);
    CHECK(copied != NULL);

    for (size_t border = 0; border < sizeof borders / sizeof borders[0]; border++) {
        for (size_t length = borders[border] - 3; length <= borders[border] + 3; length++) {
            uint8_t *destination = copied + length % OFFSET_COUNT;
            uint32_t expected = fb_crc32c_portable.extend(FB_CRC32C_START, source, length);
            CHECK_EQ(impl->extend(FB_CRC32C_START, source, length), expected);
            for (int past_caches = 0; past_caches <= 1; past_caches++) {
                memset(copied, 0, length + OFFSET_COUNT);
                CHECK_EQ(impl->copy(FB_CRC32C_START, destination, source, length, past_caches), expected);
                CHECK_BYTES_EQ(destination, source, length);
            }
        }
    }
    free(copied);
    free(source);
}

TEST(every_implementation_agrees_on_long_runs)
{
    for_each_impl(check_long_runs);
}

static void check_split_runs(const struct fb_crc32c_impl *impl)
{
    enum { LENGTH_BYTES = 4500 };
    uint8_t source[LENGTH_BYTES];
    uint8_t copied[LENGTH_BYTES];
    fill_random(source, sizeof source);
    uint32_t whole = reference_extend(FB_CRC32C_START, source, LENGTH_BYTES);

    for (size_t split = 0; split <= LENGTH_BYTES; split++) {
        uint32_t state = impl->extend(FB_CRC32C_START, source, split);
        CHECK_EQ(impl->extend(state, source + split, LENGTH_BYTES - split), whole);
        state = impl->copy(FB_CRC32C_START, copied, source, split, false);
        CHECK_EQ(impl->copy(state, copied + split, source + split, LENGTH_BYTES - split, false), whole);
    }
    CHECK_BYTES_EQ(copied, source, LENGTH_BYTES);
}

TEST(a_run_may_be_split_anywhere)
{
    for_each_impl(check_split_runs);
}

/* A run that ends where the next page may not be touched. */
static void check_page_end(const struct fb_crc32c_impl *impl)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 4 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_EQ(mprotect(pages + page_bytes, page_bytes, PROT_NONE), 0);
    CHECK_EQ(mprotect(pages + 3 * page_bytes, page_bytes, PROT_NONE), 0);
    uint8_t *source_end = pages + page_bytes;
    uint8_t *destination_end = pages + 3 * page_bytes;
    fill_random(pages, page_bytes);

    for (size_t length = 0; length <= SHORT_BYTES; length++) {
        const uint8_t *source = source_end - length;
        uint32_t expected = fb_crc32c_portable.extend(FB_CRC32C_START, source, length);
        CHECK_EQ(impl->extend(FB_CRC32C_START, source, length), expected);
        CHECK_EQ(impl->copy(FB_CRC32C_START, destination_end - length, source, length, false), expected);
        CHECK_EQ(impl->copy(FB_CRC32C_START, destination_end - length, source, length, true), expected);
    }
    CHECK_EQ(munmap(pages, 4 * page_bytes), 0);
}

TEST(nothing_is_touched_past_the_end)
{
    for_each_impl(check_page_end);
}

TEST(public_functions_agree_with_each_other)
{
    const size_t length = 300001;
    uint8_t *source = allocate_random(length);
    uint8_t *copied = malloc(length);
    CHECK(copied != NULL);

    uint32_t crc = fb_crc32c(0, source, length);
    CHECK_EQ(crc, ~reference_extend(FB_CRC32C_START, source, length));
    CHECK_EQ(fb_copy_crc32c(copied, source, length), crc);
    CHECK_BYTES_EQ(copied, source, length);
    CHECK_EQ(fb_crc32c(fb_crc32c(0, source, 12345), source + 12345, length - 12345), crc);
    CHECK_EQ(fb_copy_crc32c(NULL, NULL, 0), 0);
    free(copied);
    free(source);
}

static void check_chunks(const uint8_t *source, size_t length, size_t chunk_bytes)
{
    size_t count = (length + chunk_bytes - 1) / chunk_bytes;
    uint32_t *alone = calloc(count + 1, sizeof *alone);
    uint32_t *fused = calloc(count + 1, sizeof *fused);
    uint8_t *copied = malloc(length + 1);
    CHECK(alone != NULL && fused != NULL && copied != NULL);

    copied[length] = GUARD;
    fb_crc32c_chunks(source, length, chunk_bytes, alone);
    fb_copy_crc32c_chunks(copied, source, length, chunk_bytes, fused);
    for (size_t i = 0; i < count; i++) {
        size_t begin = i * chunk_bytes;
        size_t chunk = length - begin < chunk_bytes ? length - begin : chunk_bytes;
        uint32_t expected = ~fb_crc32c_portable.extend(FB_CRC32C_START, source + begin, chunk);
        CHECK_EQ(alone[i], expected);
        CHECK_EQ(fused[i], expected);
    }
    CHECK_EQ(alone[count], 0);
    CHECK_EQ(fused[count], 0);
    CHECK_BYTES_EQ(copied, source, length);
    CHECK_EQ(copied[length], GUARD);
    free(copied);
    free(fused);
    free(alone);
}

TEST(chunks_are_right_around_their_borders)
{
    const size_t largest = 17 * FB_CHUNK_BYTES;
    const size_t small_chunks[] = {1, 7, 64, 192, 513, 4080};
    uint8_t *source = allocate_random(largest);

    for (size_t i = 0; i < sizeof small_chunks / sizeof small_chunks[0]; i++) {
        for (size_t length = 0; length <= 600; length++)
            check_chunks(source, length, small_chunks[i]);
    }
    for (size_t k = 0; k <= 2; k++) {
        for (size_t around = 0; around <= 4; around++)
            check_chunks(source, (k + 1) * FB_CHUNK_BYTES + around - 2, FB_CHUNK_BYTES);
    }
    check_chunks(source, largest - 1, FB_CHUNK_BYTES); /* large enough to go past the caches */
    check_chunks(source + 1, largest - 1, FB_CHUNK_BYTES);
    free(source);
}

TEST(the_implementation_in_use_has_a_name)
{
    CHECK(strlen(fb_crc32c_implementation()) > 0);
}

CHECK_MAIN
