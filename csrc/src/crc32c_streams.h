/* Three interleaved streams of the CPU's CRC instruction: a template for crc32c_x86.c and crc32c_arm64.c.
 *
 * The instruction takes eight bytes a cycle but answers after three, so one stream uses a third of it. A
 * block is cut into three lanes whose registers advance side by side; then the first two are moved over the
 * bytes behind them, which is one carry-less multiplication by a power of x modulo the polynomial, and all
 * are added.
 *
 * The includer defines, for always-inlined use in functions of its target:
 *   FB_CRC32C_FEATURES            the instructions, as the target attribute names them
 *   FB_CRC32C_TARGET              the attribute of inlined functions that admits them
 *   crc_word(state, uint64_t)     the register after eight more bytes
 *   crc_byte(state, uint8_t)      the register after one more byte
 *   multiply(uint32_t, uint32_t)  the carry-less product
 *
 * Source: V. Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction" (Intel, 2011).
 */
#ifndef FB_CRC32C_STREAMS_H
#define FB_CRC32C_STREAMS_H

#include "crc32c_impl.h"

/* 16 blocks of long lanes cover a 64 KiB chunk but for 256 bytes; short lanes serve those and small records.
 */
#define LONG_LANE_BYTES 1360
#define SHORT_LANE_BYTES 64
_Static_assert(3 * LONG_LANE_BYTES == FB_CRC32C_PIECE_BYTES, "a copied piece is one block of long lanes");

/* x^(8n - 33) modulo the polynomial, reflected: the factor that moves a register over n bytes. 33 is what the
 * product's place and the instruction's own shift by 32 add. */
#define OVER_1360 0x3f70cc6fu
#define OVER_2720 0x5aa1f3cfu
#define OVER_64 0x9e4addf8u
#define OVER_128 0x0d3b6092u

static inline uint64_t load_word(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

FB_CRC32C_TARGET static inline uint32_t extend_by_three_lanes(uint32_t state, const uint8_t *data,
                                                              size_t lane_bytes, uint32_t over_one_lane,
                                                              uint32_t over_two_lanes)
{
    uint32_t first = state;
    uint32_t second = 0;
    uint32_t third = 0;

    for (const uint8_t *end = data + lane_bytes; data < end; data += 8) {
        first = crc_word(first, load_word(data));
        second = crc_word(second, load_word(data + lane_bytes));
        third = crc_word(third, load_word(data + 2 * lane_bytes));
    }
    return crc_word(0, multiply(first, over_two_lanes) ^ multiply(second, over_one_lane)) ^ third;
}

FB_CRC32C_TARGET static inline uint32_t extend_by_streams(uint32_t state, const uint8_t *data,
                                                          size_t length_bytes)
{
    const size_t long_block = 3 * LONG_LANE_BYTES;
    const size_t short_block = 3 * SHORT_LANE_BYTES;

    for (; length_bytes >= long_block; length_bytes -= long_block, data += long_block)
        state = extend_by_three_lanes(state, data, LONG_LANE_BYTES, OVER_1360, OVER_2720);
    for (; length_bytes >= short_block; length_bytes -= short_block, data += short_block)
        state = extend_by_three_lanes(state, data, SHORT_LANE_BYTES, OVER_64, OVER_128);
    for (; length_bytes >= 8; length_bytes -= 8, data += 8)
        state = crc_word(state, load_word(data));
    for (; length_bytes > 0; length_bytes--, data++)
        state = crc_byte(state, *data);
    return state;
}

/* ---- what the includer's struct fb_crc32c_impl takes ---- */

__attribute__((target(FB_CRC32C_FEATURES))) static uint32_t
streams_extend(uint32_t state, const uint8_t *data, size_t length_bytes)
{
    return extend_by_streams(state, data, length_bytes);
}

static uint32_t streams_copy(uint32_t state, uint8_t *destination, const uint8_t *source, size_t length_bytes,
                             bool past_caches)
{
    (void)past_caches;
    return fb_crc32c_copy_by_piece(state, destination, source, length_bytes, streams_extend);
}

#endif
