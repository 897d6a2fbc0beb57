/* Private buffers in powers of two from 64 KiB to 64 MiB, kept for reuse up to a bound: a fresh large
 * allocation would be mapped, faulted in page by page and unmapped again at every read. */
#include "read.h"

#define POOL_SMALLEST_SHIFT 16u
#define POOL_CLASSES 12u

struct header {
    uint32_t class;
    uint32_t reserved;
    struct header *next;
};
#define HEADER_BYTES 64u
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "buffers stay aligned to a cache line");

static uint32_t class_of(uint64_t length_bytes)
{
    uint32_t class = 0;
    while (class < POOL_CLASSES && ((uint64_t)1 << (class + POOL_SMALLEST_SHIFT)) < length_bytes)
        class++;
    return class;
}

static uint64_t class_bytes(uint32_t class)
{
    return (uint64_t)1 << (class + POOL_SMALLEST_SHIFT);
}

void *fb_pool_take(fb_store *s, uint64_t length_bytes)
{
    bool small = length_bytes < (1u << POOL_SMALLEST_SHIFT) / 2;
    uint32_t class = small ? POOL_CLASSES : class_of(length_bytes);
    struct header *h = NULL;
    if (class < POOL_CLASSES) {
        pthread_mutex_lock(&s->pool_lock);
        h = s->pool[class];
        if (h != NULL) {
            s->pool[class] = h->next;
            s->pool_bytes -= class_bytes(class);
        }
        pthread_mutex_unlock(&s->pool_lock);
    }
    if (h == NULL) {
        uint64_t bytes = class < POOL_CLASSES ? class_bytes(class) : length_bytes;
        if (posix_memalign((void **)&h, 64, HEADER_BYTES + bytes) != 0)
            return NULL;
        h->class = class;
    }
    return (char *)h + HEADER_BYTES;
}

void fb_pool_give(fb_store *s, void *buffer)
{
    struct header *h = (struct header *)(void *)((char *)buffer - HEADER_BYTES);
    bool kept = false;
    if (h->class < POOL_CLASSES) {
        pthread_mutex_lock(&s->pool_lock);
        if (s->pool_bytes + class_bytes(h->class) <= FB_POOL_BYTES_MAX) {
            h->next = s->pool[h->class];
            s->pool[h->class] = h;
            s->pool_bytes += class_bytes(h->class);
            kept = true;
        }
        pthread_mutex_unlock(&s->pool_lock);
    }
    if (!kept)
        free(h);
}

void fb_pool_close(fb_store *s)
{
    for (uint32_t class = 0; class < POOL_CLASSES; class++)
        for (struct header *h = s->pool[class]; h != NULL;) {
            struct header *next = h->next;
            free(h);
            h = next;
        }
}
