/* Block keys: a 128-bit name to find a block by, and 64 keyed bits compared at every hit.
 *
 * The name is MurmurHash3_x64_128, the same on every host, so that placement agrees across a group. It is not
 * collision resistant against somebody who chooses the input; the check, SipHash-1-3 under the store's own
 * random secret, is what keeps a collision of names from handing out another block's bytes.
 *
 * All functions: any thread, no allocation, no failure, no alignment asked of data. data may be NULL only
 * when length_bytes is 0.
 *
 * Sources: A. Appleby, MurmurHash3 (smhasher); J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast
 * short-input PRF" (2012), with c = 1 and d = 3 rounds.
 */
#ifndef FOREBAY_HASH_H
#define FOREBAY_HASH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FB_HASH_SECRET_BYTES 16

/* lo and hi are the first and the second word of the murmur hash; check is the SipHash. */
struct fb_key {
    uint64_t hi;
    uint64_t lo;
    uint64_t check;
};

/* out = the two words of mmh3.hash64(data, seed, x64arch=True, signed=False), in that order. */
void fb_murmur3_x64_128(const void *data, size_t length_bytes, uint32_t seed, uint64_t out[2]);

/* SipHash-1-3 under a secret whose two 64-bit halves are little-endian. */
uint64_t fb_siphash13(const uint8_t secret[FB_HASH_SECRET_BYTES], const void *data, size_t length_bytes);

/* The same with an output of 128 bits, for what is told apart by its hash alone: a name that nobody without
 * the secret can find a second text for. */
void fb_siphash13_128(const uint8_t secret[FB_HASH_SECRET_BYTES], const void *data, size_t length_bytes,
                      uint64_t out[2]);

/* Both hashes of the same bytes; the murmur seed is 0. */
void fb_key_of(const uint8_t secret[FB_HASH_SECRET_BYTES], const void *data, size_t length_bytes,
               struct fb_key *out);

#ifdef __cplusplus
}
#endif

#endif
