/* CRC-32C on arm64: three streams of the CRC instruction, joined by a polynomial multiplication.
 *
 * A CPU that has the first but not the second (no server does) uses the portable implementation.
 */
#if defined(__aarch64__)

#include <arm_acle.h>
#include <arm_neon.h>
#include <sys/auxv.h>

#ifndef HWCAP_PMULL
#define HWCAP_PMULL (1 << 4)
#endif
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

#define FB_CRC32C_FEATURES "+crc+crypto"
#define FB_CRC32C_TARGET __attribute__((target(FB_CRC32C_FEATURES), always_inline))

FB_CRC32C_TARGET static inline uint32_t crc_word(uint32_t state, uint64_t word)
{
    return __crc32cd(state, word);
}

FB_CRC32C_TARGET static inline uint32_t crc_byte(uint32_t state, uint8_t byte)
{
    return __crc32cb(state, byte);
}

FB_CRC32C_TARGET static inline uint64_t multiply(uint32_t a, uint32_t b)
{
    return vgetq_lane_u64(vreinterpretq_u64_p128(vmull_p64(a, b)), 0);
}

#include "crc32c_streams.h"

static bool is_supported(void)
{
    unsigned long capabilities = getauxval(AT_HWCAP);
    return (capabilities & HWCAP_CRC32) != 0 && (capabilities & HWCAP_PMULL) != 0;
}

const struct fb_crc32c_impl fb_crc32c_arm64 = {
    .name = "arm64",
    .is_supported = is_supported,
    .extend = streams_extend,
    .copy = streams_copy,
};

#else
typedef int fb_crc32c_arm64_is_elsewhere; /* ISO C wants a declaration in every file */
#endif
