/* CRC-32C by slicing: eight bytes a step, one table look-up a byte.
 *
 * Source: M. E. Kounavis and F. L. Berry, "Novel Table Lookup-Based Algorithms for High-Performance CRC
 * Generation" (IEEE Transactions on Computers, 2008).
 */
#include "crc32c_impl.h"

#define SLICE_COUNT 8

/* A table entry is linear in its index, so eight entries (those of the powers of two) make all 256. */
#define ENTRY(i, b0, b1, b2, b3, b4, b5, b6, b7)                                                             \
    (((i) & 1 ? b0 : 0) ^ ((i) & 2 ? b1 : 0) ^ ((i) & 4 ? b2 : 0) ^ ((i) & 8 ? b3 : 0) ^                     \
     ((i) & 16 ? b4 : 0) ^ ((i) & 32 ? b5 : 0) ^ ((i) & 64 ? b6 : 0) ^ ((i) & 128 ? b7 : 0))
#define ENTRIES_4(i, ...)                                                                                    \
    ENTRY(i, __VA_ARGS__), ENTRY(i + 1, __VA_ARGS__), ENTRY(i + 2, __VA_ARGS__), ENTRY(i + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...)                                                                                   \
    ENTRIES_4(i, __VA_ARGS__), ENTRIES_4(i + 4, __VA_ARGS__), ENTRIES_4(i + 8, __VA_ARGS__),                 \
        ENTRIES_4(i + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...)                                                                                   \
    ENTRIES_16(i, __VA_ARGS__), ENTRIES_16(i + 16, __VA_ARGS__), ENTRIES_16(i + 32, __VA_ARGS__),            \
        ENTRIES_16(i + 48, __VA_ARGS__)
#define TABLE(...)                                                                                           \
    {ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__),                  \
     ENTRIES_64(192, __VA_ARGS__)}

/* Table k, entry i: the register after byte i and k zero bytes, from a zero register. The constants follow
 * from the reflected polynomial, 0x82f63b78, which is the last of the first row. */
static const uint32_t slices[SLICE_COUNT][256] = {
    TABLE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
    TABLE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
    TABLE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
    TABLE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
    TABLE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
    TABLE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
    TABLE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
    TABLE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};

static uint32_t extend(uint32_t state, const uint8_t *data, size_t length_bytes)
{
    for (; length_bytes >= SLICE_COUNT; length_bytes -= SLICE_COUNT, data += SLICE_COUNT) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        word ^= state;
        state = slices[7][word & 0xff] ^ slices[6][word >> 8 & 0xff] ^ slices[5][word >> 16 & 0xff] ^
                slices[4][word >> 24 & 0xff] ^ slices[3][word >> 32 & 0xff] ^ slices[2][word >> 40 & 0xff] ^
                slices[1][word >> 48 & 0xff] ^ slices[0][word >> 56];
    }
    for (; length_bytes > 0; length_bytes--, data++)
        state = slices[0][(state ^ *data) & 0xff] ^ state >> 8;
    return state;
}

static uint32_t copy(uint32_t state, uint8_t *destination, const uint8_t *source, size_t length_bytes,
                     bool past_caches)
{
    (void)past_caches;
    return fb_crc32c_copy_by_piece(state, destination, source, length_bytes, extend);
}

static bool is_supported(void)
{
    return true;
}

const struct fb_crc32c_impl fb_crc32c_portable = {
    .name = "portable",
    .is_supported = is_supported,
    .extend = extend,
    .copy = copy,
};
