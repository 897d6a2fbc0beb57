/* The store's clock: boot time plus a base that carries it over restarts, in whole seconds for slots. */
#ifndef FB_CLOCK_H
#define FB_CLOCK_H

#include "engine.h"
#include "platform.h"

static inline int64_t fb_now_ms(fb_store *s)
{
    return fb_boottime_ms() + atomic_load(&s->shared->clock_offset_ms) +
           atomic_load(&s->shared->clock_base_ms);
}

static inline uint32_t fb_now_s(fb_store *s)
{
    return (uint32_t)(fb_now_ms(s) / 1000);
}

/* The second at which something put now for ttl_s expires; 0: never. Rounded up: a TTL is never cut. */
static inline uint32_t fb_expiry_of(fb_store *s, double ttl_s)
{
    if (!(ttl_s >= 0))
        return 0;
    double at = (double)fb_now_ms(s) / 1000 + ttl_s + 0.999;
    return at >= (double)UINT32_MAX ? 0 : at < 1 ? 1 : (uint32_t)at;
}

#endif
