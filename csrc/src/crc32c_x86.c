/* CRC-32C on x86-64: three SSE4.2 streams, or folding by carry-less multiplication over 512-bit registers.
 *
 * Folding keeps a run of data congruent to all that came before it: a 128-bit lane is moved ahead by D bytes
 * as the sum of two products, its low half by x^(8D + 31) and its high half by x^(8D - 33), both modulo the
 * polynomial and reflected. Its registers hold whole cache lines in order, so a copy stores them as it goes:
 * one pass, 0.8 to 1.0 of memcpy's speed, and from past_caches on with stores that do not read the lines they
 * replace, 1.3 to 1.5 of it.
 *
 * Source: V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel,
 * 2009).
 */
#if defined(__x86_64__)

#include <immintrin.h>
#include <stdint.h>

#define FB_CRC32C_FEATURES "sse4.2,pclmul"
#define FB_CRC32C_TARGET __attribute__((target(FB_CRC32C_FEATURES), always_inline))
#define FOLDING_TARGET __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq"), always_inline))

FB_CRC32C_TARGET static inline uint32_t crc_word(uint32_t state, uint64_t word)
{
    return (uint32_t)_mm_crc32_u64(state, word);
}

FB_CRC32C_TARGET static inline uint32_t crc_byte(uint32_t state, uint8_t byte)
{
    return _mm_crc32_u8(state, byte);
}

FB_CRC32C_TARGET static inline uint64_t multiply(uint32_t a, uint32_t b)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0x00);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

#include "crc32c_streams.h"

/* ---- three streams ---- */

static bool streams_are_supported(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

const struct fb_crc32c_impl fb_crc32c_sse42 = {
    .name = "sse42",
    .is_supported = streams_are_supported,
    .extend = streams_extend,
    .copy = streams_copy,
};

/* ---- folding ---- */

#define LINE_BYTES 64
#define STRIDE_BYTES (4 * LINE_BYTES)
/* Below this the streams' small overhead wins. */
#define FOLDING_MIN_BYTES (2 * STRIDE_BYTES)

/* Factors of a lane's low and high half for moving it ahead by that many bytes. */
#define AHEAD_256 0xb9e02b86, 0xdcb17aa4
#define AHEAD_64 0x9e4addf8, 0x740eef02
#define AHEAD_48 0xddc0152b, 0x1c291d04
#define AHEAD_32 0xba4fc28e, 0x3da6d0cb
#define AHEAD_16 0x493c7d27, 0xf20c0dfe

/* How the stores of a copy are made; the kernel is compiled once for each. */
enum stores { STORES_NONE, STORES_CACHED, STORES_PAST_CACHES };

/* The destination is aligned to a line: an unaligned store of 64 bytes always touches two. */
FOLDING_TARGET static inline __m512i take_line(uint8_t *destination, const uint8_t *source, size_t line,
                                               enum stores stores)
{
    __m512i data = _mm512_loadu_si512(source + line * LINE_BYTES);
    if (stores == STORES_CACHED)
        _mm512_store_si512(destination + line * LINE_BYTES, data);
    else if (stores == STORES_PAST_CACHES)
        _mm512_stream_si512((__m512i *)(void *)(destination + line * LINE_BYTES), data);
    return data;
}

FOLDING_TARGET static inline __m512i fold(__m512i lanes, __m512i factors, __m512i next)
{
    const int xor_of_three = 0x96;
    __m512i low = _mm512_clmulepi64_epi128(lanes, factors, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(lanes, factors, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, xor_of_three);
}

/* The four lanes of a line into one register: the first three are moved to where the last one stands. */
FOLDING_TARGET static inline uint32_t reduce_line(__m512i line)
{
    const __m512i factors = _mm512_set_epi64(0, 0, AHEAD_16, AHEAD_32, AHEAD_48);
    __m512i moved = fold(line, factors, _mm512_maskz_mov_epi64(0xc0, line));
    __m256i halves = _mm256_xor_si256(_mm512_castsi512_si256(moved), _mm512_extracti64x4_epi64(moved, 1));
    __m128i lane = _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    uint32_t state = crc_word(0, (uint64_t)_mm_extract_epi64(lane, 0));
    return crc_word(state, (uint64_t)_mm_extract_epi64(lane, 1));
}

/* length_bytes: a multiple of LINE_BYTES, at least STRIDE_BYTES. */
FOLDING_TARGET static inline uint32_t fold_lines(uint32_t state, uint8_t *destination, const uint8_t *source,
                                                 size_t length_bytes, enum stores stores)
{
    const __m512i ahead_256 = _mm512_set_epi64(AHEAD_256, AHEAD_256, AHEAD_256, AHEAD_256);
    const __m512i ahead_64 = _mm512_set_epi64(AHEAD_64, AHEAD_64, AHEAD_64, AHEAD_64);
    __m512i before = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state));
    __m512i a = _mm512_xor_si512(before, take_line(destination, source, 0, stores));
    __m512i b = take_line(destination, source, 1, stores);
    __m512i c = take_line(destination, source, 2, stores);
    __m512i d = take_line(destination, source, 3, stores);
    size_t done = STRIDE_BYTES;

    for (; length_bytes - done >= STRIDE_BYTES; done += STRIDE_BYTES) {
        a = fold(a, ahead_256, take_line(destination + done, source + done, 0, stores));
        b = fold(b, ahead_256, take_line(destination + done, source + done, 1, stores));
        c = fold(c, ahead_256, take_line(destination + done, source + done, 2, stores));
        d = fold(d, ahead_256, take_line(destination + done, source + done, 3, stores));
    }
    b = fold(a, ahead_64, b);
    c = fold(b, ahead_64, c);
    d = fold(c, ahead_64, d);
    for (; done < length_bytes; done += LINE_BYTES)
        d = fold(d, ahead_64, take_line(destination + done, source + done, 0, stores));
    return reduce_line(d);
}

__attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq"))) static uint32_t
folding_extend(uint32_t state, const uint8_t *data, size_t length_bytes)
{
    if (length_bytes >= FOLDING_MIN_BYTES) {
        size_t folded = length_bytes / LINE_BYTES * LINE_BYTES;
        state = fold_lines(state, NULL, data, folded, STORES_NONE);
        data += folded;
        length_bytes -= folded;
    }
    return extend_by_streams(state, data, length_bytes);
}

__attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq"))) static uint32_t
folding_copy(uint32_t state, uint8_t *destination, const uint8_t *source, size_t length_bytes,
             bool past_caches)
{
    if (length_bytes >= FOLDING_MIN_BYTES) {
        size_t head = -(uintptr_t)destination % LINE_BYTES;
        size_t folded = (length_bytes - head) / LINE_BYTES * LINE_BYTES;
        memcpy(destination, source, head);
        state = extend_by_streams(state, source, head);
        if (past_caches) {
            state = fold_lines(state, destination + head, source + head, folded, STORES_PAST_CACHES);
            _mm_sfence(); /* such stores are ordered by nothing else, not even by a release store */
        } else {
            state = fold_lines(state, destination + head, source + head, folded, STORES_CACHED);
        }
        destination += head + folded;
        source += head + folded;
        length_bytes -= head + folded;
    }
    if (length_bytes > 0)
        memcpy(destination, source, length_bytes);
    return extend_by_streams(state, source, length_bytes);
}

static bool folding_is_supported(void)
{
    return streams_are_supported() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("vpclmulqdq");
}

const struct fb_crc32c_impl fb_crc32c_vpclmulqdq = {
    .name = "vpclmulqdq",
    .is_supported = folding_is_supported,
    .extend = folding_extend,
    .copy = folding_copy,
};

#else
typedef int fb_crc32c_x86_is_elsewhere; /* ISO C wants a declaration in every file */
#endif
