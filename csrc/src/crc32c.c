/* Chooses the implementation of CRC-32C and cuts runs into chunks; see forebay/crc32c.h. */
#include "forebay/crc32c.h"

#include <stdatomic.h>

#include "crc32c_impl.h"

/* From this size on a copy goes past the caches where the implementation can: as fast as through them when
 * the block is read again at once, 1.4 times as fast when it is not, and what the trainer holds in the caches
 * stays there. Below it the caches win the first case by a fifth. */
#define PAST_CACHES_MIN_BYTES ((size_t)1 << 20)

const struct fb_crc32c_impl *const fb_crc32c_impls[] = {
#if defined(__x86_64__)
    &fb_crc32c_vpclmulqdq,
    &fb_crc32c_sse42,
#elif defined(__aarch64__)
    &fb_crc32c_arm64,
#endif
    &fb_crc32c_portable,
    NULL,
};

static const struct fb_crc32c_impl *choose(void)
{
    const struct fb_crc32c_impl *const *impl = fb_crc32c_impls;
    while (!(*impl)->is_supported())
        impl++;
    return *impl;
}

/* Threads that race to the first call choose the same, and what is pointed to is constant: relaxed is enough.
 */
static inline const struct fb_crc32c_impl *chosen(void)
{
    static _Atomic(const struct fb_crc32c_impl *) remembered;
    const struct fb_crc32c_impl *impl = atomic_load_explicit(&remembered, memory_order_relaxed);
    if (impl == NULL) {
        impl = choose();
        atomic_store_explicit(&remembered, impl, memory_order_relaxed);
    }
    return impl;
}

static inline size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

const char *fb_crc32c_implementation(void)
{
    return chosen()->name;
}

uint32_t fb_crc32c(uint32_t crc, const void *data, size_t length_bytes)
{
    return ~chosen()->extend(~crc, data, length_bytes);
}

uint32_t fb_copy_crc32c(void *destination, const void *source, size_t length_bytes)
{
    bool past_caches = length_bytes >= PAST_CACHES_MIN_BYTES;
    return ~chosen()->copy(FB_CRC32C_START, destination, source, length_bytes, past_caches);
}

void fb_crc32c_chunks(const void *data, size_t length_bytes, size_t chunk_bytes, uint32_t *out)
{
    const struct fb_crc32c_impl *impl = chosen();
    const uint8_t *from = data;

    while (length_bytes > 0) {
        size_t chunk = smaller(length_bytes, chunk_bytes);
        *out++ = ~impl->extend(FB_CRC32C_START, from, chunk);
        from += chunk;
        length_bytes -= chunk;
    }
}

void fb_copy_crc32c_chunks(void *destination, const void *source, size_t length_bytes, size_t chunk_bytes,
                           uint32_t *out)
{
    const struct fb_crc32c_impl *impl = chosen();
    bool past_caches = length_bytes >= PAST_CACHES_MIN_BYTES;
    uint8_t *to = destination;
    const uint8_t *from = source;

    while (length_bytes > 0) {
        size_t chunk = smaller(length_bytes, chunk_bytes);
        *out++ = ~impl->copy(FB_CRC32C_START, to, from, chunk, past_caches);
        to += chunk;
        from += chunk;
        length_bytes -= chunk;
    }
}
