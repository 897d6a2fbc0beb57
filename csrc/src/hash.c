/* MurmurHash3_x64_128 and SipHash-1-3; see forebay/hash.h. */
#include "forebay/hash.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "forebay reads words in little-endian order"
#endif

static inline uint64_t load64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline uint32_t load32(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* The first count bytes (0..7) as a little-endian number, without reading past them. */
static inline uint64_t load_partial(const uint8_t *bytes, size_t count)
{
    if (count >= 4) {
        /* Two loads that overlap in the middle; or-ing the same bits twice changes nothing. */
        return load32(bytes) | (uint64_t)load32(bytes + count - 4) << (8 * (count - 4));
    }
    if (count == 0)
        return 0;
    return bytes[0] | (uint64_t)bytes[count / 2] << (8 * (count / 2)) |
           (uint64_t)bytes[count - 1] << (8 * (count - 1));
}

static inline uint64_t rotate_left(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

/* ---- MurmurHash3_x64_128 ---- */

static const uint64_t MURMUR_C1 = 0x87c37b91114253d5;
static const uint64_t MURMUR_C2 = 0x4cf5ad432745937f;

static inline uint64_t murmur_scramble_1(uint64_t word)
{
    return rotate_left(word * MURMUR_C1, 31) * MURMUR_C2;
}

static inline uint64_t murmur_scramble_2(uint64_t word)
{
    return rotate_left(word * MURMUR_C2, 33) * MURMUR_C1;
}

static inline uint64_t murmur_finish(uint64_t word)
{
    word ^= word >> 33;
    word *= 0xff51afd7ed558ccd;
    word ^= word >> 33;
    word *= 0xc4ceb9fe1a85ec53;
    return word ^ word >> 33;
}

static inline void murmur3(const uint8_t *bytes, size_t length_bytes, uint32_t seed, uint64_t *first,
                           uint64_t *second)
{
    uint64_t h1 = seed;
    uint64_t h2 = seed;
    size_t left = length_bytes;

    for (; left >= 16; left -= 16, bytes += 16) {
        h1 ^= murmur_scramble_1(load64(bytes));
        h1 = (rotate_left(h1, 27) + h2) * 5 + 0x52dce729;
        h2 ^= murmur_scramble_2(load64(bytes + 8));
        h2 = (rotate_left(h2, 31) + h1) * 5 + 0x38495ab5;
    }
    if (left > 8)
        h2 ^= murmur_scramble_2(load_partial(bytes + 8, left - 8));
    if (left > 0)
        h1 ^= murmur_scramble_1(left >= 8 ? load64(bytes) : load_partial(bytes, left));

    h1 ^= length_bytes;
    h2 ^= length_bytes;
    h1 += h2;
    h2 += h1;
    h1 = murmur_finish(h1);
    h2 = murmur_finish(h2);
    h1 += h2;
    *first = h1;
    *second = h2 + h1;
}

/* ---- SipHash-1-3 ---- */

struct sip_state {
    uint64_t v0, v1, v2, v3;
};

static inline void sip_round(struct sip_state *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 = rotate_left(s->v2, 32);
}

static inline void sip_absorb(struct sip_state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

static inline struct sip_state sip_begin(const uint8_t secret[FB_HASH_SECRET_BYTES])
{
    uint64_t k0 = load64(secret);
    uint64_t k1 = load64(secret + 8);
    return (struct sip_state){
        .v0 = k0 ^ 0x736f6d6570736575,
        .v1 = k1 ^ 0x646f72616e646f6d,
        .v2 = k0 ^ 0x6c7967656e657261,
        .v3 = k1 ^ 0x7465646279746573,
    };
}

static inline void sip_absorb_all(struct sip_state *s, const uint8_t *bytes, size_t length_bytes)
{
    size_t left = length_bytes;
    for (; left >= 8; left -= 8, bytes += 8)
        sip_absorb(s, load64(bytes));
    sip_absorb(s, (uint64_t)length_bytes << 56 | load_partial(bytes, left));
}

static inline uint64_t sip_finish(struct sip_state *s)
{
    sip_round(s);
    sip_round(s);
    sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

static inline uint64_t siphash13(const uint8_t secret[FB_HASH_SECRET_BYTES], const uint8_t *bytes,
                                 size_t length_bytes)
{
    struct sip_state s = sip_begin(secret);
    sip_absorb_all(&s, bytes, length_bytes);
    s.v2 ^= 0xff;
    return sip_finish(&s);
}

/* ---- public ---- */

void fb_murmur3_x64_128(const void *data, size_t length_bytes, uint32_t seed, uint64_t out[2])
{
    murmur3(data, length_bytes, seed, &out[0], &out[1]);
}

uint64_t fb_siphash13(const uint8_t secret[FB_HASH_SECRET_BYTES], const void *data, size_t length_bytes)
{
    return siphash13(secret, data, length_bytes);
}

void fb_siphash13_128(const uint8_t secret[FB_HASH_SECRET_BYTES], const void *data, size_t length_bytes,
                      uint64_t out[2])
{
    struct sip_state s = sip_begin(secret);
    s.v1 ^= 0xee;
    sip_absorb_all(&s, data, length_bytes);
    s.v2 ^= 0xee;
    out[0] = sip_finish(&s);
    s.v1 ^= 0xdd;
    out[1] = sip_finish(&s);
}

void fb_key_of(const uint8_t secret[FB_HASH_SECRET_BYTES], const void *data, size_t length_bytes,
               struct fb_key *out)
{
    murmur3(data, length_bytes, 0, &out->lo, &out->hi);
    out->check = siphash13(secret, data, length_bytes);
}
