/* The implementations of CRC-32C and what they share. Internal: crc32c.c chooses one, tests compare them all.
 *
 * A "state" is the CRC register between two calls, that is the complement of the CRC: a stream begins at
 * FB_CRC32C_START and its CRC is ~state.
 */
#ifndef FB_CRC32C_IMPL_H
#define FB_CRC32C_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FB_CRC32C_START 0xffffffffu

struct fb_crc32c_impl {
    const char *name;
    bool (*is_supported)(void);
    /* State after data, from the state before it. */
    uint32_t (*extend)(uint32_t state, const uint8_t *data, size_t length_bytes);
    /* The same while copying to destination. past_caches: the copied bytes are too many to be worth cache
     * lines; an implementation may ignore it, and orders what it stores before it returns. */
    uint32_t (*copy)(uint32_t state, uint8_t *destination, const uint8_t *source, size_t length_bytes,
                     bool past_caches);
};

/* Fastest first, ended by NULL; the last one runs anywhere. */
extern const struct fb_crc32c_impl *const fb_crc32c_impls[];

extern const struct fb_crc32c_impl fb_crc32c_portable;
#if defined(__x86_64__)
extern const struct fb_crc32c_impl fb_crc32c_vpclmulqdq;
extern const struct fb_crc32c_impl fb_crc32c_sse42;
#elif defined(__aarch64__)
extern const struct fb_crc32c_impl fb_crc32c_arm64;
#endif

/* A copy piece and its source stay in the first-level cache together; 3 lanes of 1360 (see crc32c_streams.h).
 */
#define FB_CRC32C_PIECE_BYTES ((size_t)4080)

/* Copies a piece, then extends over its source, which the copy has just brought near. Measured against
 * storing from the registers of three streams: 6.6 to 17 us per 128 KiB, for those stores go to three places
 * at once. */
static inline uint32_t fb_crc32c_copy_by_piece(uint32_t state, uint8_t *destination, const uint8_t *source,
                                               size_t length_bytes,
                                               uint32_t (*extend)(uint32_t, const uint8_t *, size_t))
{
    while (length_bytes > 0) {
        size_t piece = length_bytes < FB_CRC32C_PIECE_BYTES ? length_bytes : FB_CRC32C_PIECE_BYTES;
        memcpy(destination, source, piece);
        state = extend(state, source, piece);
        destination += piece;
        source += piece;
        length_bytes -= piece;
    }
    return state;
}

#endif
